#pragma once

#include <vector>

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE AnyUpdate new_adalora(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index rank = count_field(given, "init_r", 12);
  const Index kept = count_field(given, "rank_pattern", rank);
  check<ValueError>(kept == rank || site.has("lora_E"), "adalora", site.path,
                    " has a rank_pattern, which says what training has cut; a fresh update has init_r");
  return make_adalora<float>(site.layer.in, site.layer.out,
                             {.rank = rank,
                              .kept = site.size("lora_E", 0, kept),
                              .alpha = field<double>(given, "lora_alpha", 8),
                              .dropout = field<double>(given, "lora_dropout", 0),
                              .orthogonality = field<double>(given, "orth_reg_weight", 0.5),
                              .seed = site.seed,
                              .stream = site.stream});
}

LOWRANK_INLINE std::vector<Field> adalora_fields() {
  return with_module_choices({{"r", 8.0, false},
                              {"init_r", 12.0},
                              {"target_r", 8.0, false},
                              {"lora_alpha", 8.0},
                              {"lora_dropout", 0.0},
                              {"bias", "none"},
                              {"fan_in_fan_out", false},
                              {"init_lora_weights", true, false},
                              {"lora_bias", false},
                              {"use_rslora", false, false},
                              {"tinit", 0.0, false},
                              {"tfinal", 0.0, false},
                              {"deltaT", 1.0, false},
                              {"beta1", 0.85, false},
                              {"beta2", 0.85, false},
                              {"orth_reg_weight", 0.5, false},
                              {"total_step", 1000.0, false},
                              {"alpha_pattern"},
                              {"rank_pattern"},
                              {"loftq_config", {}, false}});
}

}  // namespace detail

LOWRANK_INLINE Method adalora_method() {
  static constexpr MethodTensor tensors[] = {{"lora_A"}, {"lora_B", Outputs::rows}, {"lora_E"}};
  return {"ADALORA", "adalora", "", detail::adalora_fields, tensors, 3, detail::new_adalora};
}

}  // namespace lowrank::inline LOWRANK_ABI
