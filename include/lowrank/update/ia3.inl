#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE bool is_feedforward(const UpdateSite& site, const MethodFields& given) {
  if (const auto found = site.shapes.find("ia3_l"); found != site.shapes.end())
    return found->second == std::vector<Index>{1, site.layer.in} && site.layer.in > 1;
  const auto list = field<std::vector<std::string>>(given, "feedforward_modules", {});
  const auto text = field<std::string>(given, "feedforward_modules", "");
  check<ValueError>(text.empty(), "ia3", "feedforward_modules is an expression, \"", text, "\"; give a list of names");
  return std::any_of(list.begin(), list.end(), [&](const std::string& name) { return std::string_view(site.path).ends_with(name); });
}

LOWRANK_INLINE AnyUpdate new_ia3(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  return make_ia3<float>(site.layer.in, site.layer.out, is_feedforward(site, given));
}

}  // namespace detail

LOWRANK_INLINE Method ia3_method() {
  static constexpr MethodTensor tensors[] = {{"ia3_l", Outputs::rows}};
  const auto fields = [] {
    return std::vector<Field>{{"exclude_modules"}, {"fan_in_fan_out", false}, {"feedforward_modules"}, {"init_ia3_weights", true, false},
                              {"modules_to_save"}, {"target_modules"}};
  };
  return {"IA3", "ia3", "", fields, tensors, 1, detail::new_ia3};
}

}  // namespace lowrank::inline LOWRANK_ABI
