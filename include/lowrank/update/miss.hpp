#pragma once

/// MiSS: W X + Dᵀ (S X) + b, where S X sums the inputs that are r apart and D [r, out] is trained (Kang et al. 2024, "MiSS: Revisiting the
/// trade-off in LoRA with an efficient shard-sharing structure").

#include <memory>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The numbers of one MiSS update. A method (update/method.hpp).
template <class S = float>
struct MissWeights {
  using Scalar = S;

  Parameter<S> block;                    ///< D [r, out]; or [r, m], repeated along out ("mini")
  std::shared_ptr<const Weight<S>> sum;  ///< S [r, in]: ones where the column's number is the row's modulo r
  Index out = 0;
  InputDropout<S> dropout = {};

  Plan<S> plan(const PlanRequest<S>& request) & {
    const auto b = std::make_shared<Weight<S>>(out, block.rows());
    for (Index o = 0; o < out; ++o) b->row(o) = block.value.col(o % block.cols()).transpose();  // Dᵀ
    Plan<S> plan;
    plan.a = {sum->data(), sum->rows(), sum->cols()};
    plan.b = {b->data(), b->rows(), b->cols()};
    plan.mask = request.next_mask(dropout);
    plan.trains_b = block.needs_grad();
    plan.held = b;
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.b.size() == 0 || !block.needs_grad()) return;
    for (Index o = 0; o < out; ++o) block.gradient().col(o % block.cols()) += gradients.b.row(o).transpose();
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(block);
    visit_dropout(visitor, dropout);
  }
  void set_trainable(bool trainable) { block.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: D = 0, so that the layer begins as its base. `mini` columns of D, which repeat along out; 0: all.
/// Throws ValueError.
template <class S = float>
MissWeights<S> make_miss(Index in, Index out, Index rank, Index mini = 0) {
  check<ValueError>(rank > 0 && rank <= in, "miss", "rank = ", rank, " for in = ", in, "; it must lie in [1, in]");
  check<ValueError>(mini >= 0 && (mini == 0 || out % mini == 0), "miss", "mini_r = ", mini, " must divide out = ", out);
  element_count("miss", "the sum [rank, in]", {rank, in}), element_count("miss", "the block [rank, out]", {rank, out});
  MissWeights<S> update;
  Weight<S> sum = Weight<S>::Zero(rank, in);
  for (Index i = 0; i < in; ++i) sum(i % rank, i) = S(1);
  update.sum = std::make_shared<const Weight<S>>(std::move(sum));
  update.out = out;
  update.block.name = "miss_block";
  update.block.value.setZero(rank, mini == 0 ? out : mini);
  return update;
}

/// MiSS as files know it. `init_weights` stays the mode: "bat" (update/miss_bat.hpp), "mini", or a truth.
Method miss_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/miss.inl>
#endif
