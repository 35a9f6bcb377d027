#pragma once

/// VeRA: W X + λ_b ∘ (B (λ_d ∘ (A X))) with A and B frozen, random and shared by all layers; λ_d and λ_b are trained (Kopiczko et al. 2023,
/// "VeRA: Vector-based random matrix adaptation").

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>

#include <lowrank/update/any_update.hpp>
#include <lowrank/update/method.hpp>
#include <lowrank/update/entry.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The matrices that all layers of an adapter share: A [r, largest in], B [largest out, r]. A layer uses the first columns and rows.
template <class S>
struct VeraProjections {
  Weight<S> a, b;
};

/// A and B as PyTorch's generator draws them for PEFT: Kaiming uniform with the seed `projection_prng_key`, all of A, then all of B.
///
/// A number takes the low 24 bits of one word of MT19937 and lies in ±√6/√fan, fan the columns of its matrix. Throws ValueError.
template <class S = float>
VeraProjections<S> draw_vera_projections(Index rank, Index largest_in, Index largest_out, std::uint32_t key) {
  check<ValueError>(rank > 0 && largest_in > 0 && largest_out > 0, "vera", "rank = ", rank, ", in = ", largest_in, ", out = ", largest_out,
                    "; all must be positive");
  std::mt19937 words(key);
  const auto fill = [&](Weight<S>& m) {
    const double bound = std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(m.cols())));
    const float low = static_cast<float>(-bound), width = static_cast<float>(bound) - low;
    for (Index i = 0; i < m.size(); ++i)
      m.data()[i] = static_cast<S>(std::fma(static_cast<float>(words() & 0xFFFFFFu) * 0x1p-24f, width, low));
  };
  VeraProjections<S> drawn{Weight<S>(rank, largest_in), Weight<S>(largest_out, rank)};
  fill(drawn.a);
  fill(drawn.b);
  return drawn;
}

struct VeraOptions {
  double d_initial = 0.1;  ///< what λ_d begins as
  double dropout = 0;      ///< on the input of the update alone, while a tape records
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one VeRA update. A method (update/method.hpp).
template <class S = float>
struct VeraWeights {
  using Scalar = S;

  std::shared_ptr<const Weight<S>> a, b;  ///< A [r, in], B [out, r], frozen
  Parameter<S> lambda_d, lambda_b;        ///< [r], [out]
  S dropout = S(0);
  std::uint64_t dropout_seed = 0, dropout_stream = 0;

  Plan<S> plan(const PlanRequest<S>& request) {
    const auto scaled = std::make_shared<Weight<S>>(lambda_b.value.col(0).asDiagonal() * *b);  // diag(λ_b) B
    Plan<S> plan;
    plan.a = {a->data(), a->rows(), a->cols()};
    plan.b = {scaled->data(), scaled->rows(), scaled->cols()};
    plan.middle = factor(lambda_d);
    plan.mask = request.next_mask(static_cast<double>(dropout), dropout_seed, dropout_stream);
    plan.trains_b = lambda_b.needs_grad(), plan.trains_middle = lambda_d.needs_grad();
    plan.held = scaled;
    return plan;
  }
  void add_gradients(const PlanGradients<S>& gradients) {
    add_gradient(lambda_d, gradients.middle);
    if (gradients.b.size() > 0) add_gradient(lambda_b, Vector<S>(gradients.b.cwiseProduct(*b).rowwise().sum()));
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(lambda_d);
    visitor(lambda_b);
  }
  void set_trainable(bool trainable) { lambda_d.trainable = lambda_b.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: λ_b = 0, so that the layer begins as its base. Throws ShapeError where the projections are
/// smaller.
template <class S = float>
VeraWeights<S> make_vera(Index in, Index out, const VeraProjections<S>& shared, const VeraOptions& options = {}) {
  check<ShapeError>(shared.a.cols() >= in && shared.b.rows() >= out && shared.a.rows() == shared.b.cols(), "vera", "A is [",
                    shared.a.rows(), ", ", shared.a.cols(), "], B is [", shared.b.rows(), ", ", shared.b.cols(), "] but the layer is [",
                    out, ", ", in, "]; A must be [rank, at least in] and B [at least out, rank]");
  VeraWeights<S> update;
  update.a = std::make_shared<const Weight<S>>(shared.a.leftCols(in));
  update.b = std::make_shared<const Weight<S>>(shared.b.topRows(out));
  update.lambda_d.name = "vera_lambda_d", update.lambda_b.name = "vera_lambda_b";
  update.lambda_d.is_vector = update.lambda_b.is_vector = true;
  update.lambda_d.value.setConstant(shared.a.rows(), 1, static_cast<S>(options.d_initial));
  update.lambda_b.value.setZero(out, 1);
  update.dropout = static_cast<S>(options.dropout);
  update.dropout_seed = options.seed ^ (options.stream * 0x9E3779B97F4A7C15u);
  return update;
}

/// VeRA as files know it: two vectors a module, and the projections once, or drawn from their key.
inline Method vera_method() {
  static constexpr std::string_view names[] = {"vera_lambda_d", "vera_lambda_b"}, shared[] = {"vera_A", "vera_B"};
  const auto fields = [] {
    return std::vector<Field>{{"r", 256.0},
                              {"bias", "none"},
                              {"d_initial", 0.1, false},
                              {"fan_in_fan_out", false},
                              {"init_weights", true, false},
                              {"projection_prng_key", 0.0},
                              {"save_projection", true, false},
                              {"vera_dropout", 0.0},
                              {"layers_pattern"},
                              {"layers_to_transform"},
                              {"modules_to_save"},
                              {"target_modules"}};
  };
  const auto make = [](const UpdateSite& site, const MethodFields& given, const SharedTensors& tensors) -> AnyUpdate {
    const auto a = tensors.find("vera_A"), b = tensors.find("vera_B");
    check<ValueError>(a != tensors.end() && b != tensors.end(), "vera",
                      "the projections vera_A and vera_B are missing; is the adapter whole?");
    return make_vera<float>(site.layer.in, site.layer.out, {*a->second, *b->second},
                            {.d_initial = field<double>(given, "d_initial", 0.1),
                             .dropout = field<double>(given, "vera_dropout", 0),
                             .seed = site.seed,
                             .stream = site.stream});
  };
  const auto share = [](std::span<const UpdateSite> sites, const MethodFields& given, SharedTensors& tensors) {
    Index in = 0, out = 0;
    for (const UpdateSite& site : sites) in = std::max(in, site.layer.in), out = std::max(out, site.layer.out);
    auto drawn = draw_vera_projections<float>(static_cast<Index>(field<double>(given, "r", 256)), in, out,
                                              static_cast<std::uint32_t>(field<double>(given, "projection_prng_key", 0)));
    tensors["vera_A"] = std::make_shared<const Weight<float>>(std::move(drawn.a));
    tensors["vera_B"] = std::make_shared<const Weight<float>>(std::move(drawn.b));
  };
  return {"VERA", "vera", "", fields, names, 2, shared, make, share};
}

}  // namespace lowrank::inline LOWRANK_ABI
