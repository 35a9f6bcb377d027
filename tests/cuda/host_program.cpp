// A program of a plain C++ compiler: it asks which GPUs there are and puts a matrix into chunks for one.
#include <cstdio>

#include <lowrank/cuda/query.hpp>
#include <lowrank/cuda/weight.hpp>

int main() {
  const float numbers[64] = {1.0f, 2.0f};
  const auto chunks = lowrank::cuda::to_bfloat16_chunks(lowrank::DenseSource<float>(numbers, 2, 32));
  for (const auto& device : lowrank::cuda::devices())
    std::printf("%d: %s, compute capability %d.%d\n", device.index, device.name.c_str(), device.major, device.minor);
  std::printf("%s\n", lowrank::cuda::is_available() ? "the kernels can run here" : "no GPU here that the kernels can run on");
  return chunks.bytes() == 128 ? 0 : 1;
}
