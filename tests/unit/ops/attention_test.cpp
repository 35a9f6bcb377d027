#include <doctest/doctest.h>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/ops/attention.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

/// The formula, one query at a time.
Activation<double> naive_attention(const Activation<double>& q, const Activation<double>& k, const Activation<double>& v,
                                   const AttentionShape& shape) {
  const Index size = shape.head_size, queries = q.cols() / shape.batch.count(), keys = k.cols() / shape.batch.count();
  Activation<double> y(q.rows(), q.cols());
  for (Index t = 0; t < q.cols(); ++t) {
    const Index all = t % queries + keys - queries + 1, seen = shape.window > 0 ? std::min(shape.window, all) : all;
    const Index first = t / queries * keys + all - seen;
    const double scale = shape.scale > 0 ? shape.scale : 1 / std::sqrt(static_cast<double>(size));
    for (Index h = 0; h < shape.heads; ++h) {
      const Index kv = h / shape.group() * size;
      Column<double> p(seen);
      for (Index j = 0; j < seen; ++j) p[j] = k.col(first + j).segment(kv, size).dot(q.col(t).segment(h * size, size));
      p *= scale;
      for (double& score : p) score = shape.cap > 0 ? shape.cap * std::tanh(score / shape.cap) : score;
      p = (p.array() - p.maxCoeff()).exp();
      y.col(t).segment(h * size, size).setZero();
      for (Index j = 0; j < seen; ++j) y.col(t).segment(h * size, size) += p[j] / p.sum() * v.col(first + j).segment(kv, size);
    }
  }
  return y;
}

struct Inputs {
  Activation<double> q, k, v;

  Inputs(const AttentionShape& shape, Index queries, Index keys)
      : q(4 * random_matrix<Activation<double>>(shape.heads * shape.head_size, shape.batch.count() * queries, 1)),
        k(random_matrix<Activation<double>>(shape.kv_heads * shape.head_size, shape.batch.count() * keys, 2)),
        v(random_matrix<Activation<double>>(shape.kv_heads * shape.head_size, shape.batch.count() * keys, 3)) {}
};

void check_forward(const AttentionShape& shape, Index queries, Index keys) {
  CAPTURE(queries);
  CAPTURE(keys);
  const Inputs in(shape, queries, keys);
  const auto [y, log_sum_exp] = attention_forward(in.q, in.k, in.v, shape);
  CHECK(largest_difference(y, naive_attention(in.q, in.k, in.v, shape)) < 50 * std::numeric_limits<double>::epsilon());
}

void check_backward(const AttentionShape& shape, Index queries, Index keys) {
  CAPTURE(queries);
  CAPTURE(keys);
  Inputs in(shape, queries, keys);
  const auto g = random_matrix<Activation<double>>(in.q.rows(), in.q.cols(), 4);
  const auto loss = [&] { return attention_forward(in.q, in.k, in.v, shape).y.cwiseProduct(g).sum(); };
  const auto [y, log_sum_exp] = attention_forward(in.q, in.k, in.v, shape);
  const auto [dq, dk, dv] = attention_backward(in.q, in.k, in.v, y, log_sum_exp, g, shape);
  CHECK(gradient_error(in.q, dq, loss) < gradient_tolerance);
  CHECK(gradient_error(in.k, dk, loss) < gradient_tolerance);
  CHECK(gradient_error(in.v, dv, loss) < gradient_tolerance);
}

}  // namespace

TEST_CASE("attention equals its formula at sizes around the blocks, with groups, sequences and a cache") {
  for (const Index tokens : {0, 1, 2, 63, 64, 65, 130}) check_forward({1, 1, 3, 1}, tokens, tokens);
  for (const Index tokens : {1, 21, 22, 43}) check_forward({6, 2, 4, 2}, tokens, tokens);
  check_forward({6, 2, 4, 2}, 1, 65);
  check_forward({6, 2, 4, 2}, 30, 100);
  check_forward({70, 1, 2, 1}, 3, 5);
}

TEST_CASE("attention_backward equals finite differences") {
  check_backward({2, 2, 3, 2}, 4, 4);
  check_backward({4, 2, 2, 2}, 3, 5);
  check_backward({32, 1, 2, 1}, 3, 66);
  check_backward({1, 1, 2, 1}, 66, 66);
}

