#pragma once

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A file's numbers may be of an odd rank; a fresh update begins with pairs.
LOWRANK_INLINE AnyUpdate new_hra(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index in = site.layer.in, rank = site.size("hra_u", 1, count_field(given, "r", 8));
  if (field(given, "apply_GS", false)) return make_orthogonal_hra<float>(in, rank, site.seed, site.stream);
  if (!site.has("hra_u")) return make_hra<float>(in, rank, site.seed, site.stream);
  site.size("hra_u", 0, in);
  HraWeights<float> update;
  update.u.name = "hra_u";
  update.u.value.setZero(in, rank);
  return update;
}

}  // namespace detail

LOWRANK_INLINE Method hra_method() {
  static constexpr MethodTensor tensors[] = {{"hra_u"}};
  const auto fields = [] {
    return with_module_choices({{"r", 8.0}, {"apply_GS", false}, {"bias", "none"}, {"init_weights", true, false}});
  };
  return {"HRA", "hra", "", fields, tensors, 1, detail::new_hra};
}

}  // namespace lowrank::inline LOWRANK_ABI
