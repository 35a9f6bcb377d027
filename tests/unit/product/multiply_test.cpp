#include <doctest/doctest.h>

#include <lowrank/product/multiply.hpp>

#include "../ops/ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

/// A source that exists only as a rule, like a quantized matrix: a table of sixteen values, a scale a block of 32 in row-major order.
struct RuleSource {
  Index height, width;

  Index rows() const { return height; }
  Index cols() const { return width; }
  double at(Index row, Index col) const {
    return (static_cast<double>((row * 7 + col * 3) % 16) - 7.5) * 0.0625 * (1 + 0.125 * static_cast<double>((row * width + col) / 32 % 5));
  }
  template <class S>
  void decode(Index row, Index count, Index col, Index length, S* out, Index stride) const {
    for (Index i = 0; i < count; ++i) {
      for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<S>(at(row + i, col + j));
    }
  }
};
static_assert(Source<RuleSource>);

// A sum of n products of numbers up to one is right to n epsilon.
template <class S>
double tolerance(Index depth) {
  return static_cast<double>(depth + 1) * static_cast<double>(std::numeric_limits<S>::epsilon());
}

template <class S>
void check_products(Index out, Index in, Index tokens) {
  CAPTURE(out);
  CAPTURE(in);
  CAPTURE(tokens);
  const RuleSource rule{out, in};
  const Weight<double> w = Weight<double>::NullaryExpr(out, in, [&](Index i, Index j) { return rule.at(i, j); });
  const Weight<S> dense = w.cast<S>();
  const auto x = random_matrix<Activation<S>>(in, tokens, 1), g = random_matrix<Activation<S>>(out, tokens, 2);
  const Activation<double> y = w.lazyProduct(x.template cast<double>()), dx = w.transpose().lazyProduct(g.template cast<double>());
  const DenseSource<S> source(dense.data(), out, in);
  CHECK(largest_difference(multiply(rule, x).template cast<double>(), y) <= tolerance<S>(in));
  CHECK(largest_difference(multiply(source, x).template cast<double>(), y) <= tolerance<S>(in));
  CHECK(largest_difference(multiply_transposed(rule, g).template cast<double>(), dx) <= tolerance<S>(out));
  CHECK(largest_difference(multiply_transposed(source, g).template cast<double>(), dx) <= tolerance<S>(out));
  Weight<S> dw = Weight<S>::Constant(out, in, S(0.5));
  accumulate_outer(dw, g, x, S(2));
  const Weight<double> expected = 2 * g.template cast<double>().lazyProduct(x.template cast<double>().transpose());
  CHECK(largest_difference(dw.template cast<double>(), (expected.array() + 0.5).matrix()) <= 4 * tolerance<S>(tokens));
}

}  // namespace

TEST_CASE_TEMPLATE("products with a source equal the dense product, at sizes around the tiles", S, float, double) {
  check_products<S>(1, 1, 1);
  check_products<S>(63, 65, 1);
  check_products<S>(64, 64, 64);
  check_products<S>(65, 63, 65);
  check_products<S>(300, 33, 7);
  check_products<S>(5, 1030, 3);
  check_products<S>(1030, 5, 2);
}

TEST_CASE("empty products are zero or empty") {
  const RuleSource none{4, 0};
  CHECK(multiply(none, Activation<float>(0, 3)).isZero(0));
  CHECK(multiply(none, Activation<float>(0, 3)).rows() == 4);
  const RuleSource source{4, 5};
  CHECK(multiply(source, Activation<float>(5, 0)).cols() == 0);
  CHECK(multiply_transposed(source, Activation<float>(4, 0)).rows() == 5);
  CHECK(multiply_transposed(RuleSource{0, 5}, Activation<float>(0, 2)).isZero(0));
}

TEST_CASE("column blocks of an activation and rows of a stride are read in place") {
  const auto w = random_matrix<Weight<float>>(6, 20, 3);
  const auto x = random_matrix<Activation<float>>(9, 30, 4);
  const DenseSource<float> part(w.data() + 4, 6, 9, 20);
  const Activation<float> expected = w.middleCols(4, 9) * x.middleCols(5, 11);
  CHECK(largest_difference(multiply(part, x.middleCols(5, 11)), expected) <= tolerance<float>(9));
}

TEST_CASE("bf16 rounds weights and activations and sums in fp32") {
  const RuleSource rule{70, 90};
  const auto x = random_matrix<Activation<float>>(90, 66, 5);
  const auto round = [](float v) { return static_cast<float>(BFloat16(v)); };
  const Weight<float> w = Weight<float>::NullaryExpr(70, 90, [&](Index i, Index j) { return round(static_cast<float>(rule.at(i, j))); });
  const Activation<float> rounded = x.unaryExpr(round);
  CHECK(largest_difference(multiply(rule, x, Compute::bf16), w * rounded) <= tolerance<float>(90));
  CHECK(largest_difference(multiply(rule, x, Compute::bf16), multiply(rule, x)) > tolerance<float>(90));
}

TEST_CASE("a product has the same bits for any number of threads") {
  const RuleSource source{200, 700};
  const auto a = random_matrix<Weight<float>>(16, 700, 6);
  const auto x = random_matrix<Activation<float>>(700, 130, 7), g = random_matrix<Activation<float>>(200, 130, 8);
  CHECK(same_for_any_thread_count([&] { return multiply(source, x); }));
  CHECK(same_for_any_thread_count([&] { return multiply(DenseSource<float>(a.data(), 16, 700), x); }));
  CHECK(same_for_any_thread_count([&] { return multiply(DenseSource<float>(a.data(), 16, 700), x.leftCols(60)); }));
  CHECK(same_for_any_thread_count([&] { return multiply_transposed(source, g); }));
  CHECK(same_for_any_thread_count([&] {
    Weight<float> dw = Weight<float>::Zero(200, 700);
    accumulate_outer(dw, g, x);
    return dw;
  }));
}

TEST_CASE("wrong shapes and an unsupported compute type are refused with the shapes and the way out") {
  const RuleSource source{4, 5};
  const Activation<float> x = Activation<float>::Zero(6, 2);
  CHECK_THROWS_WITH_AS(multiply(source, x), "[multiply] source is [4, 5], x is [6, 2]; source is [out, in], x must be [in, tokens]",
                       ShapeError);
  CHECK_THROWS_AS(multiply_transposed(source, x), ShapeError);
  Weight<float> dw(4, 5);
  CHECK_THROWS_AS(accumulate_outer(dw, x, x), ShapeError);
  CHECK_THROWS_WITH_AS(multiply(source, Activation<double>::Zero(5, 2), Compute::int8),
                       doctest::Contains("pass Compute::fp32 or Compute::bf16"), ValueError);
}
