#include <doctest/doctest.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/quant.hpp>

#include "../kernels/fixtures.hpp"
#include "quant_support.hpp"

// Whole matrices, from every target, against the formats' own decode, bit for bit.

using namespace lowrank;
using namespace quant_test;

namespace {

Weight<float> normal_with_zeros(Index rows, Index cols) {
  Weight<float> w = normal(rows, cols, 9);
  if (w.size() > 200) w.reshaped<Eigen::RowMajor>().segment(70, 100).setZero();
  return w;
}

template <class Element>
Index count_different(const Element* a, const Element* b, Index count) {
  Index different = 0;
  for (Index i = 0; i < count; ++i) different += std::memcmp(a + i, b + i, sizeof(Element)) != 0;
  return different;
}

template <class Element, class Format>
void check_span(const QuantizedMatrix<Format>& q, const Weight<float>& expected) {
  std::vector<Element> out(static_cast<std::size_t>(expected.size()) + 1, Element(3.0f)), wanted = out;
  for (Index i = 0; i < expected.size(); ++i) wanted[static_cast<std::size_t>(i)] = Element(expected.data()[i]);
  dequantize_into(q, std::span(out).first(out.size() - 1));
  CHECK(count_different(out.data(), wanted.data(), expected.size() + 1) == 0);
}

template <class Format>
void check_matrix(const QuantizedMatrix<Format>& q) {
  const Index rows = q.rows(), cols = q.cols();
  Weight<float> expected(rows, cols);
  q.decode(0, rows, 0, cols, expected.data(), cols);
  CAPTURE(std::string(Format::name));
  CAPTURE(rows);
  CAPTURE(cols);
  fixtures::for_each_target([&](const kernels::Target&) {
    CAPTURE(std::string(kernels::target_name()));
    CHECK(count_different(dequantize(q).data(), expected.data(), expected.size()) == 0);
    check_span<float>(q, expected);
    check_span<double>(q, expected);
    check_span<BFloat16>(q, expected);
    check_span<Half>(q, expected);
    Weight<float> larger = Weight<float>::Constant(rows + 2, cols + 3, 5.0f);
    dequantize_into(q, larger.block(1, 2, rows, cols));
    CHECK(count_different(Weight<float>(larger.block(1, 2, rows, cols)).data(), expected.data(), expected.size()) == 0);
    larger.block(1, 2, rows, cols).setConstant(5.0f);
    CHECK((larger.array() == 5.0f).all());
  });
}

template <class Format>
void check_format() {
  for (auto [rows, cols] : {std::pair<Index, Index>{0, 5}, {5, 0}, {1, 1}, {1, 31}, {3, 43}, {7, 64}, {33, 80}, {2, 4129}, {130, 1}})
    check_matrix(quantize<Format>(normal_with_zeros(rows, cols)));
}

template <class Format>
void check_read_only(Index rows, Index cols) {
  Random random(4);
  Buffer blocks = Buffer::allocate(static_cast<std::size_t>(rows * ceil_div(cols, Format::block) * Format::block_bytes));
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks.mutable_as<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.bits() % 0x78);
  check_matrix(QuantizedMatrix<Format>(rows, cols, blocks));
}

}  // namespace

TEST_CASE("dequantize writes what decode writes") {
  check_format<Nf4<32>>();
  check_format<Nf4<64, DoubleQuant>>();
  check_format<Fp4<4096>>();
  check_format<Q4_0>();
  check_format<Q4_1>();
  check_format<Q8_0>();
  check_read_only<Q4K>(3, 700);
  check_read_only<Q6K>(3, 700);
  check_read_only<Q2K>(3, 700);
  check_read_only<Q3K>(3, 300);
  check_read_only<Iq1M>(2, 300);
  check_read_only<Iq2Xs>(2, 300);
  check_read_only<Iq3S>(2, 300);
  check_read_only<Tq1>(2, 300);
  check_read_only<Iq4Nl>(5, 77);
  check_read_only<Iq4Xs>(2, 512);
  check_read_only<Mxfp4>(4, 100);
}

TEST_CASE("a matrix that goes past the caches") {
  const Index cols = 1033, rows = static_cast<Index>(quant::stream_threshold() / 2) / cols + 1;
  const auto q = quantize<Nf4<64>>(normal_with_zeros(rows, cols));
  Weight<float> expected(rows, cols);
  q.decode(0, rows, 0, cols, expected.data(), cols);
  const Weight<float> d = dequantize(q);
  CHECK(count_different(d.data(), expected.data(), expected.size()) == 0);
  check_span<BFloat16>(q, expected);
}

TEST_CASE("a destination of another size is refused") {
  const auto q = quantize<Nf4<64>>(normal_with_zeros(3, 43));
  std::vector<float> out(128);
  CHECK_THROWS_WITH_AS(dequantize_into(q, std::span(out)),
                       "[dequantize_into] out has 128 elements but the matrix is [3, 43]; give it rows * cols", ShapeError);
  Weight<float> w(43, 3);
  CHECK_THROWS_WITH_AS(dequantize_into(q, w), "[dequantize_into] out is [43, 3] but the matrix is [3, 43]; their shapes must agree",
                       ShapeError);
}
