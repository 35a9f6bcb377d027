#pragma once

#include <algorithm>
#include <cmath>

#include <lowrank/update/adalora.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/ia3.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/oft.hpp>
#include <lowrank/update/vera.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The keys of PEFT's LoraConfig.
LOWRANK_INLINE std::vector<Field> lora_fields() {
  return {{"r", 8.0},
          {"lora_alpha", 8.0},
          {"lora_dropout", 0.0},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"init_lora_weights", true, false},
          {"lora_bias", false},
          {"use_dora", false},
          {"use_rslora", false},
          {"loftq_config", {}, false},
          {"rank_pattern"},
          {"alpha_pattern"},
          {"exclude_modules"},
          {"layers_pattern"},
          {"layers_to_transform"},
          {"modules_to_save"},
          {"target_modules"}};
}

inline constexpr std::string_view lora_names[] = {"lora_A.weight", "lora_B.weight", "lora_B.bias", "lora_embedding_A", "lora_embedding_B"};
inline constexpr std::string_view dora_names[] = {"lora_A.weight", "lora_B.weight",    "lora_magnitude_vector",
                                                  "lora_B.bias",   "lora_embedding_A", "lora_embedding_B"};

LOWRANK_INLINE LoraOptions lora_options(const UpdateSite& site, const MethodFields& fields) {
  const LoraOptions options{
      .rank = static_cast<Index>(field<double>(fields, "r", 8)),
      .alpha = field<double>(fields, "lora_alpha", 8),
      .use_rslora = field(fields, "use_rslora", false),
      .dropout = field<double>(fields, "lora_dropout", 0),
      .lora_bias = field(fields, "lora_bias", false),
      .seed = site.seed,
      .stream = site.stream,
      .init = field<std::string>(fields, "init_lora_weights", "") == "gaussian" ? LoraInit::gaussian : LoraInit::kaiming};
  const Index widest = std::min(site.layer.in, site.layer.out);
  check<ValueError>(options.rank > 0 && options.rank <= widest, "new_lora", "rank ", options.rank, " for ", site.path, " [", site.layer.out,
                    ", ", site.layer.in, "]; give a rank from 1 to ", widest);
  const auto scale = static_cast<float>(lora_scale(options.rank, options.alpha, options.use_rslora));
  check<ValueError>(std::isfinite(scale) && scale != 0, "new_lora", "alpha ", options.alpha, " gives the update of ", site.path,
                    " the scale ", scale, "; it must be finite and not 0");
  return options;
}

LOWRANK_INLINE AnyUpdate new_lora(const UpdateSite& site, const MethodFields& fields, const SharedTensors&) {
  return make_lora(site.layer.in, site.layer.out, lora_options(site, fields));
}

LOWRANK_INLINE AnyUpdate new_dora(const UpdateSite& site, const MethodFields& fields, const SharedTensors&) {
  const LoraOptions options = lora_options(site, fields);
  check<ValueError>(!options.lora_bias, "new_lora", "DoRA with lora_bias is not defined; choose one");
  DoraWeights<float> update{make_lora(site.layer.in, site.layer.out, options)};
  update.begin(site.layer);
  return update;
}

}  // namespace detail

LOWRANK_INLINE std::span<const Method> methods() {
  using namespace detail;
  static const Method all[] = {{"LORA", "lora", "", lora_fields, lora_names, 2, {}, new_lora},
                               {"LORA", "dora", "use_dora", lora_fields, dora_names, 3, {}, new_dora},
                               vera_method(),
                               ia3_method(),
                               oft_method(),
                               hra_method(),
                               miss_method(),
                               adalora_method()};
  return all;
}

LOWRANK_INLINE const Method* find_method(std::string_view peft_type, const MethodFields& fields) {
  const Method* found = nullptr;
  for (const Method& method : methods()) {
    if (method.peft_type != peft_type) continue;
    if (method.flag.empty()) {
      if (found == nullptr) found = &method;
      continue;
    }
    const auto flag = fields.find(method.flag);
    if (flag != fields.end() && flag->second == FieldValue(true)) return &method;
  }
  return found;
}

}  // namespace lowrank::inline LOWRANK_ABI
