#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/product/multiply.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A token with this target counts nowhere.
inline constexpr std::int32_t ignored_target = -100;

/// Mean negative log-likelihood over the counted tokens, their number, and the sum before the division. Nothing counted: loss 0.
template <class S>
struct CrossEntropy {
  S loss = 0;
  Index count = 0;
  double total = 0;
};

/// The same, and the gradient of the mean with respect to the input [dim, T] (empty unless asked for).
template <class S>
struct LinearCrossEntropy {
  S loss = 0;
  Index count = 0;
  double total = 0;
  Activation<S> dx = {};
};

namespace detail {

/// The positions whose target counts. Throws ShapeError, ValueError.
std::vector<Index> counted_tokens(const char* operation, std::span<const std::int32_t> targets, Index vocabulary, Index tokens);

/// The largest logit, and Σ e^(logit − largest).
template <class S>
struct SoftmaxSums {
  S max, sum;

  /// −log softmax at that logit; the difference is small, so large logits lose nothing.
  S negative_log_likelihood(S logit) const { return (max - logit) + std::log(sum); }
};

template <class S>
SoftmaxSums<S> softmax_sums(const S* logits, Index n) {
  constexpr Index chunk = 512;
  alignas(64) S buffer[chunk];
  SoftmaxSums<S> sums{max_of(logits, n), S(0)};
  for (Index i = 0; i < n; i += chunk) sums.sum += exponential(logits + i, sums.max, std::min(chunk, n - i), buffer);
  return sums;
}

template <class S>
CrossEntropy<S> mean_of(const Column<S>& losses, Index count) {
  CrossEntropy<S> result{S(0), count, 0};
  for (Index t = 0; t < losses.size(); ++t) result.total += static_cast<double>(losses[t]);
  if (count > 0) result.loss = static_cast<S>(result.total / static_cast<double>(count));
  return result;
}

}  // namespace detail

/// Negative log-likelihood of each token, −log softmax(logits)[target], 0 where the target is ignored; gives [T].
///
/// Logits [vocabulary, T]. Finite for any finite logits. Throws ShapeError, and ValueError for a target outside the vocabulary.
template <MatrixLike X, class S = ScalarOf<X>>
Column<S> negative_log_likelihood(const X& input, std::span<const std::int32_t> targets) {
  const ActivationView<S> logits(input);
  const auto counted = detail::counted_tokens("negative_log_likelihood", targets, logits.rows(), logits.cols());
  Column<S> losses = Column<S>::Zero(logits.cols());
  parallel_for(static_cast<Index>(counted.size()), [&](Index i) {
    const Index t = counted[static_cast<std::size_t>(i)];
    const S* column = logits.col(t).data();
    losses[t] = detail::softmax_sums(column, logits.rows()).negative_log_likelihood(column[targets[static_cast<std::size_t>(t)]]);
  });
  return losses;
}

/// Cross-entropy of logits [vocabulary, T]: the mean of the negative log-likelihoods of the counted tokens. Throws ShapeError, ValueError.
template <MatrixLike X, class S = ScalarOf<X>>
CrossEntropy<S> cross_entropy_forward(const X& logits, std::span<const std::int32_t> targets) {
  const Column<S> losses = negative_log_likelihood(logits, targets);
  return detail::mean_of(losses, static_cast<Index>(targets.size()) - std::count(targets.begin(), targets.end(), ignored_target));
}

/// dlogits = g (softmax(logits) − onehot(target)) / count in counted columns, 0 in ignored ones; g = dL/dloss.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> cross_entropy_backward(const X& input, std::span<const std::int32_t> targets, std::type_identity_t<S> g = S(1)) {
  const ActivationView<S> logits(input);
  const Index n = logits.rows();
  const auto counted = detail::counted_tokens("cross_entropy_backward", targets, n, logits.cols());
  Activation<S> gradient = Activation<S>::Zero(n, logits.cols());
  const S share = counted.empty() ? S(0) : g / static_cast<S>(counted.size());
  parallel_for(static_cast<Index>(counted.size()), [&](Index i) {
    const Index t = counted[static_cast<std::size_t>(i)];
    const S* column = logits.col(t).data();
    S* derivative = gradient.col(t).data();
    const S sum = detail::exponential(column, detail::max_of(column, n), n, derivative);
    detail::scale(share / sum, n, derivative);
    gradient(targets[static_cast<std::size_t>(t)], t) -= share;
  });
  return gradient;
}

/// Mean over all numbers of (x − target)²; 0 for empty arrays. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
S mse_forward(const X& x, const ActivationView<S>& target) {
  detail::check_same_shape("mse_forward", "x", x, "target", target);
  double total = 0;
  for (Index t = 0; t < x.cols(); ++t) total += static_cast<double>((x.col(t) - target.col(t)).squaredNorm());
  return x.size() == 0 ? S(0) : static_cast<S>(total / static_cast<double>(x.size()));
}

/// dx = g · 2 (x − target) / size.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> mse_backward(const X& x, const ActivationView<S>& target, std::type_identity_t<S> g = S(1)) {
  detail::check_same_shape("mse_backward", "x", x, "target", target);
  return (x - target) * (S(2) * g / static_cast<S>(std::max<Index>(1, x.size())));
}