namespace {

const AttentionShape windowed{.heads = 4, .kv_heads = 2, .head_size = 4, .window = 3};
const AttentionShape capped{.heads = 4, .kv_heads = 2, .head_size = 4, .scale = 0.7, .cap = 1.5};
const AttentionShape both{.heads = 6, .kv_heads = 2, .head_size = 3, .batch = 2, .window = 100, .scale = 0.3, .cap = 2};

/// fp32 against the formula in double, by blocks, by chunks of keys, and of a cache.
void check_float(const AttentionShape& shape, Index queries, Index keys) {
  CAPTURE(queries);
  CAPTURE(keys);
  CAPTURE(shape.window);
  const Inputs in(shape, queries, keys);
  const Activation<float> q = in.q.cast<float>(), k = in.k.cast<float>(), v = in.v.cast<float>();
  const Activation<double> right = naive_attention(in.q, in.k, in.v, shape);
  CHECK(largest_difference(attention_forward(q, k, v, shape).y.cast<double>().eval(), right) < 2e-6);
  {
    const BatchInvariant invariant;
    CHECK(largest_difference(attention_forward(q, k, v, shape).y.cast<double>().eval(), right) < 2e-6);
  }
  if (shape.batch.count() > 1) return;
  KvCache cache(shape.kv_heads, shape.head_size, CachePrecision::fp32);
  cache.append(k, v);
  CHECK(largest_difference(attention_forward(q, cache, shape).y.cast<double>().eval(), right) < 2e-6);
}

}  // namespace

TEST_CASE("a window, a scale and a soft cap follow their formulas") {
  for (const AttentionShape& shape : {windowed, capped, both})
    for (const Index tokens : {1, 2, 3, 4, 47, 48, 49, 95, 96, 97, 200}) check_forward(shape, tokens, tokens);
  check_forward(windowed, 1, 300);
  check_forward(both, 7, 300);
  for (AttentionShape shape : {windowed, capped, both})
    for (const Index window : {1, 2, 96, 97, 256, 257, 300, 1000}) {
      if (shape.window > 0) shape.window = window;
      for (const Index queries : {1, 2, 9, 17, 60}) check_float(shape, queries, 600);
    }
}

TEST_CASE("attention_backward of a window, a scale and a soft cap equals finite differences") {
  for (AttentionShape shape : {windowed, capped, both}) {
    check_backward(shape, 5, 5);
    check_backward(shape, 3, 8);
    if (shape.window > 0) shape.window = 60;
    check_backward({.heads = 1, .kv_heads = 1, .head_size = 2, .window = shape.window, .scale = shape.scale, .cap = shape.cap}, 130, 130);
  }
}

TEST_CASE("a window of all keys has the bits of none") {
  AttentionShape shape{4, 2, 8, 1};
  const Inputs in(shape, 150, 150);
  const Activation<float> q = in.q.cast<float>(), k = in.k.cast<float>(), v = in.v.cast<float>();
  const auto whole = attention_forward(q, k, v, shape).y;
  shape.window = 150;
  CHECK(attention_forward(q, k, v, shape).y == whole);
}

TEST_CASE(
    "a long sequence whose queries are spread over several pieces has the gradients of one piece, and the same bits for all threads") {
  // 32 heads are pieces enough; one head alone is cut along its queries.
  const AttentionShape many{64, 32, 2, 1}, one{2, 1, 2, 1};
  Inputs in(many, 1100, 1130);
  const auto g = random_matrix<Activation<double>>(in.q.rows(), in.q.cols(), 4);
  const auto [y, log_sum_exp] = attention_forward(in.q, in.k, in.v, many);
  const auto whole = attention_backward(in.q, in.k, in.v, y, log_sum_exp, g, many);
  const auto part =
      attention_backward(in.q.topRows(4).eval(), in.k.topRows(2), in.v.topRows(2), y.topRows(4), log_sum_exp.topRows(2), g.topRows(4), one);
  const double tolerance = 1000 * std::numeric_limits<double>::epsilon();
  CHECK(part.dq == whole.dq.topRows(4));
  CHECK(largest_difference(part.dk, whole.dk.topRows(2)) < tolerance * whole.dk.cwiseAbs().maxCoeff());
  CHECK(largest_difference(part.dv, whole.dv.topRows(2)) < tolerance * whole.dv.cwiseAbs().maxCoeff());

  AttentionShape two = one;  // sequences
  two.batch = 2;
  const auto q = random_matrix<Activation<float>>(4, 2200, 8), k = random_matrix<Activation<float>>(2, 2200, 9);
  const auto forward = attention_forward(q, k, k, two);
  const auto gradient = [&](auto member) {
    return [&, member] { return attention_backward(q, k, k, forward.y, forward.log_sum_exp, q, two).*member; };
  };
  CHECK(same_for_any_thread_count(gradient(&AttentionGradients<float>::dq)));
  CHECK(same_for_any_thread_count(gradient(&AttentionGradients<float>::dk)));
  CHECK(same_for_any_thread_count(gradient(&AttentionGradients<float>::dv)));
}

