// A program of the whole library for the CPU that any system can run: it trains an adapter over a 4-bit layer, merges it, writes files,
// maps them and compares. It is compiled for systems on which the other tests do not run.
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include <lowrank/adapters.hpp>
#include <lowrank/io.hpp>
#include <lowrank/lowrank.hpp>

using namespace lowrank;

int main() {
  Weight<float> w(96, 64);
  Activation<float> x(64, 24), target(96, 24);
  fill_normal(w, 0.2, Random(1)), fill_normal(x, 1, Random(2)), fill_normal(target, 1, Random(3));
  LoraLinear layer{QuantizedLinear{quantize<Nf4<64>>(w)}, {.rank = 4, .alpha = 8}};

  AdamW optimizer{parameters(layer), {.learning_rate = 1e-2}};
  float first = 0, last = 0;
  for (int step = 0; step < 10; ++step) {
    optimizer.zero_grad();
    Tape tape;
    Var loss = mse(layer(tape.input(x)), target);
    (step == 0 ? first : last) = loss.item();
    tape.backward(loss);
    optimizer.step();
  }
  std::printf("target %s, loss %.4f -> %.4f\n", kernels::target_name(), static_cast<double>(first), static_cast<double>(last));

  const std::filesystem::path path(u8"adapter ä.safetensors");
  for (int version = 0; version < 2; ++version) {  // the second time over the first
    const std::vector<StoredTensor> tensors{make_tensor<float>("a", {4, 64}, {layer.a().value.data(), 4 * 64}),
                                            make_tensor<float>("b", {96, 4}, {layer.b().value.data(), 96 * 4})};
    safetensors::write(path, tensors);
  }
  LoraLinear again{QuantizedLinear{quantize<Nf4<64>>(w)}, {.rank = 4, .alpha = 8}};
  {
    const auto file = safetensors::File::open(path);
    again.a().value = Eigen::Map<const Weight<float>>(file.at("a").bytes.as<float>(), 4, 64);
    again.b().value = Eigen::Map<const Weight<float>>(file.at("b").bytes.as<float>(), 96, 4);
  }
  std::filesystem::remove(path);
  const bool same = std::as_const(again)(x) == std::as_const(layer)(x);

  const MergeReport report = merge(layer);
  std::printf("files %s, merged, %.3g of the update survived\n", same ? "hold the same bits" : "differ", report.survived);
  return last < 0.95f * first && same ? 0 : 1;
}
