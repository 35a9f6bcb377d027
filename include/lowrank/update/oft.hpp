#pragma once

/// OFT: W R X + b with a rotation R of blocks of the input, each Cayley's transform of a trained skew-symmetric matrix (Qiu et al. 2023,
/// "Controlling text-to-image diffusion by orthogonal finetuning").
///
/// As PEFT applies it: the tokens of block k become R_kᵀ X_k, with R = (1 − Q)(1 + Q)⁻¹; or by Neumann's series of `terms` terms
/// R = 1 + 2 Q + … + 2 Q^(terms − 2) + Q^(terms − 1), which approximates (1 + Q)(1 − Q)⁻¹, the rotation the other way.

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include <lowrank/core/shape.hpp>
#include <lowrank/product/dense.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X_k ↦ R_kᵀ X_k for blocks of rows; one R stands for all.
template <class S>
class BlockRotation : public InputMap<S> {
 public:
  explicit BlockRotation(std::vector<Activation<S>> blocks) : blocks_(std::move(blocks)) {}
  Activation<S> operator()(const ActivationView<S>& x) const override {
    return by_blocks(x, [](const Activation<S>& r, const auto& part) { return transposed_times<S>(r, part); });
  }
  Activation<S> transposed(const ActivationView<S>& g) const override {
    return by_blocks(g, [](const Activation<S>& r, const auto& part) { return times<S>(r, part); });
  }

 private:
  template <class Turn>
  Activation<S> by_blocks(const ActivationView<S>& x, const Turn& turn) const {
    const Index size = blocks_.front().rows();
    Activation<S> y(x.rows(), x.cols());
    for (Index row = 0; row < x.rows(); row += size)
      y.middleRows(row, size) = turn(blocks_[static_cast<std::size_t>(row / size) % blocks_.size()], x.middleRows(row, size));
    return y;
  }
  std::vector<Activation<S>> blocks_;
};

/// A fresh OFT update.
struct OftOptions {
  Index block_size = 32;
  Index terms = 0;         ///< of Neumann's series; 0: Cayley's transform itself
  bool is_shared = false;  ///< one rotation for all blocks
  double eps = 0;          ///< above 0 the rotations stay small: ‖Q‖ ≤ eps / √(number of Q), "constrained OFT"
};

namespace detail {

/// (1 + Q)⁻¹ of a skew-symmetric Q, by Gauss and Jordan; 1 + Q is regular, and its symmetric part 1 keeps every pivot at least 1.
template <class S>
Activation<S> inverse_of_one_plus(const Activation<S>& q) {
  const Index n = q.rows();
  Activation<S> left = Activation<S>::Identity(n, n) + q, inverse = Activation<S>::Identity(n, n);
  for (Index k = 0; k < n; ++k) {
    const S pivot = left(k, k);
    left.row(k) /= pivot, inverse.row(k) /= pivot;
    for (Index i = 0; i < n; ++i) {
      if (i == k) continue;
      const S factor = left(i, k);
      left.row(i) -= factor * left.row(k), inverse.row(i) -= factor * inverse.row(k);
    }
  }
  return inverse;
}

/// c_p of R = Σ c_p Qᵖ, as PEFT sums the series: 3 and 4 terms are the same.
template <class S>
std::vector<S> neumann_coefficients(Index terms) {
  std::vector<S> c{S(1)};
  if (terms >= 2) c.push_back(S(2));
  if (terms == 3 || terms == 4) c.insert(c.end(), {S(2), S(1)});
  for (Index p = 2; terms >= 5 && p < terms; ++p) c.push_back(p + 1 < terms ? S(2) : S(1));
  return c;
}

}  // namespace detail

/// The numbers of one OFT update. A method (update/method.hpp).
template <class S = float>
struct OftWeights {
  using Scalar = S;

  Parameter<S> r;  ///< [blocks or 1, size (size − 1) / 2]: the strictly upper triangles of Q, row by row
  Index block_size = 0, terms = 0;
  S eps = S(0);

