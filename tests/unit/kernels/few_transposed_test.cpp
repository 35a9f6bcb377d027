#include <doctest/doctest.h>

#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/kernels/driver/gemm.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

#include "fixtures.hpp"

using namespace lowrank;

namespace {

Weight<float> random_weight(Index rows, Index cols, std::uint64_t seed) {
  Weight<float> w(rows, cols);
  fill_normal(w, 1, Random(seed));
  return w;
}

/// Calls f for every target of this processor, with one thread and with two.
template <class F>
void for_each_target_and_threads(const F& f) {
  const int threads = thread_count();
  fixtures::for_each_target([&](const kernels::Target& target) {
    CAPTURE(target.name);
    for (const int count : {1, 2}) {
      set_thread_count(count);
      f();
    }
  });
  set_thread_count(threads);
}

/// Sourceᵀ X against Eigen in double, with everything that options can add.
template <class S>
void check_transposed(const S& source, const Weight<float>& dense, Index tokens) {
  const Index rows = dense.cols(), ldy = rows + 3;
  const Activation<float> x = random_weight(dense.rows(), tokens, 7);
  const Column<float> scale = random_weight(rows, 1, 8), bias = random_weight(rows, 1, 9);
  Activation<float> y = random_weight(ldy, tokens, 10);
  const Activation<float> before = y;
  const kernels::Columns part{x.data(), x.outerStride(), x.rows()};
  const kernels::Options options{.accumulate = true, .row_scale = scale.data(), .bias = bias.data()};
  kernels::multiply(transposed(source), std::span(&part, 1), tokens, y.data(), ldy, options);
  const Eigen::MatrixXd product = dense.transpose().cast<double>() * x.cast<double>() + before.topRows(rows).cast<double>();
  const Eigen::MatrixXd expected = (scale.cast<double>().asDiagonal() * product).colwise() + bias.cast<double>();
  CHECK((y.topRows(rows).cast<double>() - expected).norm() <= 1e-5 * (1 + expected.norm()));
  CHECK(y.bottomRows(3) == before.bottomRows(3));
}

}  // namespace

TEST_CASE("few tokens times a transposed matrix: every kind of storage, at sizes around the borders") {
  for_each_target_and_threads([] {
    for (const Index tokens : {1, 2, 4, 5})
      for (const auto& [depth, rows] : {std::pair<Index, Index>{1, 1}, {15, 63}, {16, 64}, {17, 65}, {40, 530}, {300, 192}}) {
        CAPTURE(tokens);
        CAPTURE(depth);
        CAPTURE(rows);
        const Weight<float> w = random_weight(depth, rows, 1);
        check_transposed(DenseSource<float>(w.data(), depth, rows), w, tokens);
        std::vector<BFloat16> rounded(w.data(), w.data() + w.size());
        const Weight<float> dense = w.unaryExpr([](float v) { return static_cast<float>(BFloat16(v)); });
        check_transposed(DenseSource<BFloat16>(rounded.data(), depth, rows), dense, tokens);
        const auto nf4 = quantize<Nf4<64>>(w);
        check_transposed(nf4, dequantize(nf4), tokens);
        const auto q4 = quantize<Q4_1>(w);
        check_transposed(q4, dequantize(q4), tokens);
      }
  });
}

TEST_CASE("few tokens times [W^T | s A^T]: parts side by side, each with its scale") {
  for_each_target_and_threads([] {
    const Weight<float> w = random_weight(70, 200, 1), a = random_weight(5, 200, 2);
    const Activation<float> g = random_weight(70, 2, 3), u = random_weight(5, 2, 4);
    const kernels::Columns parts[] = {{g.data(), 70, 70}, {u.data(), 5, 5}};
    const auto source =
        concat_depth(transposed(DenseSource<float>(w.data(), 70, 200)), scaled(transposed(DenseSource<float>(a.data(), 5, 200)), 0.5));
    Activation<float> y(200, 2);
    kernels::multiply(source, parts, 2, y.data(), 200);
    const Activation<float> expected = w.transpose() * g + 0.5f * a.transpose() * u;
    CHECK(y.isApprox(expected, 1e-5f));
  });
}
