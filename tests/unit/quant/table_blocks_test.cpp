#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/quant.hpp>

#include "quant_support.hpp"

using namespace lowrank;
using namespace quant_test;

namespace {

template <class Format>
std::vector<std::uint8_t> codes_of(const QuantizedMatrix<Format>& q) {
  const auto* bytes = q.storage().codes().template as<std::uint8_t>();
  return {bytes, bytes + q.storage().codes().size()};
}

// Every weight is within half the widest gap of the table of its block's largest magnitude.
template <class Format>
void check_shapes() {
  CAPTURE(Format::block);
  for (const auto& size : {std::pair<Index, Index>{1, 1}, {0, 5}, {5, 0}, {1, 31}, {3, 43}, {7, 64}, {2, 4097}, {130, 1}}) {
    const Index rows = size.first, cols = size.second;
    CAPTURE(rows);
    CAPTURE(cols);
    const Weight<float> w = normal(rows, cols);
    const auto q = quantize<Format>(w);
    CHECK(q.rows() == rows);
    CHECK(q.cols() == cols);
    const Weight<float> d = dequantize(q);
    Index wrong = 0;
    for (Index i = 0; i < w.size(); ++i) {
      const float scale = q.storage().scales()[i / Format::block];
      wrong += !(std::abs(w.data()[i] - d.data()[i]) <= 0.18f * scale);
    }
    CHECK(wrong == 0);
    for (Index col = 0; col < cols; col += 19) {  // any window is that part of the whole
      const Index count = (rows + 1) / 2, length = std::min<Index>(23, cols - col);
      Weight<double> window(count, 25);
      q.decode(rows - count, count, col, length, window.data(), 25);
      CHECK(window.leftCols(length) == d.block(rows - count, col, count, length).template cast<double>());
    }
  }
}

}  // namespace

TEST_CASE("any shape, any window") {
  check_shapes<Nf4<32>>();
  check_shapes<Nf4<64, DoubleQuant>>();
  check_shapes<Fp4<4096>>();
}

TEST_CASE("zero blocks, odd counts and subnormal blocks follow the CUDA rule") {
  const auto zero = quantize<Nf4<32>>(Weight<float>::Zero(1, 32));
  CHECK(codes_of(zero) == std::vector<std::uint8_t>(16, 0x00));
  CHECK(zero.storage().scales()[0] == 0.0f);
  CHECK(dequantize(zero).isZero(0));
  const auto odd = quantize<Nf4<32>>(Weight<float>::Constant(1, 1, 2.0f));
  CHECK(codes_of(odd) == std::vector<std::uint8_t>{0xf7});  // the absent neighbour has the code of 0
  CHECK(codes_of(quantize<Fp4<32>>(Weight<float>::Constant(1, 1, -2.0f))) == std::vector<std::uint8_t>{0xb0});
  const auto subnormal = quantize<Nf4<32>>(Weight<float>::Constant(1, 32, 1e-39f));
  CHECK(subnormal.storage().scales()[0] == 0.0f);
  CHECK(codes_of(subnormal) == std::vector<std::uint8_t>(16, 0x00));
}

TEST_CASE("thresholds are strict and ties take the lower code or the smaller magnitude") {
  for (unsigned i = 0; i < 15; ++i) {
    const float threshold = Nf4<>::thresholds[i];
    CHECK(Nf4<>::encode(threshold) == i);
    CHECK(Nf4<>::encode(std::nextafter(threshold, 2.0f)) == i + 1);
  }
  for (unsigned i = 0; i < 7; ++i) {
    const float threshold = Fp4<>::thresholds[i], above = std::nextafter(threshold, 2.0f);
    CHECK(Fp4<>::encode(threshold) == Fp4<>::ascending[i]);
    CHECK(Fp4<>::encode(above) == Fp4<>::ascending[i + 1]);
    CHECK(Fp4<>::encode(-threshold) == Fp4<>::ascending[i] + 8);
    CHECK(Fp4<>::encode(-above) == Fp4<>::ascending[i + 1] + 8);
  }
  for (std::uint8_t code = 0; code < 16; ++code) {
    CHECK(Nf4<>::encode(Nf4<>::table[code]) == code);
    if (code != 8) CHECK(Fp4<>::encode(Fp4<>::table[code]) == code);
  }
}

