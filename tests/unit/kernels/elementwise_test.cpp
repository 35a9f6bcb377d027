#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

using namespace lowrank;
using kernels::Elementwise;

namespace {

std::vector<float> numbers(Index n, std::uint64_t seed, float scale = 1) {
  Random random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = scale * random.normal();
  return x;
}
double at(const std::vector<float>& x, Index i) { return static_cast<double>(x[static_cast<std::size_t>(i)]); }

// Calls f(elementwise, n) for every target of this processor and for lengths around the borders of their vectors.
template <class F>
void for_each_case(const F& f) {
  for (const kernels::Target* target : kernels::targets()) {
    if (!target->is_available()) continue;
    CAPTURE(target->name);
    for (const Index n : {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 67, 200}) {
      CAPTURE(n);
      f(target->elementwise, n);
    }
  }
}
constexpr double epsilon = std::numeric_limits<float>::epsilon();

}  // namespace

TEST_CASE("exponential: two ulp from -87 to 88, zero below, not a number stays so") {
  for_each_case([](const Elementwise& e, Index n) {
    auto x = numbers(n, 1, 30);
    std::vector<float> y(x.size());
    double sum = 0;
    const float total = e.exponential(x.data(), 1.5f, n, y.data());
    for (Index i = 0; i < n; ++i) {
      const double expected = std::exp(std::clamp(static_cast<double>(x[static_cast<std::size_t>(i)] - 1.5f), -87.33, 88.7));
      CHECK(std::abs(at(y, i) - expected) <= 2 * epsilon * expected + 1e-37);
      sum += at(y, i);
    }
    CHECK(static_cast<double>(total) == doctest::Approx(sum).epsilon(1e-5));
  });
  for_each_case([](const Elementwise& e, Index n) {
    std::vector<float> x(static_cast<std::size_t>(n), std::numeric_limits<float>::quiet_NaN());
    CHECK((n == 0 || !is_finite(e.exponential(x.data(), 0, n, x.data()))));
  });
}

TEST_CASE("sums, largest, dots and weighted rows agree with double") {
  for_each_case([](const Elementwise& e, Index n) {
    const auto x = numbers(n, 2), w = numbers(n, 3), g = numbers(n, 4);
    double sum = 0, squares = 0, triple = 0, largest = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < n; ++i) {
      sum += at(x, i), squares += at(x, i) * at(x, i), triple += at(x, i) * at(w, i) * at(g, i);
      largest = std::max(largest, at(x, i));
    }
    const double tolerance = 4 * epsilon * static_cast<double>(n + 1);
    CHECK(std::abs(e.sum(x.data(), n) - sum) <= tolerance);
    CHECK(std::abs(e.sum_of_squares(x.data(), n) - squares) <= 4 * tolerance);
    CHECK(std::abs(e.triple_sum(w.data(), g.data(), x.data(), n) - triple) <= 4 * tolerance);
    CHECK(static_cast<double>(e.largest(x.data(), n)) == largest);
    const Index rows = 7, stride = n + 3;
    const auto matrix = numbers(rows * stride, 5), weights = numbers(rows, 6);
    std::vector<float> out(static_cast<std::size_t>(rows)), y = g;
    e.float_rows.dots(matrix.data(), stride, rows, x.data(), 1, n, out.data(), rows);
    e.float_rows.add_weighted(matrix.data(), stride, rows, weights.data(), rows, 1, n, y.data());
    for (Index j = 0; j < rows; ++j) {
      double dot = 0;
      for (Index i = 0; i < n; ++i) dot += at(matrix, j * stride + i) * at(x, i);
      CHECK(std::abs(at(out, j) - dot) <= 8 * tolerance);
    }
    for (Index i = 0; i < n; ++i) {
      double expected = at(g, i);
      for (Index j = 0; j < rows; ++j) expected += at(weights, j) * at(matrix, j * stride + i);
      CHECK(std::abs(at(y, i) - expected) <= 64 * epsilon);
    }
  });
}

TEST_CASE("rows times columns have the bits of one column at a time, and bfloat16 those of its floats") {
  for_each_case([](const Elementwise& e, Index n) {
    const Index rows = 7, stride = n + 3;
    auto matrix = numbers(rows * stride, 11);
    std::vector<BFloat16> brain;
    for (float& x : matrix) x = brain.emplace_back(x);
    for (const Index columns : {0, 1, 2, 3, 4, 5, 9}) {
      const auto x = numbers(columns * n, 12), weights = numbers(columns * (rows + 1), 13), begin = numbers(columns * n, 14);
      std::vector<float> expected(static_cast<std::size_t>(columns * (rows + 2))), sums = begin;
      for (Index c = 0; c < columns; ++c) {
        e.float_rows.dots(matrix.data(), stride, rows, x.data() + c * n, 1, n, expected.data() + c * (rows + 2), rows);
        e.float_rows.add_weighted(matrix.data(), stride, rows, weights.data() + c * (rows + 1), rows, 1, n, sums.data() + c * n);
      }
      const auto check = [&](const auto& loops, const auto* from) {
        std::vector<float> out(expected.size()), y = begin;
        loops.dots(from, stride, rows, x.data(), columns, n, out.data(), rows + 2);
        loops.add_weighted(from, stride, rows, weights.data(), rows + 1, columns, n, y.data());
        CHECK(out == expected);
        CHECK(y == sums);
      };
      check(e.float_rows, matrix.data());
      check(e.bfloat16_rows, brain.data());
    }
  });
}

