#pragma once

#include <algorithm>

#include <lowrank/ops/decompose.hpp>
#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A fresh one from the weight's leading singular directions; for a file's, room for its numbers.
LOWRANK_INLINE AnyUpdate new_lora_xs(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index in = site.layer.in, out = site.layer.out, rank = count_field(given, "r", 8);
  check<ValueError>(rank > 1 && rank <= std::min(in, out), "lora_xs", "rank ", rank, " for ", site.path, " [", out, ", ", in,
                    "]; give a rank from 2 to ", std::min(in, out));
  const LoraXsOptions options{.alpha = field<double>(given, "lora_alpha", 8),
                              .use_rslora = field(given, "use_rslora", false),
                              .dropout = field<double>(given, "lora_dropout", 0),
                              .seed = site.seed,
                              .stream = site.stream};
  if (!site.shapes.empty()) {
    site.size("lora_A.weight", 0, rank);
    return make_lora_xs<float>(Weight<float>::Zero(rank, in), Weight<float>::Zero(out, rank), options);
  }
  check<ValueError>(site.layer.weight.rows() > 0, "lora_xs", site.path, ": the weight cannot be read, and LoRA-XS begins with its SVD");
  const Svd svd = randomized_svd(site.layer.weight, rank, {.power_iterations = 4, .seed = site.seed});
  return make_lora_xs<float>((svd.s.asDiagonal() * svd.v.transpose()).cast<float>(), svd.u.cast<float>(), options);
}

}  // namespace detail

LOWRANK_INLINE Method lora_xs_method() {
  static constexpr MethodTensor tensors[] = {{"lora_A.weight"}, {"lora_B.weight", Outputs::rows}, {"_lora_latent_mapping.weight"}};
  const auto fields = [] {
    return with_module_choices({{"r", 8.0},
                                {"lora_alpha", 8.0},
                                {"lora_dropout", 0.0},
                                {"use_rslora", false},
                                {"bias", "none"},
                                {"fan_in_fan_out", false},
                                {"init_lora_weights", true, false},
                                {"loftq_config", {}, false},
                                {"rank_pattern"},
                                {"alpha_pattern"}});
  };
  return {.peft_type = "LORA_XS",
          .name = "lora-xs",
          .flag = "",
          .fields = fields,
          .tensors = tensors,
          .required = 3,
          .make = detail::new_lora_xs,
          .alias = "LORA"};
}

}  // namespace lowrank::inline LOWRANK_ABI