TEST_CASE("the 8-bit code of 0 decodes to 0, and the search finds the nearest value") {
  const auto map = quant::dynamic_map();
  CHECK(map[quant::nearest_code(map, 0.0f)] == 0.0f);
  for (int i = 0; i < 256; ++i) CHECK(quant::nearest_code(map, map[static_cast<std::size_t>(i)]) == i);
  Random random(3);
  for (int i = 0; i < 2000; ++i) {
    const float t = random.uniform(-1, 1) * std::pow(10.0f, random.uniform(-7, 0));
    float nearest = 2;
    for (const float value : map) nearest = std::min(nearest, std::abs(value - t));
    CHECK(std::abs(map[quant::nearest_code(map, t)] - t) == nearest);
  }
  // Equal scales leave no rest: the offset alone restores them.
  const auto q = quantize<Nf4<32, DoubleQuant>>(Weight<float>::Constant(4, 64, 0.3f));
  CHECK(q.storage().scales()[0] == 0.3f);
  CHECK(dequantize(q) == Weight<float>::Constant(4, 64, 0.3f));
}

TEST_CASE("weights that are not finite are an error that names the first") {
  Weight<float> w = normal(3, 100);
  w(1, 7) = std::numeric_limits<float>::quiet_NaN();
  w(2, 99) = std::numeric_limits<float>::infinity();
  const std::string message = "[quantize] element [1, 7] of a [3, 100] weight is nan; only finite fp32 numbers can be quantized";
  CHECK_THROWS_WITH_AS(quantize<Nf4<64>>(w), message.c_str(), ValueError);
  CHECK_THROWS_WITH_AS(quantize<Q4_1>(w), message.c_str(), ValueError);
  Weight<double> wide = Weight<double>::Zero(1, 40);
  wide(0, 39) = 1e300;
  CHECK_THROWS_AS(quantize<Fp4<32>>(wide), ValueError);
}

TEST_CASE("a source, another scalar and a part of a matrix give the same bytes") {
  const Weight<float> w = normal(9, 50);
  const auto codes = codes_of(quantize<Nf4<32>>(w));
  CHECK(codes_of(quantize<Nf4<32>>(w.cast<double>())) == codes);
  CHECK(codes_of(quantize<Nf4<32>>(DenseSource<float>(w.data(), 9, 50))) == codes);
  const Activation<float> by_column = w;
  CHECK(codes_of(quantize<Nf4<32>>(by_column)) == codes);
  Weight<float> larger = Weight<float>::Zero(12, 60);
  larger.block(2, 5, 9, 50) = w;
  CHECK(codes_of(quantize<Nf4<32>>(larger.block(2, 5, 9, 50))) == codes);
  std::vector<BFloat16> narrow;
  for (Index i = 0; i < w.size(); ++i) narrow.emplace_back(w.data()[i]);
  const auto q = quantize<Nf4<32>>(DenseSource<BFloat16>(narrow.data(), 9, 50));
  CHECK(quantize<Nf4<32>>(q).bytes() == q.bytes());  // a quantized matrix is a source
}

TEST_CASE("the same bytes for any number of threads") {
  const int before = thread_count();
  const Weight<float> w = normal(300, 513);
  set_thread_count(1);
  const auto one = quantize<Nf4<64, DoubleQuant>>(w);
  const Weight<float> whole = dequantize(one);
  const QuantizationError error = quantization_error(w, one);
  set_thread_count(3);
  const auto three = quantize<Nf4<64, DoubleQuant>>(w);
  CHECK(codes_of(one) == codes_of(three));
  CHECK(dequantize(three) == whole);
  CHECK(quantization_error(w, three).rmse == error.rmse);
  set_thread_count(before);
}

TEST_CASE("errors and bits of normal weights are the known ones") {
  const Weight<float> w = normal(256, 512);
  const auto relative = [&]<class F>(F, const auto&... rule) { return quantization_error(w, quantize<F>(w, rule...)).relative; };
  CHECK(relative(Nf4<32>{}) == doctest::Approx(0.0873).epsilon(0.01));
  CHECK(relative(Nf4<64>{}) == doctest::Approx(0.0920).epsilon(0.01));
  CHECK(relative(Fp4<64>{}) == doctest::Approx(0.1219).epsilon(0.01));
  CHECK(relative(Q4_1{}) == doctest::Approx(0.0782).epsilon(0.01));
  CHECK(relative(Nf4<64, DoubleQuant>{}) == doctest::Approx(relative(Nf4<64>{})).epsilon(0.001));
  CHECK(relative(Nf4<32>{}, Search{}) == doctest::Approx(0.0810).epsilon(0.01));
  CHECK(relative(Nf4<64>{}, Search{}) == doctest::Approx(0.0863).epsilon(0.01));
  CHECK(relative(Fp4<64>{}, Search{}) < relative(Fp4<64>{}));
  CHECK(quantization_error(w, quantize<Nf4<64>>(w)).bits_per_weight == 4.5);
  CHECK(Nf4<64>::bits_per_weight == 4.5);
  CHECK(Nf4<32, DoubleQuant>::bits_per_weight == doctest::Approx(4.254).epsilon(1e-4));
}

