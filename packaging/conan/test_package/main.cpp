// What is two for NF4 comes back as two; with io, from a file.
#include <cstdio>
#include <vector>

#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#if defined(WITH_IO)
#include <lowrank/io/safetensors.hpp>
#endif

int main() {
  using namespace lowrank;
  const Weight<float> w = Weight<float>::Constant(2, 64, 2.0f);
  const Weight<float> d = dequantize(quantize<Nf4<64>>(w));
  bool right = d == w;
#if defined(WITH_IO)
  const std::vector<StoredTensor> tensors{make_tensor<float>("w", {2, 64}, {d.data(), 128})};
  safetensors::write("w.safetensors", tensors);
  right = right && safetensors::File::open("w.safetensors").at("w").bytes.as<float>()[127] == 2.0f;
#endif
  std::printf("lowrank %d.%d.%d: %s\n", LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR, LOWRANK_VERSION_PATCH, right ? "right" : "wrong");
  return right ? 0 : 1;
}
