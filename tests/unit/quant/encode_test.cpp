#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/quant.hpp>

#include "../kernels/fixtures.hpp"
#include "quant_support.hpp"

// Whole matrices quantized by every target, by any number of threads and from any kind of source have the same bytes; search lowers the
// error.

using namespace lowrank;
using namespace quant_test;

namespace {

Weight<float> small_weight(Index rows, Index cols) { return 0.02f * normal(rows, cols, 21); }

std::vector<std::byte> bytes_of(const Buffer& buffer) { return {buffer.data(), buffer.data() + buffer.size()}; }

/// Everything that is stored, one after the other.
template <class Format>
std::vector<std::byte> bytes_of(const QuantizedMatrix<Format>& q) {
  if constexpr (requires { q.storage().blocks().data(); }) {
    return bytes_of(q.storage().blocks());
  } else {
    auto all = bytes_of(q.storage().codes());
    const auto& scales = q.storage().scales();
    const auto append = [&](const std::vector<std::byte>& more) { all.insert(all.end(), more.begin(), more.end()); };
    append(bytes_of(scales.absmax()));
    if constexpr (requires { scales.nested_absmax(); }) {
      append(bytes_of(scales.nested_absmax()));
      std::vector<std::byte> offset(sizeof(float));
      std::memcpy(offset.data(), std::array{scales.offset()}.data(), sizeof(float));
      append(offset);
    }
    return all;
  }
}

template <class Format, class... Rule>
void check_targets(const Rule&... rule) {
  const int threads = thread_count();
  for (auto [rows, cols] : {std::pair<Index, Index>{1, 1}, {1, 31}, {3, 43}, {7, 64}, {33, 80}, {2, 4129}, {130, 1}, {40, 5000}}) {
    Weight<float> w = small_weight(rows, cols);
    if (w.size() > 200) w.reshaped<Eigen::RowMajor>().segment(70, 100).setZero();
    kernels::set_target(*kernels::targets().front());
    set_thread_count(1);
    const auto expected = bytes_of(quantize<Format>(w, rule...));
    set_thread_count(3);
    fixtures::for_each_target([&](const kernels::Target&) {
      CAPTURE(std::string(Format::name));
      CAPTURE(std::string(kernels::target_name()));
      CAPTURE(rows);
      CAPTURE(cols);
      CHECK(bytes_of(quantize<Format>(w, rule...)) == expected);
      Weight<float> larger = Weight<float>::Constant(rows + 1, cols + 2, 1.0f);
      larger.block(1, 1, rows, cols) = w;
      CHECK(bytes_of(quantize<Format>(larger.block(1, 1, rows, cols), rule...)) == expected);
    });
    set_thread_count(threads);
  }
}

/// Weights of 16 bits are quantized as the floats that they are.
template <class Element>
void check_narrow() {
  const Weight<float> w = small_weight(19, 301);
  std::vector<Element> narrow;
  for (Index i = 0; i < w.size(); ++i) narrow.emplace_back(w.data()[i]);
  Weight<float> wide(w.rows(), w.cols());
  std::copy(narrow.begin(), narrow.end(), wide.data());
  const DenseSource<Element> source(narrow.data(), w.rows(), w.cols());
  fixtures::for_each_target([&](const kernels::Target&) {
    CHECK(bytes_of(quantize<Nf4<64>>(source)) == bytes_of(quantize<Nf4<64>>(wide)));
    CHECK(bytes_of(quantize<Q4_1>(source)) == bytes_of(quantize<Q4_1>(wide)));
  });
}

/// Error of search against that of the largest magnitude, block by block: never larger. Returns the ratio of the whole.
template <class Format>
double check_search(const Weight<float>& w) {
  const auto plain = quantize<Format>(w), searched = quantize<Format>(w, Search{});
  const Weight<double> exact = w.cast<double>();
  const Weight<double> first = dequantize(plain).template cast<double>() - exact,
                       second = dequantize(searched).template cast<double>() - exact;
  Index worse = 0;
  for (Index begin = 0; begin < w.size(); begin += Format::block) {
    const Index count = std::min(Format::block, w.size() - begin);
    const double before = first.template reshaped<Eigen::RowMajor>().segment(begin, count).squaredNorm();
    const double after = second.template reshaped<Eigen::RowMajor>().segment(begin, count).squaredNorm();
    worse += !(after <= before * (1 + 1e-5));
  }
  CHECK(worse == 0);
  return std::sqrt(second.squaredNorm() / first.squaredNorm());
}

}  // namespace