TEST_CASE("rows in bfloat16 products are off by their factors' rounding, and each the same whatever is computed beside it") {
  for_each_case([](const Elementwise& e, Index n) {
    const Index rows = 261, stride = n + 3, columns = 5;
    std::vector<BFloat16> brain;
    for (const float x : numbers(rows * stride, 15)) brain.emplace_back(x);
    const auto x = numbers(columns * n, 16), weights = numbers(columns * rows, 17), begin = numbers(columns * n, 18);
    std::vector<float> exact(static_cast<std::size_t>(columns * rows)), out(exact), y = begin, sums = begin;
    e.bfloat16_rows.dots(brain.data(), stride, rows, x.data(), columns, n, exact.data(), rows);
    e.bfloat16_rows.add_weighted(brain.data(), stride, rows, weights.data(), rows, columns, n, sums.data());
    e.bfloat16_products.dots(brain.data(), stride, rows, x.data(), columns, n, out.data(), rows);
    e.bfloat16_products.add_weighted(brain.data(), stride, rows, weights.data(), rows, columns, n, y.data());
    constexpr double half_ulp = 0x1p-8;
    for (Index c = 0; c < columns; ++c) {
      for (Index j = 0; j < rows; ++j) {
        double magnitude = 0;
        for (Index i = 0; i < n; ++i)
          magnitude += std::abs(at(x, c * n + i) * static_cast<double>(brain[static_cast<std::size_t>(j * stride + i)]));
        CHECK(std::abs(at(out, c * rows + j) - at(exact, c * rows + j)) <= half_ulp * magnitude);
      }
      for (Index i = 0; i < n; ++i) {
        double magnitude = 1;
        for (Index j = 0; j < rows; ++j)
          magnitude += std::abs(at(weights, c * rows + j) * static_cast<double>(brain[static_cast<std::size_t>(j * stride + i)]));
        CHECK(std::abs(at(y, c * n + i) - at(sums, c * n + i)) <= half_ulp * magnitude);
      }
      std::vector<float> alone = begin;
      float one = 0;
      const Index row = 50 * c + c;
      e.bfloat16_products.dots(brain.data() + row * stride, stride, 1, x.data() + c * n, 1, n, &one, 1);
      CHECK(one == out[static_cast<std::size_t>(c * rows + row)]);
      e.bfloat16_products.add_weighted(brain.data(), stride, rows, weights.data() + c * rows, rows, 1, n, alone.data() + c * n);
      for (Index i = 0; i < n; ++i) CHECK(alone[static_cast<std::size_t>(c * n + i)] == y[static_cast<std::size_t>(c * n + i)]);
    }
  });
}

TEST_CASE("rotations: neighbours and halves turn by the angles, and back") {
  for_each_case([](const Elementwise& e, Index half) {
    const auto x = numbers(2 * half, 7), angle = numbers(half, 8);
    std::vector<float> cos(angle.size()), sin(angle.size()), y(x.size()), back(x.size());
    for (std::size_t j = 0; j < angle.size(); ++j) cos[j] = std::cos(angle[j]), sin[j] = std::sin(angle[j]);
    for (const bool halves : {false, true}) {
      const auto rotate = halves ? e.rotate_halves : e.rotate_neighbours;
      rotate(x.data(), cos.data(), sin.data(), half, 1, y.data());
      rotate(y.data(), cos.data(), sin.data(), half, -1, back.data());
      for (Index j = 0; j < half; ++j) {
        const Index left = halves ? j : 2 * j, right = halves ? j + half : 2 * j + 1;
        CHECK(std::abs(at(y, left) - (at(x, left) * at(cos, j) - at(x, right) * at(sin, j))) <= 8 * epsilon);
        CHECK(std::abs(at(y, right) - (at(x, right) * at(cos, j) + at(x, left) * at(sin, j))) <= 8 * epsilon);
        CHECK(std::abs(at(back, left) - at(x, left)) <= 16 * epsilon);
      }
    }
  });
}

TEST_CASE("bfloat16 bits are those of the type, whatever the target") {
  for_each_case([](const Elementwise& e, Index n) {
    auto x = numbers(n, 9);
    const std::uint32_t special[] = {0x7fc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0x7f800000,
                                     0xff800000, 0x00000001, 0x7f7fffff, 0x80008000};
    for (std::size_t i = 0; i < x.size() && i < std::size(special); ++i) x[x.size() - 1 - i] = std::bit_cast<float>(special[i]);
    std::vector<std::uint16_t> bits(x.size());
    e.to_bfloat16(x.data(), n, bits.data());
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(bits[i] == BFloat16(x[i]).bits);
  });
}

TEST_CASE("gates and their gradients agree with double") {
  for_each_case([](const Elementwise& e, Index n) {
    const auto gate = numbers(n, 10, 4), up = numbers(n, 11), g = numbers(n, 12);
    std::vector<float> y(gate.size()), dgate(gate.size()), dup(gate.size());
    e.swiglu(gate.data(), up.data(), n, y.data());
    e.swiglu_backward(gate.data(), up.data(), g.data(), n, dgate.data(), dup.data());
    for (Index i = 0; i < n; ++i) {
      const double v = at(gate, i), s = 1 / (1 + std::exp(-v));
      CHECK(std::abs(at(y, i) - v * s * at(up, i)) <= 64 * epsilon);
      CHECK(std::abs(at(dup, i) - at(g, i) * v * s) <= 64 * epsilon);
      CHECK(std::abs(at(dgate, i) - at(g, i) * at(up, i) * s * (1 + v * (1 - s))) <= 64 * epsilon);
    }
  });
}
