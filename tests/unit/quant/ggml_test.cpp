#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <lowrank/quant.hpp>

#include "../../support/golden.hpp"
#include "quant_support.hpp"

using namespace lowrank;
using namespace quant_test;

namespace {

const test::GoldenFile& golden_blocks() {
  static const test::GoldenFile file(LOWRANK_GOLDEN_DIR "/gguf_blocks.safetensors");
  return file;
}

std::vector<std::uint8_t> blocks_of(const auto& q) {
  const auto* bytes = q.storage().blocks().template as<std::uint8_t>();
  return {bytes, bytes + q.bytes()};
}

/// Each format of the list.
template <class Visit>
void for_each_format(const Visit& visit) {
  std::apply([&](auto... formats) { (visit(formats), ...); }, GgmlFormats{});
}

template <class Format>
void check_reads() {
  const std::string name(Format::name);
  CAPTURE(name);
  const QuantizedMatrix<Format> q(4, 512, to_buffer(golden_blocks().bytes(name + ".bytes")));
  CHECK(8.0 * static_cast<double>(q.bytes()) / (4 * 512) == Format::bits_per_weight);
  const std::vector<float> expected = golden_blocks().floats(name + ".dequant");
  const Weight<float> w = dequantize(q);
  Index different = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    different += !(w.data()[i] == expected[i] || (!is_finite(w.data()[i]) && !is_finite(expected[i])));
  CHECK(different == 0);

  double window[3 * 40];  // rows 1..3, columns that begin and end inside blocks
  q.decode(1, 3, 250, 37, window, 40);
  Index wrong = 0;
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 37; ++j) {
      const double value = window[i * 40 + j], whole = w(1 + i, 250 + j);
      wrong += !(value == whole || (!is_finite(value) && !is_finite(whole)));
    }
  CHECK(wrong == 0);
}

template <class Format>
void check_writes() {
  const std::string name(Format::name);
  CAPTURE(name);
  const std::vector<float> x = golden_blocks().floats("input");
  CHECK(blocks_of(quantize<Format>(DenseSource<float>(x.data(), 4, 512))) == golden_blocks().bytes(name + ".bytes"));
}

}  // namespace

TEST_CASE("ggml formats decode to the values of the gguf package") {
  for_each_format([]<class Format>(Format) { check_reads<Format>(); });
}

TEST_CASE("ggml formats encode to the bytes of the gguf package") {
  int count = 0;
  for_each_format([&]<class Format>(Format) {
    if constexpr (WritableFormat<Format>) check_writes<Format>(), ++count;
  });
  CHECK(count == 3);
}

TEST_CASE("zero blocks are those of ggml") {
  const Weight<float> zero = Weight<float>::Zero(1, 32);
  const auto q4_0 = blocks_of(quantize<Q4_0>(zero));
  CHECK(q4_0[1] == 0x80);  // d = 0 / -8 = -0
  CHECK(q4_0[2] == 0x88);
  CHECK(blocks_of(quantize<Q4_1>(zero)) == std::vector<std::uint8_t>(20, 0));
  CHECK(blocks_of(quantize<Q8_0>(zero)) == std::vector<std::uint8_t>(34, 0));
}

TEST_CASE("the padding of a short block does not influence its scale") {
  Weight<float> w(2, 37);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = 5.0f + 0.25f * static_cast<float>(i % 7);
  const auto q = quantize<Q4_1>(w);
  CHECK(q.bytes() == 2 * 2 * 20);
  CHECK((dequantize(q) - w).cwiseAbs().maxCoeff() <= 1.5f / 30 + 0x1p-8f);  // half a step, and the rounding of d and m; with 0 in it 0.2
  const QuantizationError e = quantization_error(w, q);
  CHECK(e.bits_per_weight == doctest::Approx(8.0 * 80 / 74));
  CHECK((dequantize(quantize<Q8_0>(w)) - w).cwiseAbs().maxCoeff() <= 6.5f / 254 + 0x1p-8f);
  CHECK((dequantize(quantize<Q4_0>(w)) - w).cwiseAbs().maxCoeff() <= 6.5f / 8);
}

TEST_CASE("weights too small for a half-precision scale become zero, weights too large are an error") {
  Weight<float> w = Weight<float>::Constant(3, 40, 1e-39f);
  w(0, 3) = -1e-39f;
  CHECK(dequantize(quantize<Q4_0>(w)).isZero(0));
  CHECK(dequantize(quantize<Q4_1>(w)).isZero(0));
  CHECK(dequantize(quantize<Q8_0>(w)).isZero(0));
  w(1, 35) = 3e38f;
  CHECK_THROWS_WITH_AS(quantize<Q4_0>(w),
                       "[quantize] the block that begins at [1, 32] of a [3, 40] weight needs a scale beyond half precision (65504); "
                       "choose Nf4 or Fp4, whose scales are fp32",
                       ValueError);
  w(1, 34) = -3e38f;
  CHECK_THROWS_AS(quantize<Q4_1>(w), ValueError);
  CHECK_THROWS_AS(quantize<Q8_0>(w), ValueError);
}

TEST_CASE("ggml storage of the wrong size is refused") {
  CHECK_THROWS_WITH_AS((QuantizedMatrix<Q4_0>(3, 64, Buffer::allocate(107))),
                       "[Q4_0] blocks hold 107 bytes but a [3, 64] matrix needs 108; check the shape, the block size and that the file is "
                       "whole",
                       ShapeError);
  CHECK_THROWS_AS((QuantizedMatrix<Q4K>(-1, 64, Buffer())), ShapeError);
  CHECK_THROWS_AS((QuantizedMatrix<Q4K>(std::numeric_limits<Index>::max() / 2, 64, Buffer())), ShapeError);
}