TEST_CASE("weights sum to one, and a later token changes no earlier output") {
  const AttentionShape shape{4, 2, 4, 1};
  Inputs in(shape, 70, 70);
  in.v.setOnes();
  CHECK(largest_difference(attention_forward(in.q, in.k, in.v, shape).y, Activation<double>::Ones(16, 70)) < 1e-14);
  const Inputs before(shape, 70, 70);
  Inputs after = before;
  after.k.rightCols(3).setConstant(9);
  after.v.rightCols(3).setConstant(-7);
  const Activation<double> y = attention_forward(before.q, before.k, before.v, shape).y,
                           z = attention_forward(after.q, after.k, after.v, shape).y;
  CHECK(y.leftCols(67) == z.leftCols(67));
  CHECK(y.col(67) != z.col(67));
}

TEST_CASE("scores of any size give finite outputs and gradients") {
  const AttentionShape shape{2, 1, 4, 1};
  const Activation<float> q = 1e4f * random_matrix<Activation<float>>(8, 70, 5), k = 1e4f * random_matrix<Activation<float>>(4, 70, 6);
  const auto v = random_matrix<Activation<float>>(4, 70, 7);
  const auto [y, log_sum_exp] = attention_forward(q, k, v, shape);
  CHECK(y.allFinite());
  CHECK(y.cwiseAbs().maxCoeff() <= 1.0f);
  const auto [dq, dk, dv] = attention_backward(q, k, v, y, log_sum_exp, y, shape);
  CHECK(dq.allFinite());
  CHECK(dk.allFinite());
  CHECK(dv.allFinite());
}

TEST_CASE("attention has the same bits for any number of threads") {
  const AttentionShape shape{6, 3, 8, 2};
  const auto q = random_matrix<Activation<float>>(48, 180, 8), k = random_matrix<Activation<float>>(24, 180, 9),
             v = random_matrix<Activation<float>>(24, 180, 10);
  const auto [y, log_sum_exp] = attention_forward(q, k, v, shape);
  CHECK(same_for_any_thread_count([&] { return attention_forward(q, k, v, shape).y; }));
  CHECK(same_for_any_thread_count([&, &out = y, &lse = log_sum_exp] { return attention_backward(q, k, v, out, lse, out, shape).dk; }));
  const AttentionShape single{48, 24, 1, 1};  // one wide problem against one piece
  CHECK(same_for_any_thread_count([&] { return attention_forward(q, k, v, single).y; }));
}

namespace {

/// Each text of a batch by itself, side by side.
struct Alone {
  AttentionForward<float> forward;
  AttentionGradients<float> backward;

  Alone(const Activation<float>& q, const Activation<float>& k, const Activation<float>& v, const Activation<float>& g,
        const AttentionShape& shape, const std::vector<Index>& lengths, Compute compute)
      : forward{Activation<float>(q.rows(), q.cols()), Activation<float>(shape.heads, q.cols())},
        backward{Activation<float>(q.rows(), q.cols()), Activation<float>(k.rows(), k.cols()), Activation<float>(v.rows(), v.cols())} {
    Index first = 0;
    for (const Index length : lengths) {
      const Activation<float> own_q = q.middleCols(first, length), own_k = k.middleCols(first, length), own_v = v.middleCols(first, length);
      const auto [y, log_sum_exp] = attention_forward(own_q, own_k, own_v, shape, compute);
      const auto [dq, dk, dv] = attention_backward(own_q, own_k, own_v, y, log_sum_exp, g.middleCols(first, length), shape, compute);
      forward.y.middleCols(first, length) = y, forward.log_sum_exp.middleCols(first, length) = log_sum_exp;
      backward.dq.middleCols(first, length) = dq, backward.dk.middleCols(first, length) = dk, backward.dv.middleCols(first, length) = dv;
      first += length;
    }
  }
};

}  // namespace

