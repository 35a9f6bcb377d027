#include <transformer/architecture.hpp>

#include <algorithm>
#include <cmath>
#include <string_view>

#include <transformer/rope_scaling.hpp>

namespace transformer {

namespace {

using lowrank::RopePairs;
using C = ModelConfig;

constexpr std::nullopt_t required = std::nullopt;
constexpr double from_others = -1;  // of other settings: key and value heads, the size of a head

const std::vector<Setting> common = {{&C::hidden, "hidden_size", "embedding_length", required, required},
                                     {&C::layers, "num_hidden_layers", "block_count", required, required},
                                     {&C::heads, "num_attention_heads", "attention.head_count", required, required},
                                     {&C::kv_heads, "num_key_value_heads", "attention.head_count_kv", from_others, from_others},
                                     {&C::head_size, "head_dim", "attention.key_length", from_others, from_others},
                                     {&C::intermediate, "intermediate_size", "feed_forward_length", required, required},
                                     {&C::vocabulary, "vocab_size", nullptr, required, required},
                                     {&C::context, "max_position_embeddings", "context_length", 2048, required},
                                     {&C::norm_epsilon, "rms_norm_eps", "attention.layer_norm_rms_epsilon", 1e-6, required},
                                     {&C::tied_head, "tie_word_embeddings", nullptr, 0, 0}};

const std::vector<NormName> norms_around = {{NormPlace::attention_input, "input_layernorm", "attn_norm"},
                                            {NormPlace::attention_output, "post_attention_layernorm", "post_attention_norm"},
                                            {NormPlace::mlp_input, "pre_feedforward_layernorm", "ffn_norm"},
                                            {NormPlace::mlp_output, "post_feedforward_layernorm", "post_ffw_norm"}};

std::vector<NormName> with_heads(std::vector<NormName> norms) {
  norms.push_back({NormPlace::query, "self_attn.q_norm", "attn_q_norm"});
  norms.push_back({NormPlace::key, "self_attn.k_norm", "attn_k_norm"});
  return norms;
}

const Architecture llama{.name = "llama", .type = "llama", .gguf_pairs = RopePairs::interleaved, .mlp_bias = Biases::by_key};

Architecture gemma(const char* name, const char* type, std::vector<NormName> norms, Index period, double window_of_gguf) {
  return {.name = name,
          .type = type,
          .norms = std::move(norms),
          .norms_add_one = true,
          .gate = Gate::gelu_tanh,
          .scales_embedding = true,
          .windows = Windows::pattern,
          .reads_gguf_window = true,
          .window_period = period,
          .settings = {{&C::head_size, "head_dim", "attention.key_length", 256, from_others},
                       {&C::kv_heads, "num_key_value_heads", "attention.head_count_kv", 4, from_others},
                       {&C::tied_head, "tie_word_embeddings", nullptr, 1, 0},
                       {&C::window, "sliding_window", "attention.sliding_window", 4096, window_of_gguf, 0}}};
}

Architecture gemma2() {
  Architecture result = gemma("gemma2", "gemma2", norms_around, 2, 4096);
  result.layers_of_largest = 46;
  result.settings.push_back({&C::context, "max_position_embeddings", "context_length", 8192, required});
  result.settings.push_back({&C::attention_cap, "attn_logit_softcapping", "attn_logit_softcapping", 50, 50, 0});
  result.settings.push_back({&C::logit_cap, "final_logit_softcapping", "final_logit_softcapping", 30, 30, 0});
  return result;
}

Architecture gemma3() {
  Architecture result = gemma("gemma3", "gemma3_text", with_heads(norms_around), 6, 0);
  result.layers_of_largest = 62;
  result.rope_base = 1e6, result.has_local_rope = true, result.stretches_windows = false;
  result.settings.push_back({&C::context, "max_position_embeddings", "context_length", 131072, required});
  result.settings.push_back({&C::logit_cap, "final_logit_softcapping", "final_logit_softcapping", 0, 0, 0});
  return result;
}

std::vector<Architecture> make_table() {
  const std::vector<NormName> norms = llama.norms;
  Architecture mistral = llama;
  mistral.type = "mistral", mistral.attention_bias = mistral.mlp_bias = Biases::never, mistral.windows = Windows::every_layer;
  mistral.settings = {{&C::kv_heads, "num_key_value_heads", "attention.head_count_kv", 8, from_others, from_others},
                      {&C::context, "max_position_embeddings", "context_length", 131072, required},
                      {&C::window, "sliding_window", nullptr, 4096, 0, 0}};
  const Setting window{&C::window, "sliding_window", nullptr, 4096, 0, 0};
  const Setting context{&C::context, "max_position_embeddings", "context_length", 32768, required};
  const Setting groups{&C::kv_heads, "num_key_value_heads", "attention.head_count_kv", 32, from_others, from_others};
  return {
      llama,
      mistral,
      {.name = "qwen2",
       .type = "qwen2",
       .attention_bias = Biases::query_key_value,
       .windows = Windows::late_layers,
       .settings = {window, context, groups}},
      {.name = "qwen3",
       .type = "qwen3",
       .norms = with_heads(norms),
       .windows = Windows::late_layers,
       .settings = {window, context, groups, {&C::head_size, "head_dim", "attention.key_length", 128, from_others}}},
      gemma2(),
      gemma3(),
      {.name = "phi3",
       .type = "phi3",
       .fused = true,
       .attention_bias = Biases::never,
       .windows = Windows::every_layer,
       .reads_gguf_window = true,
       .turns_parts = true,
       .original_context = 4096,
       .settings = {{&C::context, "max_position_embeddings", "context_length", 4096, required},
                    {&C::norm_epsilon, "rms_norm_eps", "attention.layer_norm_rms_epsilon", 1e-5, required},
                    {&C::window, "sliding_window", "attention.sliding_window", 0, 0, 0}}},
      {.name = "smollm3",
       .type = "smollm3",
       .gguf_pairs = RopePairs::interleaved,
       .mlp_bias = Biases::by_key,
       .windows = Windows::where_no_rope,
       .rope_period = 4,
       .rope_base = 2e6,
       .settings = {context,
                    {&C::kv_heads, "num_key_value_heads", "attention.head_count_kv", 4, from_others, from_others},
                    {&C::tied_head, "tie_word_embeddings", nullptr, 1, 0},
                    {&C::window, "sliding_window", nullptr, 0, 0, 0}}},
      {.name = "granite",
       .type = "granite",
       .gguf_pairs = RopePairs::interleaved,
       .mlp_bias = Biases::by_key,
       .may_lack_rope = true,
       .settings = {{&C::embedding_scale, "embedding_multiplier", "embedding_scale", 1, 1},
                    {&C::residual_scale, "residual_multiplier", "residual_scale", 1, 1},
                    {&C::attention_scale, "attention_multiplier", "attention.scale", 1, 0},
                    {&C::logit_scale, "logits_scaling", "logit_scale", 1, required}}},
      {.name = "olmo2",
       .type = "olmo2",
       .norms = with_heads({norms_around[1], norms_around[3]}),
       .norms_whole_vectors = true,
       .windows = Windows::pattern,
       .reads_gguf_window = true,
       .window_period = 4,
       .stretches_windows = false,  // OLMo 3, whose GGUF files have this name
       .settings = {{&C::norm_epsilon, "rms_norm_eps", "attention.layer_norm_rms_epsilon", 1e-5, required},
                    {&C::window, nullptr, "attention.sliding_window", 0, 0, 0}}},
  };
}

/// Sets one number from its field or its default.
void apply(const Setting& setting, const Fields& fields, ModelConfig& config) {
  const char* const key = fields.is_gguf() ? setting.gguf : setting.folder;
  const auto fallback = fields.is_gguf() ? setting.gguf_default : setting.folder_default;
  if (!key) return;
  const auto otherwise = fields.is_null(key) && setting.when_null ? setting.when_null : fallback;
  const auto set = [&](auto& target, auto value) {
    if (!value && !otherwise) fields.refuse(key, " is missing; the description is not complete");
    target = static_cast<std::decay_t<decltype(target)>>(value ? static_cast<double>(*value) : *otherwise);
  };
  const auto visit = [&](auto member) {
    using T = std::decay_t<decltype(config.*member)>;
    if constexpr (std::is_same_v<T, Index>)
      set(config.*member, fields.size(key));
    else if constexpr (std::is_same_v<T, bool>)
      set(config.*member, fields.flag(key));
    else
      set(config.*member, fields.number(key));
  };
  std::visit(visit, setting.member);
}

/// The settings of a family: its own in the place of the common ones of the same number.
std::vector<Setting> settings_of(const Architecture& family) {
  std::vector<Setting> all = common;
  for (const Setting& own : family.settings) {
    const auto same = std::find_if(all.begin(), all.end(), [&](const Setting& other) { return other.member == own.member; });
    if (same == all.end())
      all.push_back(own);
    else
      *same = own;
  }
  return all;
}

/// Keys of either format that change the computation of some family.
bool is_known_elsewhere(std::string_view key, bool is_gguf) {
  static constexpr std::string_view folder_keys[] = {"layer_types",           "no_rope_layers",       "query_pre_attn_scalar",
                                                     "use_sliding_window",    "rope_local_base_freq", "sliding_window_pattern",
                                                     "no_rope_layer_interval"};
  static constexpr std::string_view gguf_keys[] = {"attention.sliding_window_pattern", "rope.freq_base_swa"};
  const std::span<const std::string_view> others = is_gguf ? std::span<const std::string_view>(gguf_keys) : folder_keys;
  if (std::find(others.begin(), others.end(), key) != others.end()) return true;
  const auto has_key = [&](const Architecture& family) {
    return std::any_of(family.settings.begin(), family.settings.end(), [&](const Setting& setting) {
      const char* const own = is_gguf ? setting.gguf : setting.folder;
      return own && key == own;
    });
  };
  return std::any_of(architectures().begin(), architectures().end(), has_key);
}

/// A key with the one value that is supported; absent or null is that value, too.
struct Demand {
  const char* key;
  Fields::Json value;
  const char* why;
};

/// Throws FormatError for fields with another value than the one that this library computes.
void check_demands(const Architecture& family, const Fields& fields, const ModelConfig& config) {
  const std::vector<Demand> folder = {{"is_encoder_decoder", false, "decoders are supported"},
                                      {"add_cross_attention", false, "attention to another sequence is not supported"},
                                      {"is_causal", true, "causal attention is supported"},
                                      {"use_bidirectional_attention", false, "causal attention is supported"}};
  const std::vector<Demand> gguf = {{"attention.causal", true, "causal attention is supported"},
                                    {"nextn_predict_layers", 0, "layers that predict further tokens are not supported"},
                                    {"attention.clamp_kqv", 0, "clamped projections are not supported"},
                                    {"attention.max_alibi_bias", 0, "ALiBi is not supported"},
                                    {"attention.temperature_scale", 0, "queries are not scaled by their position"},
                                    {"rope.scaling.alpha", 0, "a base that is stretched is not supported"},
                                    {"rope.scaling.yarn_ext_factor", 1, "YaRN extrapolates whole"},
                                    {"rope.scaling.yarn_log_multiplier", 0, "YaRN's other factor of cos and sin is not supported"},
                                    {"vocab_size", config.vocabulary, "token_embd.weight has another number of rows"},
                                    {"attention.value_length", config.head_size, "keys and values are of one size"},
                                    {"attention.key_length_swa", config.head_size, "heads of one size are supported"},
                                    {"attention.value_length_swa", config.head_size, "heads of one size are supported"},
                                    {"rope.dimension_count_swa", config.rope.turned_size(), "RoPE of one size is supported"}};
  for (const Demand& demand : fields.is_gguf() ? gguf : folder)
    if (const auto* value = fields.find(demand.key); value && *value != demand.value)
      fields.refuse(demand.key, " is ", lowrank::json::excerpt(*value), "; ", demand.why);
  if (fields.is_gguf()) return;
  const bool is_silu = family.gate == Gate::silu;
  const char* const key = is_silu ? "hidden_act" : "hidden_activation";
  if (!is_silu) static_cast<void>(fields.find("hidden_act"));  // old files of Gemma have it beside the one that counts
  const std::string gate = fields.text(key).value_or(is_silu ? "silu" : "gelu_pytorch_tanh");
  const bool fits = is_silu ? gate == "silu" || gate == "swish" : gate == "gelu_pytorch_tanh";
  if (!fits)
    fields.refuse(key, " is ", lowrank::name_text(gate), "; ", is_silu ? "silu" : "gelu_pytorch_tanh",
                  " is supported for models of the type ", family.type);
}

/// Throws FormatError for a field that is a setting of another family and is not neutral.
void check_unread(const Architecture& family, const Fields& fields) {
  for (const std::string& spelled : fields.unread()) {
    const std::string key = fields.is_gguf() ? spelled.substr(std::string_view(family.name).size() + 1) : spelled;
    if (!is_known_elsewhere(key, fields.is_gguf())) continue;
    const auto* const value = fields.find(key);
    if (!value || *value == 0 || *value == false || *value == Fields::Json::array()) continue;
    fields.refuse(key, " is ", lowrank::json::excerpt(*value), ", which changes the computation of other models; those of the type ",
                  fields.is_gguf() ? family.name : family.type, " have no such setting: remove it if it has no meaning here");
  }
}

/// Flags of layers from a list of the file, or by a rule.
template <class Rule>
void set_kinds(ModelConfig& config, bool LayerKind::*flag, const std::optional<std::vector<double>>& list, const char* key,
               const Fields& fields, const Rule& rule) {
  config.kinds.resize(static_cast<std::size_t>(config.layers));
  if (list && static_cast<Index>(list->size()) != config.layers)
    fields.refuse(key, " has ", list->size(), " entries for ", config.layers, " layers; give one each");
  for (Index i = 0; i < config.layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    config.kinds[at].*flag = list ? (*list)[at] != 0 : rule(i);
  }
}

/// layer_types of config.json as flags: windowed or not.
std::optional<std::vector<double>> layer_types(const Fields& fields) {
  const auto* const types = fields.find("layer_types");
  if (!types) return std::nullopt;
  std::vector<double> windowed;
  for (const auto& type : *types) {
    const bool known = lowrank::json::is_text(type, {"full_attention", "sliding_attention"});
    if (!known) fields.refuse("layer_types", " has ", lowrank::json::excerpt(type), "; full_attention and sliding_attention are supported");
    windowed.push_back(lowrank::json::is_text(type, {"sliding_attention"}) ? 1 : 0);
  }
  return windowed;
}

/// Every n-th layer, counted from 1, sees everything; n = 0: none does.
auto all_but_each(Index n) {
  return [n](Index i) { return n == 0 || (i + 1) % n != 0; };
}

void read_gguf_windows(const Architecture& family, const Fields& fields, ModelConfig& config) {
  if (!family.reads_gguf_window || config.window == 0) return;
  const char* const key = "attention.sliding_window_pattern";
  if (family.windows == Windows::every_layer) return set_kinds(config, &LayerKind::windowed, {}, key, fields, [](Index) { return true; });
  const auto* const pattern = fields.find(key);
  const bool is_list = pattern && pattern->is_array();
  const Index period = is_list ? 0 : fields.size(key).value_or(family.window_period);
  set_kinds(config, &LayerKind::windowed, is_list ? fields.numbers(key) : std::nullopt, key, fields, all_but_each(period));
}

void read_folder_windows(const Architecture& family, const Fields& fields, ModelConfig& config) {
  const auto windowed = [&](const auto& rule) {
    set_kinds(config, &LayerKind::windowed, layer_types(fields), "layer_types", fields, rule);
    const bool any = std::any_of(config.kinds.begin(), config.kinds.end(), [](LayerKind kind) { return kind.windowed; });
    if (any && config.window == 0)
      fields.refuse("layer_types", " asks for windows, but sliding_window or use_sliding_window says that there are none");
  };
  switch (family.windows) {
    case Windows::none:
      return;
    case Windows::every_layer:
      if (config.window > 0) set_kinds(config, &LayerKind::windowed, {}, "", fields, [](Index) { return true; });
      return;
    case Windows::pattern: {
      const Index period = fields.size("sliding_window_pattern").value_or(family.window_period);
      return windowed([&](Index i) { return config.window > 0 && all_but_each(period)(i); });
    }
    case Windows::late_layers: {
      const bool used = fields.flag("use_sliding_window").value_or(false);
      if (!used) config.window = 0;
      const Index first = fields.size("max_window_layers").value_or(28);
      return windowed([&](Index i) { return used && config.window > 0 && i >= first; });
    }
    case Windows::where_no_rope: {
      const bool used = fields.flag("use_sliding_window").value_or(false);
      if (!used) config.window = 0;
      return windowed([&](Index i) { return used && config.window > 0 && !config.kind(i).turns; });
    }
  }
}

/// Which layers turn by positions.
void read_turning(const Architecture& family, const Fields& fields, ModelConfig& config) {
  const bool lacks_rope = fields.is_gguf() && !fields.flag("rope.scaling.finetuned").value_or(true);
  if (lacks_rope && family.may_lack_rope) return set_kinds(config, &LayerKind::turns, {}, "", fields, [](Index) { return false; });
  if (family.rope_period == 0) return;
  const Index period = fields.is_gguf() ? family.rope_period : fields.size("no_rope_layer_interval").value_or(family.rope_period);
  const auto list = fields.is_gguf() ? std::nullopt : fields.numbers("no_rope_layers");
  set_kinds(config, &LayerKind::turns, list, "no_rope_layers", fields, all_but_each(period));
}

/// 1 / √n of Gemma's scores, where n is a setting of folders, and in GGUF files a rule about the largest models.
void read_attention_scale(const Architecture& family, const Fields& fields, ModelConfig& config) {
  if (!family.scales_embedding) return;
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden));
  const bool largest = config.layers == family.layers_of_largest;
  double n = static_cast<double>(fields.is_gguf() && largest ? config.hidden / config.heads : config.head_size);
  if (!fields.is_gguf()) n = fields.number("query_pre_attn_scalar").value_or(256);
  if (n <= 0) fields.refuse("query_pre_attn_scalar", " is ", n, "; it must be positive");
  config.attention_scale = 1 / std::sqrt(n);
}

}  // namespace