namespace detail {

inline constexpr Index loss_slice = 128;

/// Y = W X.
template <class S, Source W>
void multiply_into(Strided<S> y, const W& source, const Activation<S>& x, Compute compute) {
  if constexpr (std::is_same_v<S, float>) {
    packed_product(y, source, x, compute, false);
  } else {
    y = multiply(source, x, compute);
  }
}

/// Losses of a slice of logits; the logits become share · (softmax − onehot) if a gradient is wanted.
template <class S>
void cross_entropy_slice(Strided<S>& logits, const Index* counted, std::span<const std::int32_t> targets, S share, bool gradient,
                         Column<S>& losses) {
  const PhaseScope scope(Phase::loss);
  parallel_for(logits.cols(), [&](Index i) {
    S* column = logits.col(i).data();
    const Index target = targets[static_cast<std::size_t>(counted[i])];
    const Index n = logits.rows();
    const S logit = column[target], max = max_of(column, n);
    const SoftmaxSums<S> sums{max, exponential(column, max, n, column)};
    losses[counted[i]] = sums.negative_log_likelihood(logit);
    if (!gradient) return;
    scale(share / sums.sum, n, column);
    column[target] -= share;
  });
}

/// Columns tokens[0], tokens[1] … tokens[n - 1] of X.
template <class S>
Activation<S> gather_columns(const ActivationView<S>& x, const Index* tokens, Index n) {
  Activation<S> columns(x.rows(), n);
  for (Index i = 0; i < n; ++i) columns.col(i) = x.col(tokens[i]);
  return columns;
}

/// The mean of the losses, without a gradient yet.
template <class S>
LinearCrossEntropy<S> mean_loss(const Column<S>& losses, Index count) {
  const auto mean = mean_of(losses, count);
  LinearCrossEntropy<S> result;
  result.loss = mean.loss;
  result.count = mean.count;
  result.total = mean.total;
  return result;
}

}  // namespace detail

/// Cross-entropy of the logits W X, with its gradient in the same pass: dX = Wᵀ (softmax(W X) − onehot) / count.
///
/// W [vocabulary, dim] any source, X [dim, T]. Logits exist for 128 counted tokens at a time, never as [vocabulary, T]; ignored tokens cost
/// nothing. want_gradient asks for dX; dW of the mean is added into *dweight if given. Cost: 2 vocabulary dim FLOPs a counted token, twice
/// that with dX. Throws ShapeError, ValueError.
template <Source W, MatrixLike X, class S = ScalarOf<X>>
LinearCrossEntropy<S> linear_cross_entropy(const W& source, const X& input, std::span<const std::int32_t> targets,
                                           Compute compute = Compute::fp32, bool want_gradient = true,
                                           std::type_identity_t<Weight<S>>* dweight = nullptr) {
  const ActivationView<S> x(input);
  check<ShapeError>(source.cols() == x.rows(), "linear_cross_entropy", "source is [", source.rows(), ", ", source.cols(), "] but x is [",
                    x.rows(), ", ", x.cols(), "]; source must be [vocabulary, dim] and x [dim, tokens]");
  const auto counted = detail::counted_tokens("linear_cross_entropy", targets, source.rows(), x.cols());
  const auto count = static_cast<Index>(counted.size());
  const S share = count > 0 ? S(1) / static_cast<S>(count) : S(0);
  Column<S> losses = Column<S>::Zero(x.cols());
  Activation<S> dx;
  if (want_gradient) dx.setZero(x.rows(), x.cols());
  PagedArray<S> memory(static_cast<std::size_t>(source.rows() * std::min(count, detail::loss_slice)));
  for (Index begin = 0; begin < count; begin += detail::loss_slice) {
    const Index n = std::min(detail::loss_slice, count - begin);
    const Index* tokens = counted.data() + begin;
    const Activation<S> columns = detail::gather_columns<S>(x, tokens, n);
    detail::Strided<S> logits(memory.data(), source.rows(), n, Eigen::OuterStride<>(source.rows()));
    detail::multiply_into<S>(logits, source, columns, compute);  // [vocabulary, dim] · [dim, n]
    detail::cross_entropy_slice<S>(logits, tokens, targets, share, want_gradient || dweight != nullptr, losses);
    if (dweight) accumulate_outer(*dweight, logits, columns);  // [vocabulary, n] · [n, dim]
    if (!want_gradient) continue;
    const Activation<S> part = multiply_transposed(source, logits, compute);  // [dim, vocabulary] · [vocabulary, n]
    for (Index i = 0; i < n; ++i) dx.col(tokens[i]) = part.col(i);
  }
  auto result = detail::mean_loss(losses, count);
  result.dx = std::move(dx);
  return result;
}

#if defined(LOWRANK_COMPILED)
extern template Column<float> negative_log_likelihood(const Activation<float>&, std::span<const std::int32_t>);
extern template CrossEntropy<float> cross_entropy_forward(const Activation<float>&, std::span<const std::int32_t>);
extern template Activation<float> cross_entropy_backward(const Activation<float>&, std::span<const std::int32_t>, float);
extern template float mse_forward(const Activation<float>&, const ActivationView<float>&);
extern template Activation<float> mse_backward(const Activation<float>&, const ActivationView<float>&, float);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/loss.inl>
#endif
