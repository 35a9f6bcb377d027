// A program of a plain C++ compiler: it asks which GPUs there are and packs a matrix for one.
#include <cstdio>

#include <lowrank/cuda.hpp>

int main() {
  const float numbers[64] = {1.0f, 2.0f};
  const auto packed = lowrank::cuda::pack_bfloat16(lowrank::DenseSource<float>(numbers, 2, 32));
  for (const auto& device : lowrank::cuda::devices())
    std::printf("%d: %s, compute capability %d.%d\n", device.index, device.name.c_str(), device.major, device.minor);
  std::printf("%s\n", lowrank::cuda::is_available() ? "the kernels can run here" : "no GPU here that the kernels can run on");
  return packed.bytes() == 128 ? 0 : 1;
}
