#pragma once

/// MiSS "bat": W' = W + W D + D by blocks of r × r, a change that depends on the weight (Kang et al. 2024, as PEFT's init_weights = "bat").
///
/// D_i [r, r] belongs to the i-th block of rows: W'_ij = W_ij + W_ij D_i + D_i for each block j of columns.

#include <memory>
#include <utility>
#include <vector>

#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Δ_ij = W_ij D_i + D_i as a source: decoded from W's own windows. What it points at must outlive it.
template <class S>
class BatChange {
 public:
  BatChange(const WeightView& weight, const FactorView<S>& d) : weight_(weight), d_(d) {}

  Index rows() const { return weight_.rows(); }
  Index cols() const { return weight_.cols(); }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    const Index r = d_.cols, first = col / r * r, width = (col + length + r - 1) / r * r - first;
    std::vector<Scalar> w(static_cast<std::size_t>(count * width));
    weight_.decode(row, count, first, width, w.data(), width);
    const auto d = d_.matrix();
    for (Index i = 0; i < count; ++i) {
      const Index o = row + i, block = o / r * r;  // D_i's row o − block is row o of D
      for (Index j = 0; j < length; ++j) {
        const Index c = (col + j) % r;
        const Scalar* const own = w.data() + i * width + (col + j - c - first);
        Scalar sum = static_cast<Scalar>(d(o, c));
        for (Index k = 0; k < r; ++k) sum += own[k] * static_cast<Scalar>(d(block + k, c));
        out[i * stride + j] = sum;
      }
    }
  }

 private:
  WeightView weight_;
  FactorView<S> d_;
};

/// The numbers of one such update. A method (update/method.hpp).
template <class S = float>
struct MissBatWeights {
  using Scalar = S;

  Parameter<S> block;      ///< D [out, r], the D_i under each other; in files [out / r, r, r]
  WeightView weight = {};  ///< of the layer, as the last recorded pass saw it

  Plan<S> plan(const PlanRequest<S>& request) & {
    check<ValueError>(request.layer.weight.rows() > 0, "miss",
                      "the base's weight cannot be read, or is trained itself; \"bat\" needs a frozen one");
    if (request.is_recorded) weight = request.layer.weight;
    const auto change = std::make_shared<const BatChange<S>>(request.layer.weight, factor(block));
    Plan<S> plan;
    plan.delta = WeightView(*change);
    plan.trains_delta = block.needs_grad();
    plan.held = change;
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  /// dD_i = Σ_j (W_ij + 1)ᵀ dΔ_ij.
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.delta.size() == 0 || !block.needs_grad()) return;
    const Index r = block.cols();
    Weight<S> w(r, weight.cols());
    for (Index row = 0; row < block.rows(); row += r) {
      weight.decode(row, r, 0, w.cols(), w.data(), w.cols());
      auto d = block.gradient().middleRows(row, r);
      for (Index col = 0; col < w.cols(); col += r) {
        const auto change = gradients.delta.block(row, col, r, r);
        d += change;
        for (Index k = 0; k < r; ++k)
          for (Index o = 0; o < r; ++o) d.row(k) += w(o, col + k) * change.row(o);
      }
    }
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(block);
  }
  void set_trainable(bool trainable) { block.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: D = 0, so that the layer begins as its base. Throws ValueError where r does not divide both.
template <class S = float>
MissBatWeights<S> make_miss_bat(Index in, Index out, Index rank) {
  check<ValueError>(rank > 0 && in % rank == 0 && out % rank == 0, "miss", "r = ", rank, " for a weight [", out, ", ", in,
                    "]; for \"bat\" it must divide both");
  MissBatWeights<S> update;
  update.block.name = "miss_block";
  update.block.planes = out / rank;
  update.block.value.setZero(out, rank);
  return update;
}

}  // namespace lowrank::inline LOWRANK_ABI