TEST_CASE("quantization_error counts what differs") {
  Weight<double> w(1, 4);
  w << 1, -1, 0.25, 0;
  const auto q = quantize<Nf4<32>>(w);
  const QuantizationError e = quantization_error(w, q);
  const double rest = 0.25 - static_cast<double>(dequantize(q)(0, 2));
  CHECK(e.max_abs == std::abs(rest));
  CHECK(e.rmse == doctest::Approx(std::abs(rest) / 2));
  CHECK(e.relative == doctest::Approx(std::abs(rest) / std::sqrt(2.0625)));
  CHECK(quantization_error(Weight<float>(0, 3), quantize<Nf4<32>>(Weight<float>(0, 3))).rmse == 0);
  CHECK(quantization_error(Weight<float>::Zero(2, 8), quantize<Nf4<32>>(Weight<float>::Zero(2, 8))).relative == 0);
  CHECK_THROWS_AS(quantization_error(Weight<float>(2, 2), q), ShapeError);
}

TEST_CASE("storage of the wrong size is refused, copies share their bytes") {
  CHECK_THROWS_WITH_AS(
      (QuantizedMatrix<Nf4<64>>(3, 43, Buffer::allocate(64), Buffer::allocate(12))),
      "[nf4] codes hold 64 bytes but a [3, 43] matrix needs 65; check the shape, the block size and that the file is whole", ShapeError);
  CHECK_THROWS_WITH_AS((QuantizedMatrix<Nf4<64>>(3, 43, Buffer::allocate(65), Buffer::allocate(8))),
                       "[nf4] absmax holds 8 bytes but 3 blocks need 12 (fp32); check the shape and the block size", ShapeError);
  CHECK_THROWS_AS((QuantizedMatrix<Fp4<64, DoubleQuant>>(3, 43, Buffer::allocate(65), Buffer::allocate(3), Buffer::allocate(8), 0.0f)),
                  ShapeError);
  const auto q = quantize<Nf4<64>>(normal(4, 64));
  const auto copy = q;
  CHECK(copy.storage().codes().data() == q.storage().codes().data());
  CHECK(QuantizedMatrix<Nf4<64>>().bytes() == 0);
}

TEST_CASE("scales need not be aligned in their file") {
  const auto q = quantize<Nf4<32>>(normal(2, 40));
  const std::size_t size = q.storage().scales().bytes();
  Buffer file = Buffer::allocate(size + 1);
  std::memcpy(file.mutable_as<std::byte>() + 1, q.storage().scales().absmax().data(), size);
  const QuantizedMatrix<Nf4<32>> mapped(2, 40, q.storage().codes(), file.slice(1, size));
  CHECK(dequantize(mapped) == dequantize(q));
}

TEST_CASE("concepts: what is a format, what can be written") {
  static_assert(QuantFormat<Nf4<64>> && QuantFormat<Q6K> && !QuantFormat<float>);
  static_assert(TableFormat<Fp4<32, DoubleQuant>> && !TableFormat<Q4_0>);
  static_assert(WritableFormat<Q8_0> && WritableFormat<Nf4<4096>> && WritableFormat<Q4K> && !WritableFormat<Iq1S>);
  static_assert(Source<QuantizedMatrix<Q4_1>>);
}

TEST_CASE("a storage keeps its block: under the name of another format it is refused, and an empty one has the format's") {
  const auto q = quantize<Nf4<64>>(Weight<float>(Weight<float>::Random(4, 64)));
  const TableStorage<PlainScales>& storage = q.storage();
  CHECK(TableBlocks<Nf4<64>>{storage}.codes().size() == storage.codes().size());
  CHECK_THROWS_WITH_AS(TableBlocks<Nf4<128>>{storage}, doctest::Contains("blocks of 64, the format blocks of 128"), ShapeError);
  const QuantizedMatrix<Fp4<128>> empty;
  CHECK(empty.storage().block() == 128);
  CHECK(empty.storage().table() == Fp4<128>::table);
}
