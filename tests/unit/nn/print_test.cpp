#include <doctest/doctest.h>

#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn.hpp>
#include <lowrank/quant.hpp>
#include <lowrank/quant/q6_k.hpp>
#include <lowrank/update/vera.hpp>

using namespace lowrank;

namespace {

template <class T>
std::string printed(const T& x) {
  std::ostringstream stream;
  stream << x << '!';  // the stream itself comes back
  std::string text = stream.str();
  CHECK(text.ends_with('!'));
  text.pop_back();
  return text;
}

Buffer print_bytes(std::size_t size) { return Buffer::allocate(size); }

/// A layer of a user's, with a kind and without.
struct PrintedLayer : Linear<float> {
  using Linear<float>::Linear;
  static constexpr std::string_view kind = "PrintedLayer";
};

template <class T>
concept Printable = requires(std::ostream& stream, const T& x) {
  stream << x;
};
static_assert(!Printable<Tape<float>> && Printable<Weight<float>> && Printable<Activation<double>>);

}  // namespace

TEST_CASE("layers print as one line: kind, format, sizes, rank and scale, base, parameters, bytes") {
  const Linear<float> dense(64, 48, {.bias = true});
  const Linear<double, 3, 2> small;
  const QuantizedLinear four{quantize<Nf4<64>>(dense.weight().value)};
  const FrozenLinear<BFloat16> brain(StoredMatrix<BFloat16>(48, 64, print_bytes(48 * 64 * 2)));
  LoraLinear lora{four, {.rank = 4, .alpha = 8}};
  CHECK(printed(dense) == "Linear fp32 [48, 64] with bias, 3120 of 3120 parameters trainable, 12 kB");
  CHECK(printed(small) == "Linear fp64 [2, 3], 6 of 6 parameters trainable, 48 B");
  CHECK(printed(four) == "QuantizedLinear nf4 [48, 64], 0 of 3072 parameters trainable, 1.7 kB");
  CHECK(printed(brain) == "FrozenLinear bf16 [48, 64], 0 of 3072 parameters trainable, 6.1 kB");
  CHECK(printed(lora) == "LoraLinear [48, 64] rank 4, s = 2, over QuantizedLinear nf4 [48, 64], 448 of 3520 parameters trainable, 3.5 kB");
  CHECK(printed(DoraLinear{dense, {.rank = 2, .alpha = 1}}) ==
        "DoraLinear [48, 64] rank 2, s = 0.5, over Linear fp32 [48, 64] with bias, 272 of 3392 parameters trainable, 14 kB");
  CHECK(printed(LoraLinear{lora, {.rank = 1}})
            .starts_with("LoraLinear [48, 64] rank 1, s = 8, over LoraLinear [48, 64] rank 4, s = 2, over Q"));
  CHECK(printed(AnyLinear(four)) == "AnyLinear nf4 [48, 64], 0 of 3072 parameters trainable, 1.7 kB");
  CHECK(printed(AnyLinear(dense)) == "AnyLinear fp32 [48, 64] with bias, 3120 of 3120 parameters trainable, 12 kB");
  CHECK(printed(AdaptedLinear(AnyLinear(four))) == printed(AnyLinear(four)));
  CHECK(printed(Embedding<float>(256, 64)) == "Embedding fp32 [256, 64], 16384 of 16384 parameters trainable, 66 kB");
  CHECK(printed(PrintedLayer(4, 2)) == "PrintedLayer fp32 [2, 4], 8 of 8 parameters trainable, 32 B");
  lora.set_merged(four);
  CHECK(printed(lora).starts_with("LoraLinear [48, 64] rank 4, s = 2, merged, over QuantizedLinear nf4 [48, 64], "));
}

