#pragma once

/// AdaLoRA: W X + s B (E ∘ (A X)), a singular value decomposition whose least triplets are cut while it trains (Zhang et al. 2023,
/// "Adaptive budget allocation for parameter-efficient fine-tuning").

#include <utility>
#include <cstdint>

#include <lowrank/core/random.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/method.hpp>
#include <lowrank/update/entry.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct AdaloraOptions {
  Index rank = 12;   ///< "init_r", which the scale keeps when triplets are cut
  double alpha = 8;  ///< s = alpha / (init_r + 1e-5)
  double dropout = 0;
  std::uint64_t seed = 0, stream = 0;
};

/// The numbers of one AdaLoRA update. A method (update/method.hpp).
template <class S = float>
struct AdaloraWeights {
  using Scalar = S;

  Parameter<S> a, b, e;  ///< A [r, in], B [out, r], E [r, 1]
  S scale = S(1);
  S dropout = S(0);
  std::uint64_t dropout_seed = 0, dropout_stream = 0;

  Plan<S> plan(const PlanRequest<S>& request) {
    Plan<S> plan;
    plan.a = factor(a), plan.b = factor(b), plan.middle = factor(e);
    plan.scale = scale;
    plan.mask = request.next_mask(static_cast<double>(dropout), dropout_seed, dropout_stream);
    plan.trains_a = a.needs_grad(), plan.trains_b = b.needs_grad(), plan.trains_middle = e.needs_grad();
    return plan;
  }
  void add_gradients(const PlanGradients<S>& gradients) {
    add_gradient(a, gradients.a);
    add_gradient(b, gradients.b);
    add_gradient(e, gradients.middle);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a);
    visitor(b);
    visitor(e);
  }
  void set_trainable(bool trainable) { a.trainable = b.trainable = e.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: A and B from N(0, 0.02²), E = 0, so that the layer begins as its base. Throws ValueError.
template <class S = float>
AdaloraWeights<S> make_adalora(Index in, Index out, const AdaloraOptions& options = {}) {
  check<ValueError>(options.rank > 0, "adalora", "rank = ", options.rank, "; it must be at least 1");
  AdaloraWeights<S> update;
  update.a.name = "lora_A", update.b.name = "lora_B", update.e.name = "lora_E";
  update.a.value.resize(options.rank, in);
  update.b.value.resize(out, options.rank);
  fill_normal(update.a.value, 0.02, Random(options.seed, 2 * options.stream));
  fill_normal(update.b.value, 0.02, Random(options.seed, 2 * options.stream + 1));
  update.e.value.setZero(options.rank, 1);
  const float divisor = static_cast<float>(options.rank) + 1e-5f;
  update.scale = static_cast<S>((options.alpha > 0 ? options.alpha : static_cast<double>(options.rank)) / static_cast<double>(divisor));
  update.dropout = static_cast<S>(options.dropout);
  update.dropout_seed = options.seed ^ (options.stream * 0x9E3779B97F4A7C15u);
  return update;
}

/// AdaLoRA as files know it: the rank is init_r.
inline Method adalora_method() {
  static constexpr std::string_view names[] = {"lora_A", "lora_B", "lora_E"};
  const auto fields = [] {
    std::vector<Field> all{{"r", 8.0, false},
                           {"init_r", 12.0},
                           {"lora_alpha", 8.0},
                           {"lora_dropout", 0.0},
                           {"bias", "none"},
                           {"fan_in_fan_out", false},
                           {"lora_bias", false},
                           {"use_rslora", false, false},
                           {"total_step", 1000.0, false},
                           {"alpha_pattern"},
                           {"rank_pattern"},
                           {"loftq_config", {}, false},
                           {"exclude_modules"},
                           {"layers_pattern"},
                           {"layers_to_transform"},
                           {"modules_to_save"},
                           {"target_modules"}};
    for (const auto& [key, value] :
         {std::pair("target_r", 8.0), std::pair("tinit", 0.0), std::pair("tfinal", 0.0), std::pair("deltaT", 1.0), std::pair("beta1", 0.85),
          std::pair("beta2", 0.85), std::pair("orth_reg_weight", 0.5)})
      all.push_back({key, value, false});
    all.push_back({"init_lora_weights", true, false});
    return all;
  };
  const auto make = [](const UpdateSite& site, const MethodFields& given, const SharedTensors&) -> AnyUpdate {
    return make_adalora<float>(site.layer.in, site.layer.out,
                               {.rank = static_cast<Index>(field<double>(given, "init_r", 12)),
                                .alpha = field<double>(given, "lora_alpha", 8),
                                .dropout = field<double>(given, "lora_dropout", 0),
                                .seed = site.seed,
                                .stream = site.stream});
  };
  return {"ADALORA", "adalora", "", fields, names, 3, {}, make};
}

}  // namespace lowrank::inline LOWRANK_ABI
