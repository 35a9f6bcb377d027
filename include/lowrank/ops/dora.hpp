#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/ops/lora.hpp>

/// DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"): the rows of V = W + s B A give the direction, a trained m the
/// length. W' = diag(m / n) V with n = ‖V_o‖ of each row, which is a constant in the backward pass (their section 4.3).

namespace lowrank::inline LOWRANK_ABI {

/// ‖W_o‖² of each row of any source [out, in]; gives [out]. Summed in double; W is decoded 16 rows at a time, never dense as a whole.
template <class S = float, Source W>
Vector<S> row_squares(const W& source) {
  constexpr Index strip = 16;
  Vector<S> squares(source.rows());
  parallel_ranges(source.rows(), strip, [&](Index begin, Index end) {
    Weight<S> rows(end - begin, source.cols());
    source.decode(begin, end - begin, 0, source.cols(), rows.data(), source.cols());
    squares.segment(begin, end - begin) = rows.template cast<double>().rowwise().squaredNorm().template cast<S>();
  });
  return squares;
}

/// n = ‖W_o + s B_o A‖ of each row, from ‖W_o‖² and P = W Aᵀ [out, r]; the product B A is never made:
///
///   n² = ‖W_o‖² + 2 s ⟨P_o, B_o⟩ + s² B_o (A Aᵀ) B_oᵀ.
///
/// Cost: 2 r (in + out) r FLOPs beside P. Throws ShapeError.
template <class S, MatrixLike P>
Vector<S> dora_norms(const Vector<S>& weight_squares, const LowRank<S>& update, const P& p) {
  const Index out = update.b.rows(), rank = update.b.cols();
  check<ShapeError>(weight_squares.size() == out && p.rows() == out && p.cols() == rank, "dora_norms", "‖W‖² is [", weight_squares.size(),
                    "], W Aᵀ is [", p.rows(), ", ", p.cols(), "], B is [", out, ", ", rank,
                    "]; they must be [out], [out, rank], [out, rank]");
  const Activation<S> gram = multiply(update.a_source(), Activation<S>(update.a.transpose()));  // A Aᵀ     [r, r]
  const Activation<S> bg = multiply(update.b_source(), gram);                                   // B A Aᵀ   [out, r]
  const double s = static_cast<double>(update.scale);
  Vector<S> norms(out);
  for (Index o = 0; o < out; ++o) {
    double sum = static_cast<double>(weight_squares[o]);
    for (Index j = 0; j < rank; ++j)
      sum += s * static_cast<double>(update.b(o, j)) * (2 * static_cast<double>(p(o, j)) + s * static_cast<double>(bg(o, j)));
    norms[o] = static_cast<S>(std::sqrt(std::max(0.0, sum)));
  }
  return norms;
}

/// m / n, the factor of each row. A row of zeros has no direction: its factor is 1, and what it multiplies is zero.
template <class S, MatrixLike M>
Vector<S> dora_gain(const M& magnitude, const Vector<S>& norms) {
  Vector<S> gain(norms.size());
  for (Index o = 0; o < norms.size(); ++o) gain[o] = norms[o] > 0 ? magnitude(o, 0) / norms[o] : S(1);
  return gain;
}

/// dP = (m / n) ∘ G and dm = Σ_t G ∘ P / n.
template <class S>
struct DoraGradients {
  Activation<S> dp;
  Vector<S> dm;
};

/// Y = (m / n) ∘ P by rows, P = V X [out, T], gain = m / n [out]; gives [out, T]. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> dora_forward(const X& p, const Vector<S>& gain) {
  check<ShapeError>(p.rows() == gain.size(), "dora_forward", "p is [", p.rows(), ", ", p.cols(), "] but m / n is [", gain.size(), "]");
  Activation<S> y(p.rows(), p.cols());
  parallel_ranges(p.cols(), 16, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) y.col(t) = gain.cwiseProduct(p.col(t));
  });
  return y;
}

namespace detail {

/// Σ_t G ∘ P of each row, and G becomes gain ∘ G; in parts of 64 tokens, whose sums are added in order.
template <class S>
Vector<S> scale_and_sum_rows(Activation<S>& g, const Activation<S>& p, const Vector<S>& gain) {
  constexpr Index grain = 64;
  Activation<S> sums = Activation<S>::Zero(g.rows(), ceil_div(g.cols(), grain));
  parallel_ranges(g.cols(), grain, [&](Index begin, Index end) {
    auto sum = sums.col(begin / grain);
    for (Index t = begin; t < end; ++t) {
      sum += g.col(t).cwiseProduct(p.col(t));
      g.col(t) = gain.cwiseProduct(g.col(t));
    }
  });
  return sums.rowwise().sum();
}

}  // namespace detail

/// Gradients of dora_forward for G = dL/dY [out, T]; n is a constant. Throws ShapeError.
template <class S>
DoraGradients<S> dora_backward(const Activation<S>& p, const Vector<S>& gain, const Vector<S>& norms, Activation<S> g) {
  detail::check_same_shape("dora_backward", "p", p, "g", g);
  Vector<S> dm = detail::scale_and_sum_rows(g, p, gain);
  for (Index o = 0; o < dm.size(); ++o) dm[o] = norms[o] > 0 ? dm[o] / norms[o] : S(0);
  return {std::move(g), std::move(dm)};
}

}  // namespace lowrank::inline LOWRANK_ABI
