#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <lowrank/update/adalora.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/ia3.hpp>
#include <lowrank/update/loha.hpp>
#include <lowrank/update/lokr.hpp>
#include <lowrank/update/lora_xs.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/oft.hpp>
#include <lowrank/update/vera.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The keys of PEFT's LoraConfig.
LOWRANK_INLINE std::vector<Field> lora_fields() {
  return with_module_choices({{"r", 8.0},
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
                              {"trainable_token_indices"},
                              {"ensure_weight_tying", false}});
}

inline constexpr MethodTensor lora_tensors_of_file[] = {
    {"lora_A.weight"}, {"lora_B.weight", Outputs::rows}, {"lora_B.bias", Outputs::rows}, {"lora_embedding_A"}, {"lora_embedding_B"}};
inline constexpr MethodTensor dora_tensors_of_file[] = {{"lora_A.weight"},
                                                        {"lora_B.weight", Outputs::rows},
                                                        {"lora_magnitude_vector", Outputs::rows},
                                                        {"lora_B.bias", Outputs::rows},
                                                        {"lora_embedding_A"},
                                                        {"lora_embedding_B"}};

LOWRANK_INLINE LoraOptions lora_options(const UpdateSite& site, const MethodFields& fields) {
  const LoraOptions options{
      .rank = count_field(fields, "r", 8),
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
  check<ValueError>(is_finite(scale) && scale != 0, "new_lora", "alpha ", options.alpha, " gives the update of ", site.path, " the scale ",
                    scale, "; it must be finite and not 0");
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

/// The list itself.
LOWRANK_INLINE std::vector<Method>& method_list() {
  static std::vector<Method> all{{"LORA", "lora", "", lora_fields, lora_tensors_of_file, 2, new_lora},
                                 {"LORA", "dora", "use_dora", lora_fields, dora_tensors_of_file, 3, new_dora},
                                 vera_method(),
                                 ia3_method(),
                                 oft_method(),
                                 hra_method(),
                                 miss_method(),
                                 adalora_method(),
                                 loha_method(),
                                 lokr_method(),
                                 lora_xs_method()};
  return all;
}

}  // namespace detail

LOWRANK_INLINE std::span<const Method> methods() { return detail::method_list(); }

LOWRANK_INLINE void register_method(const Method& method) {
  check<ValueError>(!method.peft_type.empty() && !method.name.empty() && method.fields && method.make && !method.tensors.empty(),
                    "register_method", '"', method.name, "\": a method has a peft_type, a name, fields, tensors, and make");
  check<ValueError>(method.required <= method.tensors.size(), "register_method", '"', method.name, "\" requires ", method.required,
                    " tensors of the ", method.tensors.size(), " that it names");
  for (const Method& known : methods()) {
    check<ValueError>(known.name != method.name, "register_method", "there is a method named ", method.name,
                      " already; choose another name");
    check<ValueError>(known.peft_type != method.peft_type || known.flag != method.flag, "register_method", "peft_type ", method.peft_type,
                      method.flag.empty() ? "" : " with ", method.flag, " is that of ", known.name,
                      "; files could not tell the two apart: choose another type, or a flag");
  }
  detail::method_list().push_back(method);
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
