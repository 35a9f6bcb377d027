// The host side of the CUDA backend from its library, in a program that no nvcc compiles.
#include <cstdio>

#include <lowrank/cuda/query.hpp>

int main() {
  const auto devices = lowrank::cuda::devices();
  std::printf("%zu GPUs: %s\n", devices.size(), lowrank::cuda::is_available() ? "one can be used" : "none can be used");
  return 0;
}
