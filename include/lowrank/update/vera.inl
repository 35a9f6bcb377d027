#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_INLINE AnyUpdate new_vera(const UpdateSite& site, const MethodFields& given, const SharedTensors& tensors) {
  site.size("vera_lambda_d", 0, count_field(given, "r", 256));
  const auto a = tensors.find("vera_A"), b = tensors.find("vera_B");
  check<ValueError>(a != tensors.end() && b != tensors.end(), "vera",
                    "the projections vera_A and vera_B are missing; is the adapter whole?");
  return make_vera<float>(site.layer.in, site.layer.out, {a->second, b->second},
                          {.d_initial = field<double>(given, "d_initial", 0.1),
                           .dropout = field<double>(given, "vera_dropout", 0),
                           .seed = site.seed,
                           .stream = site.stream});
}

LOWRANK_INLINE void share_vera(std::span<const UpdateSite> sites, const MethodFields& given, SharedTensors& tensors) {
  check<ValueError>(sites.front().shapes.empty() || !field(given, "save_projection", true), "vera",
                    "save_projection is true, but the file has no vera_A and vera_B; is the adapter whole?");
  Index in = 0, out = 0;
  for (const UpdateSite& site : sites) in = std::max(in, site.layer.in), out = std::max(out, site.layer.out);
  const Index rank = sites.front().size("vera_lambda_d", 0, count_field(given, "r", 256));
  const auto key = field<double>(given, "projection_prng_key", 0);
  check<ValueError>(is_finite(key) && key >= 0 && key < 0x1p53 && key == std::floor(key), "vera", "projection_prng_key is ", key,
                    "; it must be a whole number that is not negative");
  auto drawn = draw_vera_projections<float>(rank, in, out, static_cast<std::uint32_t>(static_cast<std::uint64_t>(key)));
  tensors["vera_A"] = std::move(drawn.a);
  tensors["vera_B"] = std::move(drawn.b);
}

}  // namespace detail

LOWRANK_INLINE Method vera_method() {
  static constexpr MethodTensor tensors[] = {{"vera_lambda_d"}, {"vera_lambda_b", Outputs::rows}};
  static constexpr std::string_view shared[] = {"vera_A", "vera_B"};
  const auto fields = [] {
    return std::vector<Field>{{"r", 256.0},
                              {"bias", "none"},
                              {"d_initial", 0.1, false},
                              {"fan_in_fan_out", false},
                              {"init_weights", true, false},
                              {"projection_prng_key", 0.0},
                              {"save_projection", true},
                              {"vera_dropout", 0.0},
                              {"layers_pattern"},
                              {"layers_to_transform"},
                              {"modules_to_save"},
                              {"target_modules"}};
  };
  return {.peft_type = "VERA",
          .name = "vera",
          .flag = "",
          .fields = fields,
          .tensors = tensors,
          .required = 2,
          .make = detail::new_vera,
          .shared = shared,
          .saves_shared = "save_projection",
          .share = detail::share_vera};
}

}  // namespace lowrank::inline LOWRANK_ABI