TEST_CASE("texts of unequal lengths in a batch have the bits of each text alone") {
  AttentionShape shape{4, 2, 8, 1};
  const std::vector<Index> lengths{1, 130, 2, 17, 1100, 96, 3};  // streamed, one block and several, and one whose keys are summed in parts
  AttentionShape packed = shape;
  packed.batch = Sequences::with_lengths(lengths);
  const auto q = random_matrix<Activation<float>>(32, 1349, 11), k = random_matrix<Activation<float>>(16, 1349, 12),
             v = random_matrix<Activation<float>>(16, 1349, 13), g = random_matrix<Activation<float>>(32, 1349, 14);
  const auto check_bits = [&](Compute compute) {
    const Alone alone(q, k, v, g, shape, lengths, compute);
    const auto [y, log_sum_exp] = attention_forward(q, k, v, packed, compute);
    const auto [dq, dk, dv] = attention_backward(q, k, v, y, log_sum_exp, g, packed, compute);
    CHECK(y == alone.forward.y);
    CHECK(log_sum_exp == alone.forward.log_sum_exp);
    CHECK(dq == alone.backward.dq);
    CHECK(dk == alone.backward.dk);
    CHECK(dv == alone.backward.dv);
  };
  check_bits(Compute::fp32);
  check_bits(Compute::bf16);
  {
    const BatchInvariant invariant;
    check_bits(Compute::fp32);
  }
  shape.window = packed.window = 100;
  check_bits(Compute::fp32);
  CHECK(same_for_any_thread_count([&] { return attention_forward(q, k, v, packed).y; }));
}

TEST_CASE("attention_backward of texts of unequal lengths equals finite differences") {
  const AttentionShape shape{4, 2, 2, Sequences::with_lengths({3, 1, 5})};
  Inputs in({4, 2, 2, 1}, 9, 9);
  const auto g = random_matrix<Activation<double>>(in.q.rows(), in.q.cols(), 4);
  const auto loss = [&] { return attention_forward(in.q, in.k, in.v, shape).y.cwiseProduct(g).sum(); };
  const auto [y, log_sum_exp] = attention_forward(in.q, in.k, in.v, shape);
  const auto [dq, dk, dv] = attention_backward(in.q, in.k, in.v, y, log_sum_exp, g, shape);
  CHECK(gradient_error(in.q, dq, loss) < gradient_tolerance);
  CHECK(gradient_error(in.k, dk, loss) < gradient_tolerance);
  CHECK(gradient_error(in.v, dv, loss) < gradient_tolerance);
}

TEST_CASE("sequences say how long they are and where their tokens stand") {
  CHECK(Sequences(3).lengths("test", 12) == std::vector<Index>{4, 4, 4});
  CHECK(Sequences::with_lengths({2, 3}).lengths("test", 5) == std::vector<Index>{2, 3});
  CHECK(Sequences::with_lengths({2, 3}).positions("test", 5) == std::vector<Index>{0, 1, 0, 1, 2});
  CHECK(Sequences().positions("test", 3, 7) == std::vector<Index>{7, 8, 9});
  CHECK(Sequences(2) == Sequences(2));
  CHECK(Sequences(2) != Sequences::with_lengths({1, 1}));
  CHECK_THROWS_WITH_AS(Sequences(3).lengths("test", 11), "[test] 11 tokens do not divide into 3 sequences of equal length", ShapeError);
  CHECK_THROWS_AS(Sequences(0).lengths("test", 4), ShapeError);
  CHECK_THROWS_AS(Sequences::with_lengths({}).lengths("test", 4), ShapeError);
  CHECK_THROWS_WITH_AS(Sequences::with_lengths({2, 3}).lengths("test", 6), doctest::Contains("sum to 5 for 6 tokens"), ShapeError);
  CHECK_THROWS_WITH_AS(Sequences::with_lengths({6, 0}).lengths("test", 6), doctest::Contains("has no token"), ShapeError);
}

TEST_CASE("attention refuses shapes that do not fit, and prints them") {
  const Activation<float> q = Activation<float>::Zero(8, 4), k = Activation<float>::Zero(4, 4);
  CHECK_THROWS_WITH_AS(attention_forward(q, k, k, {2, 1, 3, 1}), doctest::Contains("q is [8, 4], k is [4, 4], v is [4, 4] with heads = 2"),
                       ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k, k, {2, 0, 4, 1}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k, k, {3, 2, 4, 1}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k, k, {-2, -1, -4, -1}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k, k, {Index{1} << 62, Index{1} << 61, 8, 1}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k, k, {2, 1, 4, 3}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, k.leftCols(3), k.leftCols(3), {2, 1, 4, 1}), ShapeError);
  CHECK_THROWS_WITH_AS(attention_forward(q, k, k, {2, 1, 4, Sequences::with_lengths({1, 2})}), doctest::Contains("sum to 3 for 4 tokens"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(attention_forward(q.leftCols(3), k, k, {2, 1, 4, Sequences::with_lengths({1, 2})}),
                       doctest::Contains("unequal length"), ShapeError);
}
