#pragma once

#include <string>

#include <lowrank/update/any_update.hpp>
#include <lowrank/update/miss_bat.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE AnyUpdate new_miss(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index in = site.layer.in, out = site.layer.out, rank = count_field(given, "r", 64);
  const std::string mode = field<std::string>(given, "init_weights", "");
  check<ValueError>(mode.empty() || mode == "mini" || mode == "bat", "miss", "init_weights is \"", mode,
                    "\"; true, false, \"mini\" and \"bat\" are known");
  site.size("miss_block", mode == "bat" ? 1 : 0, rank);
  const double dropout = field<double>(given, "miss_dropout", 0);
  if (mode == "bat") {
    check<ValueError>(dropout == 0, "miss", "miss_dropout is ", dropout, ", which \"bat\" does not apply; give 0");
    return make_miss_bat<float>(in, out, rank);
  }
  auto update = make_miss<float>(in, out, rank, mode == "mini" ? count_field(given, "mini_r", 1) : 0);
  update.dropout = InputDropout<float>::of_layer(dropout, site.seed, site.stream);
  return update;
}

}  // namespace detail

LOWRANK_INLINE Method miss_method() {
  static constexpr MethodTensor tensors[] = {{"miss_block", Outputs::columns}};
  const auto fields = [] {
    return with_module_choices({{"r", 64.0}, {"bias", "none"}, {"init_weights", true}, {"mini_r", 1.0}, {"miss_dropout", 0.0}});
  };
  return {"MISS", "miss", "", fields, tensors, 1, detail::new_miss};
}

}  // namespace lowrank::inline LOWRANK_ABI
