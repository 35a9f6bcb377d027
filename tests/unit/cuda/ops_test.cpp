#include <lowrank/cuda/kernels/elementwise.hpp>
#include <lowrank/cuda/kernels/cross_entropy.hpp>
#include <lowrank/cuda/kernels/norm.hpp>
#include <lowrank/cuda/kernels/outer.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/ops/activation.hpp>
#include <lowrank/ops/embedding.hpp>
#include <lowrank/ops/loss.hpp>
#include <lowrank/ops/norm.hpp>
#include <lowrank/product/multiply.hpp>
#include <lowrank/ops/rope.hpp>
#include <lowrank/quant.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

Activation<float> matrix(Index rows, Index cols, std::uint64_t stream, float scale = 1) {
  Activation<float> m(rows, cols);
  const auto numbers = random_numbers(rows * cols, stream, -scale, scale);
  std::copy(numbers.begin(), numbers.end(), m.data());
  return m;
}

/// Largest difference in units of the largest expected number.
template <class Expected>
double difference(const std::vector<float>& y, const Expected& expected) {
  REQUIRE(static_cast<Index>(y.size()) == expected.size());
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double e = static_cast<double>(expected.data()[i]);
    worst = std::max(worst, std::isnan(y[i]) ? INFINITY : std::abs(static_cast<double>(y[i]) - e));
    largest = std::max(largest, std::abs(e));
  }
  return worst / largest;
}

/// A kernel that writes `size` numbers: make(out) gives it.
template <class Make>
std::vector<float> result_of(Index size, const Make& make, float start = 0) {
  return on_every_schedule([&](Machine& machine) {
    std::vector<float> out(static_cast<std::size_t>(size), start);
    launch(machine, make(out.data()));
    return out;
  });
}

constexpr double few_ulps = 4e-6;

}  // namespace

TEST_CASE("RMSNorm and its gradients, as the CPU's") {
  for (const Index n : {1, 33, 300}) {
    const auto x = matrix(n, 5, 1), g = matrix(n, 5, 2);
    const Column<float> w = matrix(n, 1, 3);
    const auto expected = rms_norm_forward(x, w, 1e-5f);
    CHECK(difference(result_of(5 * n, [&](float* y) { return cuda::RmsNormForward{x.data(), w.data(), static_cast<int>(n), 5, 1e-5f, y}; }),
                     expected) < few_ulps);
    const auto gradients = rms_norm_backward(x, w, 1e-5f, g);
    std::vector<float> rho(5);
    CHECK(difference(result_of(5 * n,
                               [&](float* dx) {
                                 return cuda::RmsNormBackward{x.data(), w.data(), g.data(), static_cast<int>(n), 5, 1e-5f, dx, rho.data()};
                               }),
                     gradients.dx) < few_ulps);
    CHECK(difference(
              result_of(n,
                        [&](float* dw) { return cuda::RmsNormWeightGradient{x.data(), g.data(), rho.data(), static_cast<int>(n), 5, dw}; }),
              gradients.dweight) < few_ulps);
  }
}

TEST_CASE("SwiGLU, its gradients and sums of arrays") {
  const auto gate = matrix(33, 17, 1, 100), up = matrix(33, 17, 2), g = matrix(33, 17, 3);
  const Index size = gate.size();
  CHECK(difference(result_of(size,
                             [&](float* y) {
                               return cuda::SwigluForward{gate.data(), up.data(), size, y};
                             }),
                   swiglu_forward(gate, up)) < few_ulps);
  const auto expected = swiglu_backward(gate, up, g);
  std::vector<float> other(static_cast<std::size_t>(size));
  CHECK(difference(result_of(size, [&](float* d) { return cuda::SwigluBackward{gate.data(), up.data(), g.data(), size, d, other.data()}; }),
                   expected.dgate) < few_ulps);
  CHECK(difference(result_of(size, [&](float* d) { return cuda::SwigluBackward{gate.data(), up.data(), g.data(), size, other.data(), d}; }),
                   expected.dup) < few_ulps);
  const Activation<float> sum = Activation<float>::Constant(33, 17, 2.0f) + 0.5f * up;
  CHECK(difference(result_of(
                       size,
                       [&](float* y) {
                         return cuda::AddScaled{up.data(), 0.5f, size, y};
                       },
                       2),
                   sum) < few_ulps);
}

