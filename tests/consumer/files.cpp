// A program that writes and reads a file with the library: it links lowrank::io.
#include <cstdio>
#include <vector>

#include <lowrank/io/safetensors.hpp>

int main() {
  using namespace lowrank;
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::vector<StoredTensor> tensors{make_tensor<float>("w", {2, 3}, values)};
  safetensors::write("numbers.safetensors", tensors);
  const auto file = safetensors::File::open("numbers.safetensors");
  const auto read = file.at("w").bytes.bytes();
  std::printf("%zu bytes of w came back\n", read.size());
  return read.size() == 6 * sizeof(float) && reinterpret_cast<const float*>(read.data())[5] == 6.0f ? 0 : 1;
}
