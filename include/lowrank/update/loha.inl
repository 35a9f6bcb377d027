#pragma once

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE AnyUpdate new_loha(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  return make_loha<float>(site.layer.in, site.layer.out,
                          {.rank = site.size("hada_w1_a", 1, count_field(given, "r", 8)),
                           .alpha = field<double>(given, "alpha", 8),
                           .seed = site.seed,
                           .stream = site.stream});
}

}  // namespace detail

LOWRANK_INLINE Method loha_method() {
  static constexpr MethodTensor tensors[] = {{"hada_w1_a", Outputs::rows}, {"hada_w1_b"}, {"hada_w2_a", Outputs::rows}, {"hada_w2_b"}};
  const auto fields = [] {
    return with_module_choices({{"r", 8.0},
                                {"alpha", 8.0},
                                {"init_weights", true, false},
                                {"module_dropout", 0.0, false},
                                {"rank_dropout", 0.0, false},
                                {"use_effective_conv2d", false, false},
                                {"alpha_pattern"},
                                {"rank_pattern"}});
  };
  return {"LOHA", "loha", "", fields, tensors, 4, detail::new_loha};
}

}  // namespace lowrank::inline LOWRANK_ABI