std::span<const Architecture> architectures() {
  static const std::vector<Architecture> table = make_table();
  return table;
}

const Architecture& architecture_of(const ModelConfig& config) {
  for (const Architecture& family : architectures())
    if (config.architecture == family.name && (config.type.empty() || config.type == family.type)) return family;
  lowrank::fail<lowrank::ValueError>("model_config", "there is no architecture ", lowrank::name_text(config.architecture), " of the type ",
                                     lowrank::name_text(config.type));
}

const Architecture& find_architecture(const Fields& fields, const std::string& name) {
  const char* const key = fields.is_gguf() ? "general.architecture" : "model_type";
  std::string names;
  for (const Architecture& family : architectures()) {
    const std::string own = fields.is_gguf() ? family.name : family.type;
    if (name == own) return family;
    if (names.find(own) == names.npos) names += (names.empty() ? "" : ", ") + own;
  }
  const bool is_mixture = name.find("moe") != name.npos || name.find("mixtral") != name.npos || name == "gpt-oss" || name == "gpt_oss";
  lowrank::fail<lowrank::FormatError>(fields.is_gguf() ? "load_gguf" : "load_folder", fields.file(), ": ", key, " is ",
                                      lowrank::name_text(name),
                                      is_mixture ? ", a mixture of experts; dense models are supported: " : "; supported are ", names);
}