TEST_CASE("the same bytes from every target, any number of threads, any part of a matrix") {
  check_targets<Nf4<32>>();
  check_targets<Nf4<64, DoubleQuant>>();
  check_targets<Fp4<4096>>();
  check_targets<Nf4<64>>(Search{});
  check_targets<Q4_0>();
  check_targets<Q4_1>();
  check_targets<Q8_0>();
}

TEST_CASE("bfloat16 and half weights") {
  check_narrow<BFloat16>();
  check_narrow<Half>();
}

TEST_CASE("search: no block is worse, normal weights lose 5 percent of the error and more") {
  const Weight<float> w = small_weight(128, 512);
  CHECK(check_search<Nf4<32>>(w) < 0.915);
  CHECK(check_search<Nf4<64>>(w) < 0.93);
  CHECK(check_search<Nf4<128>>(w) < 0.95);
  CHECK(check_search<Fp4<64>>(w) < 0.93);
  Weight<float> hard = small_weight(37, 101);
  for (Index i = 0; i < hard.size(); i += 13) hard.data()[i] = std::ldexp(hard.data()[i], static_cast<int>(i % 60) - 30);
  hard.row(3).setZero();
  hard.row(5).setConstant(3.4e38f);
  hard.row(7).setConstant(1.5e-38f);
  hard.row(9).setConstant(1e-40f);
  check_search<Nf4<32>>(hard);
  check_search<Fp4<128>>(hard);
}

TEST_CASE("a search without sense is refused") {
  const Weight<float> w = small_weight(2, 64);
  CHECK_THROWS_WITH_AS(
      (quantize<Nf4<64>>(w, Search{.points = 0})),
      "[quantize] a search of 0 points from 0.7 to 1.1 of the largest magnitude; give at least 1 point and bounds in (0, 2], "
      "the lowest first",
      ValueError);
  CHECK_THROWS_AS((quantize<Nf4<64>>(w, Search{.lowest = 0})), ValueError);
  CHECK_THROWS_AS((quantize<Nf4<64>>(w, Search{.lowest = 1.2f})), ValueError);
  CHECK_THROWS_AS((quantize<Nf4<64>>(w, Search{.highest = std::numeric_limits<float>::quiet_NaN()})), ValueError);
  CHECK(quantize<Nf4<64>>(w, Search{.points = 1, .highest = 1.0f}).rows() == 2);
}

TEST_CASE("8-bit codes by tree are those of the bisection") {
  for (const bool is_signed : {true, false}) {
    const auto map = quant::dynamic_map(is_signed);
    const quant::NearestCode nearest(map);
    std::vector<float> points = {0.0f, -0.0f, 1.0f, -1.0f, 2.0f, -2.0f, std::numeric_limits<float>::quiet_NaN()};
    for (std::size_t i = 0; i + 1 < 256; ++i)
      for (const float middle : {map[i], (map[i] + map[i + 1]) * 0.5f})
        for (const float direction : {-3.0f, middle, 3.0f}) points.push_back(std::nextafter(middle, direction));
    Random random(1);
    for (int i = 0; i < 5000; ++i) points.push_back(random.uniform(-1, 1));
    Index wrong = 0;
    for (const float t : points) wrong += nearest(t) != quant::nearest_code(map, t);
    CHECK(wrong == 0);
  }
}
