#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/error.hpp>
#include <lowrank/kernels/target/elementwise.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An Eigen matrix, map, block or expression of float or double.
template <class Candidate>
concept MatrixLike = std::is_base_of_v<Eigen::MatrixBase<Candidate>, Candidate> &&
    (std::is_same_v<typename Candidate::Scalar, float> || std::is_same_v<typename Candidate::Scalar, double>);

/// What its numbers are: float or double.
template <MatrixLike X>
using ScalarOf = typename X::Scalar;

/// Read-only windows for arguments: matrices, maps and column blocks are seen in place, any other expression is evaluated once. They never
/// deduce a scalar: an operation's first matrix fixes S, the other arguments convert.
template <class S>
using ActivationView = std::type_identity_t<Eigen::Ref<const Activation<S>>>;
/// The same of a vector.
template <class S>
using VectorView = std::type_identity_t<Eigen::Ref<const Column<S>>>;

/// Writable windows, for gradients that accumulate.
template <class S>
using WeightRef = std::type_identity_t<Eigen::Ref<Weight<S>>>;
/// The same of an activation.
template <class S>
using ActivationRef = std::type_identity_t<Eigen::Ref<Activation<S>>>;

namespace detail {
/// Numbers of which bfloat16 has kept the upper halves.
void widen_bfloat16(const std::uint16_t* bits, Index n, float* out);
}  // namespace detail

/// An activation [rows, T] that is read token by token: numbers, or what bfloat16 has left of them, which are widened where they are
/// needed. Whoever holds them must outlive it.
template <class S>
class Tokens {
 public:
  Tokens(const ActivationView<S>& x) : numbers_(x.data()), rows_(x.rows()), cols_(x.cols()), stride_(x.outerStride()) {}
  /// Of the upper halves of floats, token after token.
  Tokens(const std::uint16_t* bits, Index rows, Index cols) : bits_(bits), rows_(rows), cols_(cols), stride_(rows) {}

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  /// Token t; in `room`, which holds rows() numbers, if it must be widened.
  const S* token(Index t, S* room) const {
    if (bits_ == nullptr) return numbers_ + t * stride_;
    if constexpr (std::is_same_v<S, float>) detail::widen_bfloat16(bits_ + t * stride_, rows_, room);
    return room;
  }

 private:
  const S* numbers_ = nullptr;
  const std::uint16_t* bits_ = nullptr;
  Index rows_, cols_, stride_;
};

namespace detail {

/// Throws ShapeError unless a and b have the same shape.
template <class A, class B>
void check_same_shape(const char* operation, const char* a_name, const A& a, const char* b_name, const B& b) {
  check<ShapeError>(a.rows() == b.rows() && a.cols() == b.cols(), operation, a_name, " is [", a.rows(), ", ", a.cols(), "] but ", b_name,
                    " is [", b.rows(), ", ", b.cols(), "]; both must have the same shape [rows, tokens]");
}

/// Calls body(t) for each token of [rows, tokens]; a piece holds about 16384 numbers, whatever the thread count.
template <class Body>
void for_each_token(Index rows, Index tokens, const Body& body) {
  const Index grain = std::max<Index>(1, 16384 / std::max<Index>(1, rows));
  parallel_ranges(tokens, grain, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) body(t);
  });
}

/// The processor's element-wise loops for float; double, which checks gradients, is written out with Eigen.
const kernels::Elementwise& elementwise();

/// n numbers as an Eigen array, for vectorized element-wise mathematics.
template <class S>
auto array(const S* data, Index n) {
  return Eigen::Map<const Eigen::Array<S, Dynamic, 1>>(data, n);
}
template <class S>
auto array(S* data, Index n) {
  return Eigen::Map<Eigen::Array<S, Dynamic, 1>>(data, n);
}

/// Σ f(i), i < n, in eight interleaved sums: vectorizes, and the order never depends on an address.
template <class S, class Term>
S sum_of(Index n, const Term& term) {
  S lanes[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8) {
    for (Index lane = 0; lane < 8; ++lane) lanes[lane] += term(i + lane);
  }
  for (Index lane = 0; i < n; ++i, ++lane) lanes[lane] += term(i);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// max(x), n > 0.
template <class S>
S max_of(const S* x, Index n) {
  if constexpr (std::is_same_v<S, float>)
    return elementwise().largest(x, n);
  else
    return array(x, n).maxCoeff();
}

/// out = e^(x − shift), which may be x; returns its sum.
template <class S>
S exponential(const S* x, S shift, Index n, S* out) {
  if constexpr (std::is_same_v<S, float>) {
    return elementwise().exponential(x, shift, n, out);
  } else {
    array(out, n) = (array(x, n) - shift).exp();
    return sum_of<S>(n, [out](Index i) { return out[i]; });
  }
}

/// x ← factor x.
template <class S>
void scale(S factor, Index n, S* x) {
  if constexpr (std::is_same_v<S, float>)
    elementwise().scale(factor, n, x);
  else
    array(x, n) *= factor;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/view.inl>
#endif