ModelConfig read_config(const Architecture& family, const Fields& fields, Index vocabulary_of_gguf) {
  for (const char* key : {"expert_count", "num_local_experts", "num_experts"})
    if (fields.size(key).value_or(0) > 0)
      fields.refuse(key, " is ", *fields.size(key), ": a mixture of experts; dense models are supported");
  ModelConfig config;
  config.architecture = family.name, config.type = family.type;
  config.fused = family.fused, config.gate = family.gate, config.norms_whole_vectors = family.norms_whole_vectors;
  config.norms = {};
  for (const NormName& norm : family.norms) config.norms[static_cast<std::size_t>(norm.place)] = true;
  for (const Setting& setting : settings_of(family)) apply(setting, fields, config);
  if (fields.is_gguf()) config.vocabulary = vocabulary_of_gguf;
  if (config.heads <= 0)
    fields.refuse(fields.is_gguf() ? "attention.head_count" : "num_attention_heads", " is ", config.heads, "; it must be positive");
  if (config.kv_heads < 0) config.kv_heads = config.heads;
  if (config.head_size < 0) config.head_size = config.hidden / config.heads;
  if (config.logit_scale > 0) config.logit_scale = 1 / config.logit_scale;  // files have what logits are divided by
  config.validate();
  fields.is_gguf() ? read_gguf_rope(fields, config) : read_folder_rope(fields, config);
  read_turning(family, fields, config);
  fields.is_gguf() ? read_gguf_windows(family, fields, config) : read_folder_windows(family, fields, config);
  read_attention_scale(family, fields, config);
  check_demands(family, fields, config);
  check_unread(family, fields);
  config.validate();
  return config;
}

}  // namespace transformer
