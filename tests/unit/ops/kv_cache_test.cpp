#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/ops/attention.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

struct CacheText {
  AttentionShape shape;
  Activation<float> q, k, v;

  CacheText(const AttentionShape& s, Index tokens)
      : shape(s),
        q(4 * random_matrix<Activation<float>>(s.heads * s.head_size, tokens, 21)),
        k(random_matrix<Activation<float>>(s.kv_heads * s.head_size, tokens, 22)),
        v(random_matrix<Activation<float>>(s.kv_heads * s.head_size, tokens, 23)) {}

  Index tokens() const { return q.cols(); }
  KvCache cache(CachePrecision precision) const { return {shape.kv_heads, shape.head_size, precision}; }
  /// Outputs of tokens [begin, begin + count), which join the cache.
  Activation<float> read(KvCache& cache, Index begin, Index count, Compute compute = Compute::fp32) const {
    cache.append(k.middleCols(begin, count), v.middleCols(begin, count));
    return attention_forward(q.middleCols(begin, count), cache, shape, compute).y;
  }
  /// All tokens, so many at a time.
  Activation<float> read_all(CachePrecision precision, Index step, Compute compute = Compute::fp32) const {
    KvCache cache = this->cache(precision);
    Activation<float> y(q.rows(), tokens());
    for (Index t = 0; t < tokens(); t += step)
      y.middleCols(t, std::min(step, tokens() - t)) = read(cache, t, std::min(step, tokens() - t), compute);
    return y;
  }
  Activation<double> exact() const { return attention_forward(q.cast<double>().eval(), k.cast<double>(), v.cast<double>(), shape).y; }
};

bool same_bits(const Activation<float>& a, const Activation<float>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && std::equal(a.data(), a.data() + a.size(), b.data());
}

const kernels::Target& first_target = kernels::current_target();

template <class Body>
void for_each_target(const Body& body) {
  for (const kernels::Target* target : kernels::targets()) {
    if (!target->is_available()) continue;
    kernels::set_target(*target);
    CAPTURE(target->name);
    body();
  }
  kernels::set_target(first_target);
}

constexpr double float_epsilon = std::numeric_limits<float>::epsilon(), bfloat16_half_ulp = 0x1p-8;

}  // namespace

TEST_CASE("a cache grows, keeps what it holds, forgets and copies") {
  const CacheText text({2, 2, 5, 1}, 70);
  for (const CachePrecision precision : {CachePrecision::fp32, CachePrecision::bf16}) {
    KvCache cache = text.cache(precision);
    Index growths = 0;
    std::size_t bytes = cache.bytes();
    CHECK(bytes == 0);
    for (Index t = 0; t < 70; ++t) {
      cache.append(text.k.col(t), text.v.col(t));
      growths += cache.bytes() != bytes;
      bytes = cache.bytes();
    }
    CHECK(growths <= 8);
    CHECK(cache.tokens() == 70);
    const auto check_numbers = [&](const KvCache& held, Index tokens) {
      held.visit([&](const auto& k, const auto& v) {
        REQUIRE(k.tokens == tokens);
        for (Index h = 0; h < 2; ++h)
          for (Index t = 0; t < tokens; ++t)
            for (Index i = 0; i < 5; ++i) {
              const auto stored = [&](float x) { return precision == CachePrecision::fp32 ? x : static_cast<float>(BFloat16(x)); };
              CHECK(static_cast<float>(k.at(h, t)[i]) == stored(text.k(5 * h + i, t)));
              CHECK(static_cast<float>(v.at(h, t)[i]) == stored(text.v(5 * h + i, t)));
            }
      });
    };
    check_numbers(cache, 70);
    const KvCache copy = cache;
    cache.truncate(3);
    cache.append(text.k.middleCols(3, 4), text.v.middleCols(3, 4));
    check_numbers(cache, 7);
    check_numbers(copy, 70);
    KvCache reserved = text.cache(precision);
    reserved.reserve(1000);
    bytes = reserved.bytes();
    CHECK(bytes == std::size_t{2 * 1000 * 10} * (precision == CachePrecision::fp32 ? 4 : 2));
    reserved.append(text.k, text.v);
    CHECK(reserved.bytes() == bytes);
  }
}

TEST_CASE("few queries over a cache equal the formula at contexts around the chunks, for groups, head sizes and targets") {
  for_each_target([] {
    for (const AttentionShape& shape : {AttentionShape{2, 2, 64, 1}, AttentionShape{6, 2, 80, 1}, AttentionShape{8, 2, 96, 1},
                                        AttentionShape{3, 1, 128, 1}, AttentionShape{5, 1, 7, 1}}) {
      CAPTURE(shape.group());
      CAPTURE(shape.head_size);
      const CacheText text(shape, 520);
      const Activation<double> exact = text.exact();
      KvCache cache = text.cache(CachePrecision::fp32);
      Index read = 0;
      for (const auto& [end, count] : {std::pair<Index, Index>{1, 1},
                                       {3, 2},
                                       {254, 1},
                                       {255, 1},
                                       {256, 1},
                                       {257, 1},
                                       {258, 1},
                                       {300, 3},
                                       {511, 16},
                                       {512, 1},
                                       {513, 1},
                                       {520, 2}}) {
        const Index context = end, queries = count;  // no bindings, which clang 14 does not capture
        CAPTURE(context);
        text.read(cache, read, context - queries - read);
        const Activation<float> y = text.read(cache, context - queries, queries);
        CHECK(largest_difference(y.cast<double>(), exact.middleCols(context - queries, queries)) < 200 * float_epsilon);
        read = context;
      }
    }
  });
}

