#pragma once

/// VeRA: W X + λ_b ∘ (B (λ_d ∘ (A X))) with A and B frozen, random and shared by all layers; λ_d and λ_b are trained (Kopiczko et al. 2023,
/// "VeRA: Vector-based random matrix adaptation").

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The matrices that all layers of an adapter share: A [r, largest in], B [largest out, r]. A layer uses the first columns and rows.
template <class S>
struct VeraProjections {
  std::shared_ptr<const Weight<S>> a, b;
};

/// A and B as PyTorch's generator draws them for PEFT: Kaiming uniform with the seed `projection_prng_key`, all of A, then all of B.
///
/// A number takes the low 24 bits of one word of MT19937 and lies in ±√6/√fan, fan the columns of its matrix. Throws ValueError.
template <class S = float>
VeraProjections<S> draw_vera_projections(Index rank, Index largest_in, Index largest_out, std::uint32_t key) {
  check<ValueError>(rank > 0 && largest_in > 0 && largest_out > 0, "vera", "rank = ", rank, ", in = ", largest_in, ", out = ", largest_out,
                    "; all must be positive");
  element_count("vera", "A [rank, in]", {rank, largest_in}), element_count("vera", "B [out, rank]", {largest_out, rank});
  std::mt19937 words(key);
  const auto drawn = [&](Index rows, Index cols) {
    Weight<S> m(rows, cols);
    const double bound = std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(m.cols())));
    const float low = static_cast<float>(-bound), width = static_cast<float>(bound) - low;
    for (Index i = 0; i < m.size(); ++i)
      m.data()[i] = static_cast<S>(std::fma(static_cast<float>(words() & 0xFFFFFFu) * 0x1p-24f, width, low));
    return std::make_shared<const Weight<S>>(std::move(m));
  };
  auto a = drawn(rank, largest_in);
  return {std::move(a), drawn(largest_out, rank)};
}

/// A fresh VeRA update.
struct VeraOptions {
  double d_initial = 0.1;  ///< what λ_d begins as
  double dropout = 0;      ///< on the input of the update alone, while a tape records
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one VeRA update. A method (update/method.hpp).
template <class S = float>
struct VeraWeights {
  using Scalar = S;

  VeraProjections<S> shared;        ///< frozen
  Index in = 0;                     ///< columns of A that the layer uses
  Parameter<S> lambda_d, lambda_b;  ///< [r], [out]
  InputDropout<S> dropout = {};

  Plan<S> plan(const PlanRequest<S>& request) & {
    const auto scaled = std::make_shared<Weight<S>>(lambda_b.value.col(0).asDiagonal() * rows_of_b());  // diag(λ_b) B
    Plan<S> plan;
    plan.a = {.data = shared.a->data(), .rows = shared.a->rows(), .cols = in, .stride = shared.a->cols()};
    plan.b = {scaled->data(), scaled->rows(), scaled->cols()};
    plan.middle = factor(lambda_d);
    plan.mask = request.next_mask(dropout);
    plan.trains_b = lambda_b.needs_grad(), plan.trains_middle = lambda_d.needs_grad();
    plan.held = scaled;
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    add_gradient(lambda_d, gradients.middle);
    if (gradients.b.size() > 0) add_gradient(lambda_b, Column<S>(gradients.b.cwiseProduct(rows_of_b()).rowwise().sum()));
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(lambda_d);
    visitor(lambda_b);
    visit_dropout(visitor, dropout);
  }
  void set_trainable(bool trainable) { lambda_d.trainable = lambda_b.trainable = trainable; }

 private:
  auto rows_of_b() const { return shared.b->topRows(lambda_b.rows()); }
};

/// A fresh update of a weight [out, in]: λ_b = 0, so that the layer begins as its base. Throws ShapeError where the projections are
/// smaller.
template <class S = float>
VeraWeights<S> make_vera(Index in, Index out, const VeraProjections<S>& shared, const VeraOptions& options = {}) {
  const Weight<S>&a = *shared.a, &b = *shared.b;
  element_count("vera", "the weight [out, in]", {out, in});
  check<ShapeError>(a.cols() >= in && b.rows() >= out && a.rows() == b.cols(), "vera", "A is [", a.rows(), ", ", a.cols(), "], B is [",
                    b.rows(), ", ", b.cols(), "] but the layer is [", out, ", ", in,
                    "]; A must be [rank, at least in] and B [at least out, rank]");
  VeraWeights<S> update;
  update.shared = shared, update.in = in;
  update.lambda_d.name = "vera_lambda_d", update.lambda_b.name = "vera_lambda_b";
  update.lambda_d.is_vector = update.lambda_b.is_vector = true;
  update.lambda_d.value.setConstant(a.rows(), 1, static_cast<S>(options.d_initial));
  update.lambda_b.value.setZero(out, 1);
  update.dropout = InputDropout<S>::of_layer(options.dropout, options.seed, options.stream);
  return update;
}

/// VeRA as files know it: two vectors a module, and the projections once, or drawn from their key.
Method vera_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/vera.inl>
#endif