TEST_CASE("what a line is made of can be had alone") {
  const Linear<float> dense(64, 48);
  const LoraLinear lora{QuantizedLinear{quantize<Q4_1>(dense.weight().value)}, {.rank = 4}};
  const LayerSize size = layer_size(lora);
  CHECK(size.trainable == 448);
  CHECK(size.parameters == 3520);
  CHECK(size.bytes == 48 * 40 + 448 * 4);
  const std::vector<AnyLinear> model{AnyLinear(dense), AnyLinear(lora.base())};
  CHECK(layer_size(model).parameters == 2 * 3072);
  CHECK(layer_size(model).trainable == 3072);
  CHECK(format_of(lora) == "Q4_1");
  CHECK(format_of(AnyLinear(dense)) == "fp32");
  CHECK(format_of(Linear<double>(3, 2)) == "fp64");
}

TEST_CASE("matrices print their format, whatever holds them") {
  const Weight<float> w = Weight<float>::Random(4, 256);
  const auto q = quantize<Nf4<64>>(w);
  CHECK(printed(q) == "QuantizedMatrix nf4 [4, 256], 4.5 bits a weight, 576 B");
  CHECK(printed(AnyMatrix(q)) == "AnyMatrix nf4 [4, 256], 4.5 bits a weight, 576 B");
  CHECK(printed(WeightView(q)) == "nf4 [4, 256]");
  CHECK(printed(QuantizedMatrix<Nf4<64>>()) == "QuantizedMatrix nf4 [0, 0], 0 B");
  const auto format = [&](const auto& matrix) { return std::string(AnyMatrix(matrix).format()); };
  CHECK(format(quantize<Nf4<64, DoubleQuant>>(w)) == "nf4-dq");
  CHECK(format(quantize<Fp4<64>>(w)) == "fp4");
  CHECK(format(quantize<Fp4<64, DoubleQuant>>(w)) == "fp4-dq");
  CHECK(format(quantize<Q4_0>(w)) == "Q4_0");
  CHECK(format(quantize<Q8_0>(w)) == "Q8_0");
  CHECK(format(QuantizedMatrix<Q6K>(4, 256, print_bytes(4 * 210))) == "Q6_K");  // read only by decoding
  CHECK(format(StoredMatrix<Half>(4, 256, print_bytes(2048))) == "fp16");
  CHECK(printed(StoredMatrix<double>(4, 256, print_bytes(8192))) == "StoredMatrix fp64 [4, 256], 64 bits a weight, 8.2 kB");
  CHECK(printed(AnyMatrix()) == "AnyMatrix source [0, 0], 0 B");
}

TEST_CASE("parameters, stored tensors, types and reports print") {
  LoraLinear lora{Linear<float>(64, 48, {.bias = true}), {.rank = 4}};
  CHECK(printed(lora.a()) == "lora_A.weight fp32 [4, 64], trainable");
  CHECK(printed(lora.base().bias()) == "bias fp32 [48], frozen");
  CHECK(printed(Parameter<double>()) == "parameter fp64 [0, 0], trainable");
  CHECK(printed(make_tensor<float>("model.norm.weight", {3}, std::vector<float>{1, 2, 3})) == "model.norm.weight F32 [3], 12 B");
  CHECK(printed(DType::bf16) == "BF16");
  CHECK(printed(Compute::int8) == "int8");
  CHECK(printed(QuantizationError{0.5, 1.25, 0.25, 4.5}) == "QuantizationError: rmse 0.5, largest 1.25, relative 0.25, 4.5 bits a weight");
  CHECK(printed(GradcheckReport{0.5, "input 1"}) == "GradcheckReport: worst 0.5 at input 1");
  CHECK(printed(Weight<float>::Ones(1, 2)) == "1 1");  // Eigen's own
}

TEST_CASE("bytes for people") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(999) == "999 B");
  CHECK(bytes_text(1000) == "1.0 kB");
  CHECK(bytes_text(9949) == "9.9 kB");
  CHECK(bytes_text(9951) == "10 kB");
  CHECK(bytes_text(999'499) == "999 kB");
  CHECK(bytes_text(999'500) == "1.0 MB");
  CHECK(bytes_text(2'500'000'000) == "2.5 GB");
  CHECK(bytes_text(7'000'000'000'000'000) == "7000 TB");
}
