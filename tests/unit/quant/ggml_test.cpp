#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <span>
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

/// What ggml writes; formats that the Python package writes hold the same in `.bytes`. With an importance of each column it is searched
/// for.
template <class Format>
void check_writes() {
  const std::string name(Format::name), written = name + ".written", weighted = name + ".weighted";
  CAPTURE(name);
  const std::vector<float> x = golden_blocks().floats("input"), importance = golden_blocks().floats("importance");
  const DenseSource<float> w(x.data(), 4, 512);
  const auto plain = golden_blocks().bytes(golden_blocks().contains(written) ? written : name + ".bytes");
  CHECK(blocks_of(quantize<Format>(w)) == plain);
  CHECK(blocks_of(quantize<Format>(w, std::span<const float>(importance))) ==
        (golden_blocks().contains(weighted) ? golden_blocks().bytes(weighted) : plain));
}

/// FNV-1a of a table's bytes.
std::uint64_t hash_of(const std::int8_t* numbers, Index count) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (Index i = 0; i < count; ++i) hash = (hash ^ static_cast<std::uint8_t>(numbers[i])) * 0x100000001b3u;
  return hash;
}

/// A format written from rows of any length: as far from the weights as the same rows padded by hand.
template <class Format>
void check_short_block() {
  CAPTURE(std::string(Format::name));
  const Index cols = Format::block + 37;
  const Weight<float> w = normal(3, cols);
  std::vector<float> importance(static_cast<std::size_t>(cols), 0.5f);
  const double whole = quantization_error(normal(3, 2 * Format::block), quantize<Format>(normal(3, 2 * Format::block))).relative;
  CHECK(quantization_error(w, quantize<Format>(w)).relative < 1.3 * whole);
  CHECK(quantization_error(w, quantize<Format>(w, std::span<const float>(importance))).relative < 1.3 * whole);
}

}  // namespace

TEST_CASE("ggml formats decode to the values of the gguf package") {
  for_each_format([]<class Format>(Format) { check_reads<Format>(); });
}

TEST_CASE("ggml formats encode to the bytes of ggml, with and without an importance matrix") {
  int count = 0;
  for_each_format([&]<class Format>(Format) {
    if constexpr (WritableFormat<Format>) check_writes<Format>(), ++count;
  });
  CHECK(count == 15);
}

TEST_CASE("the grids of IQ1, IQ2 and IQ3 are those of ggml-common.h") {
  CHECK(hash_of(quant::iq1_grid(), 2048 * 8) == 0x6703ed863501ae2eu);
  CHECK(hash_of(quant::iq2_xxs_grid(), 256 * 8) == 0xbb4ee025b5ac6e8eu);
  CHECK(hash_of(quant::iq2_xs_grid(), 512 * 8) == 0xc9b1ee61e79909bdu);
  CHECK(hash_of(quant::iq2_s_grid(), 1024 * 8) == 0x123edd38a3b62b90u);
  CHECK(hash_of(quant::iq3_xxs_grid(), 256 * 4) == 0xdfa5dc83d6a155d5u);
  CHECK(hash_of(quant::iq3_s_grid(), 512 * 4) == 0xfa37020c25b44829u);
}

TEST_CASE("rows that end inside a block of 256 lose no more") {
  for_each_format([]<class Format>(Format) {
    if constexpr (WritableFormat<Format>) check_short_block<Format>();
  });
}

TEST_CASE("an importance needs a number for each column") {
  const std::vector<float> importance(255, 1.0f);
  CHECK_THROWS_WITH_AS(quantize<Q4K>(normal(2, 256), std::span<const float>(importance)),
                       "[quantize] the importance has 255 numbers but the matrix is [2, 256]; give one for each column", ShapeError);
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