TEST_CASE("a cache in bfloat16 differs from one in fp32 by its rounding") {
  for_each_target([] {
    for (const Index step : {1, 300}) {
      CAPTURE(step);
      const CacheText text({6, 2, 64, 1}, 300);
      const Activation<float> rounded = text.read_all(CachePrecision::bf16, step), whole = text.read_all(CachePrecision::fp32, step);
      // Keys in [-1, 1) move a score by at most Σ |q| ulp / 2 / √64, values in [-1, 1) by ulp / 2.
      const double score = text.q.cwiseAbs().colwise().sum().maxCoeff() / 6.0 / 8.0 * bfloat16_half_ulp;
      CHECK(largest_difference(rounded, whole) < 2 * score + bfloat16_half_ulp);
      CHECK(largest_difference(rounded, whole) > 0);
      // Products of bfloat16 round queries and weights, too.
      CHECK(largest_difference(text.read_all(CachePrecision::bf16, step, Compute::bf16), whole) < 4 * score + 3 * bfloat16_half_ulp);
      // In fp32 it is what rounded keys and values give.
      CacheText same = text;
      for (Activation<float>* x : {&same.k, &same.v})
        *x = x->unaryExpr([](float number) { return static_cast<float>(BFloat16(number)); }).eval();
      CHECK(same_bits(rounded, same.read_all(CachePrecision::fp32, step)));
    }
  });
}

TEST_CASE("a prompt in pieces equals the prompt at once") {
  const CacheText text({6, 2, 64, 1}, 600);
  const Activation<double> exact = text.exact();
  for (const Index step : {1, 2, 3, 7, 16, 17, 100, 256, 600}) {
    CAPTURE(step);
    CHECK(largest_difference(text.read_all(CachePrecision::fp32, step).cast<double>(), exact) < 200 * float_epsilon);
  }
  // Products of bfloat16 round keys and values themselves: one rounding, wherever it happens.
  CHECK(same_bits(text.read_all(CachePrecision::bf16, 200, Compute::bf16), text.read_all(CachePrecision::fp32, 200, Compute::bf16)));
}

TEST_CASE("a cached token has the same bits for any number of threads") {
  for (const Index queries : {1, 2, 9, 40}) {
    const CacheText text({6, 2, 64, 1}, 900);
    for (const CachePrecision precision : {CachePrecision::fp32, CachePrecision::bf16}) {
      KvCache cache = text.cache(precision);
      cache.append(text.k, text.v);
      CHECK(same_for_any_thread_count([&] { return attention_forward(text.q.rightCols(queries), cache, text.shape, Compute::bf16).y; }));
    }
  }
}

TEST_CASE("with BatchInvariant a query's bits do not depend on the queries beside it, nor on a cache") {
  const BatchInvariant guard;
  for_each_target([] {
    const CacheText text({6, 2, 20, 1}, 540);
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      const Activation<float> y = attention_forward(text.q, text.k, text.v, text.shape, compute).y;
      for (const Index step : {1, 2, 5, 16, 31, 300}) {
        CAPTURE(step);
        CHECK(same_bits(y, text.read_all(cache_precision(compute), step, compute)));
      }
      const Activation<float> last = attention_forward(text.q.rightCols(1), text.k, text.v, text.shape, compute).y;
      CHECK(same_bits(y.rightCols(1), last));
      // In a batch, too.
      AttentionShape batch = text.shape;
      batch.batch = 2;
      const Activation<float> half =
          attention_forward(text.q.leftCols(270), text.k.leftCols(270), text.v.leftCols(270), text.shape, compute).y;
      CHECK(same_bits(half, attention_forward(text.q, text.k, text.v, batch, compute).y.leftCols(270)));
    }
  });
}

TEST_CASE("caches and views refuse what does not fit") {
  CHECK_THROWS_AS(KvCache(0, 4, CachePrecision::fp32), ShapeError);
  CHECK_THROWS_AS(KvCache(2, -4, CachePrecision::bf16), ShapeError);
  KvCache cache(2, 4, CachePrecision::bf16);
  const Activation<float> two = Activation<float>::Zero(8, 2), wide = Activation<float>::Zero(9, 2), three = Activation<float>::Zero(8, 3);
  CHECK_THROWS_WITH_AS(cache.append(two, wide), doctest::Contains("keys are [8, 2], values [9, 2] with kv_heads = 2, head_size = 4"),
                       ShapeError);
  CHECK_THROWS_AS(cache.append(two, three), ShapeError);
  CHECK_THROWS_AS(cache.append(wide, wide), ShapeError);
  CHECK_THROWS_AS(cache.reserve(std::numeric_limits<Index>::max() / 8), ShapeError);
  CHECK(cache.tokens() == 0);
  cache.append(two, two);
  CHECK_THROWS_AS(cache.truncate(3), ShapeError);
  CHECK_THROWS_AS(cache.truncate(-1), ShapeError);
  const Activation<float> q = Activation<float>::Zero(16, 1);
  CHECK(attention_forward(q, cache, {4, 2, 4}).y == q);
  CHECK_THROWS_WITH_AS(attention_forward(q, cache, {2, 1, 8}), doctest::Contains("k has 2 heads, v 2 with kv_heads = 1"), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, cache, {4, 2, 4, 2}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, cache, {4, 0, 4}), ShapeError);
  CHECK_THROWS_AS(attention_forward(q, cache, {8, 2, 4}), ShapeError);
  CHECK_THROWS_AS(attention_forward(Activation<float>::Zero(16, 3).eval(), cache, {4, 2, 4}), ShapeError);
}