  /// Where rotations are to stay small, a recorded pass projects the numbers first, as PEFT does.
  Plan<S> plan(const PlanRequest<S>& request) & {
    if (request.is_recorded)
      for (Index k = 0; k < r.rows(); ++k) r.value.row(k) *= shrinkage(k);
    std::vector<Activation<S>> blocks;
    for (Index k = 0; k < r.rows(); ++k) blocks.push_back(rotation(skew(k)));
    Plan<S> plan;
    plan.input_map = std::make_shared<const BlockRotation<S>>(std::move(blocks));
    plan.trains_input_map = r.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  /// dR_k = X_k Vᵀ with V = dL/d(R_kᵀ X_k), then through Cayley's transform or the series, then dq_ij = dQ_ij − dQ_ji.
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.mapped.size() == 0 || !r.needs_grad()) return;
    for (Index k = 0; k < r.rows(); ++k) {
      Activation<S> dr = Activation<S>::Zero(block_size, block_size);
      for (Index row = k * block_size; row < gradients.x.rows(); row += r.rows() * block_size)  // of a shared rotation all blocks
        dr += times_transposed<S>(gradients.x.middleRows(row, block_size), gradients.mapped.middleRows(row, block_size));
      const Activation<S> dq = rotation_backward(skew(k), dr);
      Index at = 0;
      for (Index i = 0; i < block_size; ++i)
        for (Index j = i + 1; j < block_size; ++j) r.gradient()(k, at++) += dq(i, j) - dq(j, i);
    }
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(r);
  }
  void set_trainable(bool trainable) { r.trainable = trainable; }

 private:
  /// What brings ‖Q‖ = √2 ‖q‖ of a block back to its bound.
  S shrinkage(Index k) const {
    const S norm = std::sqrt(S(2)) * r.value.row(k).norm(), bound = eps / std::sqrt(static_cast<S>(r.rows()));
    return eps > 0 && norm > bound ? bound / norm : S(1);
  }
  Activation<S> skew(Index k) const {
    Activation<S> q = Activation<S>::Zero(block_size, block_size);
    const S factor = shrinkage(k);
    Index at = 0;
    for (Index i = 0; i < block_size; ++i)
      for (Index j = i + 1; j < block_size; ++j, ++at) q(i, j) = factor * r.value(k, at), q(j, i) = -q(i, j);
    return q;
  }
  Activation<S> rotation(const Activation<S>& q) const {
    const Activation<S> one = Activation<S>::Identity(block_size, block_size);
    if (terms == 0) return times<S>(one - q, detail::inverse_of_one_plus<S>(q));
    Activation<S> power = one, sum = Activation<S>::Zero(block_size, block_size);
    for (const S c : detail::neumann_coefficients<S>(terms)) sum += c * power, power = times<S>(power, q);
    return sum;
  }
  /// With K = (1 + Q)⁻¹: dQ = −(1 + R)ᵀ dR Kᵀ; of a power Qᵖ: Σ (Qᵃ)ᵀ dR (Q^(p − 1 − a))ᵀ.
  Activation<S> rotation_backward(const Activation<S>& q, const Activation<S>& dr) const {
    const Activation<S> one = Activation<S>::Identity(block_size, block_size);
    if (terms == 0) return -transposed_times<S>(one + rotation(q), times_transposed<S>(dr, detail::inverse_of_one_plus<S>(q)));
    const auto c = detail::neumann_coefficients<S>(terms);
    std::vector<Activation<S>> powers{one};
    while (powers.size() < c.size()) powers.push_back(times<S>(powers.back(), q));
    Activation<S> dq = Activation<S>::Zero(block_size, block_size);
    for (std::size_t p = 1; p < c.size(); ++p)
      for (std::size_t a = 0; a < p; ++a) dq += c[p] * transposed_times<S>(powers[a], times_transposed<S>(dr, powers[p - 1 - a]));
    return dq;
  }
};

/// A fresh update of a layer with `in` inputs: no rotation, so that the layer begins as its base. Throws ValueError where blocks do not
/// divide the input.
template <class S = float>
OftWeights<S> make_oft(Index in, const OftOptions& options = {}) {
  const Index size = options.block_size;
  check<ValueError>(size > 1 && in % size == 0 && options.terms >= 0, "oft", "blocks of ", size, " for in = ", in, ", ", options.terms,
                    " terms; the block size must divide in, and be at least 2");
  check<ValueError>(options.eps >= 0 && is_finite(options.eps), "oft", "eps = ", options.eps, "; it must not be negative");
  element_count("oft", "oft_R [in / size, size, size]", {in, size});
  OftWeights<S> update;
  update.block_size = size, update.terms = options.terms, update.eps = static_cast<S>(options.eps);
  update.r.name = "oft_R.weight";
  update.r.value.setZero(options.is_shared ? 1 : in / size, size * (size - 1) / 2);
  return update;
}

/// OFT as files know it: `oft_block_size`, or `r` blocks; where that does not divide the input, the nearest that does, as in PEFT.
/// `module_dropout` has no effect, there as here.
Method oft_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/oft.inl>
#endif