TEST_CASE("RoPE and its gradient, both ways to pair") {
  const std::vector<Index> positions{0, 3, 17, 18};
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
    const auto x = matrix(3 * 10, 4, 1);
    const RopeTable<float> table(positions, {.head_size = 10, .pairs = pairs});
    for (const float direction : {1.0f, -1.0f}) {
      const auto expected = direction > 0 ? rope_forward(x, table) : rope_backward(x, table);
      CHECK(difference(result_of(x.size(),
                                 [&](float* y) {
                                   return cuda::Rope{
                                       x.data(), table.cos(0), table.sin(0), 3, 5, 4, pairs == RopePairs::interleaved, direction, y};
                                 }),
                       expected) < few_ulps);
    }
  }
}

TEST_CASE("rows of an embedding in every number of bits") {
  const auto numbers = random_numbers(9 * 70, 1);
  const DenseSource<float> dense(numbers.data(), 9, 70);
  const std::vector<std::int32_t> ids{8, 0, 8, 3, 8};
  const auto check = [&](const cuda::ChunkedMatrix& packed, const auto& source) {
    CHECK(difference(result_of(5 * 70,
                               [&](float* y) {
                                 return cuda::EmbeddingForward{packed.view(), ids.data(), 5, y};
                               }),
                     embedding_forward<float>(source, ids)) < 1e-6);
  };
  const auto q4 = quantize<Q4_1>(dense);
  const auto q8 = quantize<Q8_0>(dense);
  check(cuda::to_chunks(q4.source()), q4);
  check(cuda::to_chunks(q8.source()), q8);
  std::vector<BFloat16> brain;
  for (const float x : numbers) brain.push_back(BFloat16(x));
  const DenseSource<BFloat16> rounded(brain.data(), 9, 70);
  check(cuda::to_bfloat16_chunks(rounded), rounded);
}

TEST_CASE("cross-entropy of a slice and its gradient in place") {
  const Index vocabulary = 300;
  const auto logits = matrix(vocabulary, 4, 1, 80);
  const std::vector<std::int32_t> targets{0, 299, 7, 7};
  const auto expected = negative_log_likelihood(logits, targets);
  const auto gradient = cross_entropy_backward(logits, targets);
  std::vector<float> losses(4);
  const auto changed = on_every_schedule([&](Machine& machine) {
    std::vector<float> work(logits.data(), logits.data() + logits.size());
    cuda::CrossEntropySlice kernel{work.data(), targets.data(), 300, 4, 0.25f, false, losses.data()};
    launch(machine, kernel);
    CHECK(difference(work, logits) == 0);
    kernel.wants_gradient = true;
    launch(machine, kernel);
    return work;
  });
  CHECK(difference(losses, expected) < few_ulps);
  CHECK(difference(changed, gradient) < few_ulps);
  double total = 1;
  Machine machine;
  launch(machine, cuda::AddToTotal{losses.data(), 4, &total});
  CHECK(total == doctest::Approx(1 + static_cast<double>(expected.sum())).epsilon(1e-6));
}

TEST_CASE("outer products: the gradients of the factors, in one piece and in several") {
  for (const auto& [rows, cols, tokens, splits] : {std::array{1, 1, 1, 1}, {8, 200, 70, 1}, {130, 16, 33, 1}, {70, 70, 200, 3}}) {
    CAPTURE(rows);
    CAPTURE(tokens);
    Machine setup;
    const Rows left(setup, random_numbers(tokens * rows, 1), tokens, rows), right(setup, random_numbers(tokens * cols, 2), tokens, cols);
    std::vector<float> expected(static_cast<std::size_t>(rows * cols));
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j) {
        double sum = 0;
        for (Index t = 0; t < tokens; ++t) sum += static_cast<double>(left.at(t, i)) * static_cast<double>(right.at(t, j));
        expected[static_cast<std::size_t>(i * cols + j)] = static_cast<float>(3 + 0.5 * sum);
      }
    const auto c = on_every_schedule([&, n = splits](Machine& machine) {
      std::vector<float> out(expected.size(), 3.0f), partials(expected.size() * static_cast<std::size_t>(n));
      const cuda::OuterProduct kernel{left.operand(), right.operand(), left.rows, 0.5f, out.data(), true, n, partials.data()};
      launch(machine, kernel);
      if (n > 1) launch(machine, cuda::SumOuter{kernel});
      return out;
    });
    CHECK(difference(c, Eigen::Map<const Eigen::VectorXf>(expected.data(), static_cast<Index>(expected.size()))) < few_ulps);
  }
}
