#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/safetensors.hpp>

#include <transformer/architecture.hpp>
#include <transformer/load.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/load_gguf.hpp>

#include <support/files.hpp>

using lowrank::FormatError;
using lowrank::Index;
using lowrank::test::TemporaryFolder;
namespace gguf = lowrank::gguf;

namespace {

using Json = nlohmann::json;
using transformer::ModelConfig;

const std::string family_models = std::string(LOWRANK_GOLDEN_DIR) + "/architectures/";
const std::vector<std::string> family_names = {"llama",  "mistral", "qwen2",   "qwen3",   "gemma2",
                                               "gemma3", "phi3",    "smollm3", "granite", "olmo2"};

Json family_config(const std::string& family) { return Json::parse(lowrank::test::read_file(family_models + family + "/config.json")); }

ModelConfig config_of_json(const Json& config) {
  const TemporaryFolder folder;
  lowrank::test::write_file(folder / "config.json", config.dump());
  return transformer::folder_config(folder.path());
}

/// A family's config.json with another value of a key; null removes it.
Json with_value(Json config, const std::string& key, const Json& value) {
  value.is_null() ? static_cast<void>(config.erase(key)) : static_cast<void>(config[key] = value);
  return config;
}
ModelConfig family_with(const std::string& family, const std::string& key, const Json& value) {
  return config_of_json(with_value(family_config(family), key, value));
}

/// A family's GGUF file, of which metadata are changed.
struct FamilyFile {
  TemporaryFolder folder;
  gguf::File file;
  gguf::Metadata metadata = file.metadata();

  explicit FamilyFile(const std::string& family) : file(gguf::File::open(family_models + family + "/model.gguf")) {}
  FamilyFile& set(const std::string& key, gguf::Value value) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    metadata.emplace_back(key, std::move(value));
    return *this;
  }
  ModelConfig config() const {
    gguf::write(folder / "changed.gguf", metadata, file.tensors());
    return transformer::gguf_config(gguf::File::open(folder / "changed.gguf"));
  }
};

/// Everything of a configuration that logits depend on, as text.
std::string numbers_of(const ModelConfig& c) {
  std::ostringstream out;
  out.precision(17);
  out << c.vocabulary << ' ' << c.hidden << ' ' << c.layers << ' ' << c.heads << ' ' << c.kv_heads << ' ' << c.head_size << ' '
      << c.intermediate << ' ' << c.context << ' ' << c.norm_epsilon << ' ' << c.tied_head << ' ' << c.fused << ' ' << c.norms_whole_vectors
      << ' ' << int(c.gate) << ' ' << c.embedding_scale << ' ' << c.residual_scale << ' ' << c.logit_scale << ' ' << c.attention_scale
      << ' ' << c.attention_cap << ' ' << c.logit_cap << ' ' << c.window << ' ' << int(c.growth.kind) << ' ' << c.growth.original_context
      << ' ' << c.growth.factor;
  const auto list = [&](const std::vector<double>& values) {
    out << " [";
    for (const double value : values) out << value << ' ';
    out << ']';
  };
  const auto rope = [&](const lowrank::RopeOptions& r) {
    out << ' ' << r.base << ' ' << int(r.pairs) << ' ' << r.turned_size() << ' ' << r.magnitude;
    list(r.frequency_factors);
  };
  for (const auto kind : c.kinds) out << ' ' << kind.windowed << kind.turns;
  list(c.growth.long_factors), rope(c.rope);
  for (const auto& local : c.local_rope) rope(local);
  return out.str();
}

/// Other values of a key's type.
std::vector<Json> other_values(const Json& value) {
  if (value.is_boolean()) return {!value.get<bool>()};
  if (value.is_number_integer()) return {value.get<int>() * 2 + 2};
  if (value.is_number()) return {value.get<double>() * 2};
  if (value.is_string()) return {"another"};
  if (value.is_null()) return {4, true, 0.5};
  if (value.is_array()) {
    Json reversed = value, without = value;
    std::reverse(reversed.begin(), reversed.end()), without.erase(0);
    return reversed == value ? std::vector<Json>{without} : std::vector<Json>{reversed, without};
  }
  std::vector<Json> result;
  for (const auto& [key, inner] : value.items())
    for (const Json& other : other_values(inner)) result.push_back(with_value(value, key, other));
  return result;
}

/// Whether each of the changes is refused or changes the configuration.
template <class Change>
bool matters(const std::string& before, const Change& change) {
  ModelConfig after;
  const std::string complaint = lowrank::test::complaint([&] { after = change(); });
  return !complaint.empty() || numbers_of(after) != before;
}

}  // namespace

TEST_CASE("each key of each config.json matters, is refused, or is known to change no logits") {
  const std::set<std::string> harmless = {"_sliding_window_pattern",
                                          "architectures",
                                          "attention_dropout",
                                          "bos_token_id",
                                          "dtype",
                                          "embd_pdrop",
                                          "eos_token_id",
                                          "initializer_range",
                                          "pad_token_id",
                                          "pretraining_tp",
                                          "resid_pdrop",
                                          "transformers_version",
                                          "use_cache"};
  const std::set<std::string> compared_with_weights = {"attention_bias", "mlp_bias"};
  // What another key has decided already.
  const std::set<std::string> overruled = {"qwen2 max_window_layers",       "qwen3 max_window_layers", "qwen3 sliding_window",
                                           "qwen3 use_sliding_window",      "smollm3 sliding_window",  "smollm3 use_sliding_window",
                                           "smollm3 no_rope_layer_interval"};
  for (const std::string& family : family_names) {
    Json config = family_config(family);
    if (config.contains("original_max_position_embeddings"))
      config["rope_parameters"].erase("original_max_position_embeddings");  // overruled
    const std::string before = numbers_of(config_of_json(config));
    for (const auto& [key, value] : config.items()) {
      if (harmless.contains(key) || compared_with_weights.contains(key) || overruled.contains(family + ' ' + key)) continue;
      for (const Json& other : other_values(value)) {
        CAPTURE(family);
        CAPTURE(key);
        CAPTURE(other.dump());
        CHECK(matters(before, [&] { return config_of_json(with_value(config, key, other)); }));
      }
    }
  }
}

TEST_CASE("each key of each GGUF file matters or is refused") {
  for (const std::string& family : family_names) {
    const FamilyFile original(family);
    const std::string before = numbers_of(original.config());
    const auto prefix = original.file.get<std::string>("general.architecture") + '.';
    for (const auto& [key, value] : original.metadata) {
      if (!key.starts_with(prefix) || key == prefix + "vocab_size") continue;  // the table's rows say it
      CAPTURE(family);
      CAPTURE(key);
      FamilyFile file(family);
      if (const auto* size = std::get_if<std::uint32_t>(&value)) file.set(key, *size + 2);
      if (const auto* number = std::get_if<float>(&value)) file.set(key, *number * 2);
      if (std::holds_alternative<std::string>(value)) file.set(key, std::string("none"));
      CHECK(matters(before, [&] { return file.config(); }));
    }
  }
}

TEST_CASE("keys that nobody reads are listed, in both formats") {
  const std::vector<std::string> folder = {"attention_sinks"}, file = {"qwen3.attention.sinks"};
  CHECK(family_with("qwen3", "attention_sinks", 4).unread == folder);
  CHECK(FamilyFile("qwen3").set("qwen3.attention.sinks", std::uint32_t{4}).config().unread == file);
}

TEST_CASE("a setting of another family is refused by name, unless it is neutral") {
  const std::vector<std::pair<std::string, Json>> folder = {
      {"query_pre_attn_scalar", 128}, {"attn_logit_softcapping", 50.0}, {"logits_scaling", 8},
      {"embedding_multiplier", 12},   {"no_rope_layers", {1, 0}},       {"layer_types", {"full_attention"}},
      {"sliding_window", 8},          {"rope_local_base_freq", 1e4},    {"use_sliding_window", true}};
  for (const auto& [key, value] : folder) {
    CAPTURE(key);
    CHECK_THROWS_WITH_AS(family_with("llama", key, value), doctest::Contains((key + " is ").c_str()), FormatError);
  }
  for (const char* key : {"use_sliding_window", "final_logit_softcapping"}) CHECK_NOTHROW(family_with("llama", key, false));
  const std::vector<std::pair<std::string, gguf::Value>> file = {{"attention.sliding_window", std::uint32_t{8}},
                                                                 {"attn_logit_softcapping", 50.0f},
                                                                 {"logit_scale", 8.0f},
                                                                 {"attention.scale", 0.5f},
                                                                 {"attention.sliding_window_pattern", std::uint32_t{2}},
                                                                 {"rope.freq_base_swa", 100.0f}};
  for (const auto& [key, value] : file) {
    CAPTURE(key);
    CHECK_THROWS_WITH_AS(FamilyFile("qwen2").set("qwen2." + key, value).config(), doctest::Contains(("qwen2." + key + " is ").c_str()),
                         FormatError);
  }
}

TEST_CASE("what no family computes is refused: mixtures of experts, attention to both sides, other activations, ALiBi") {
  const std::vector<std::pair<std::string, Json>> folder = {
      {"num_local_experts", 8}, {"num_experts", 4},      {"is_causal", false},     {"use_bidirectional_attention", true},
      {"hidden_act", "relu"},   {"model_type", "mamba"}, {"model_type", "mixtral"}};
  for (const auto& [key, value] : folder) {
    CAPTURE(key);
    CHECK_THROWS_WITH_AS(family_with("llama", key, value), doctest::Contains((key + " is ").c_str()), FormatError);
  }
  CHECK_THROWS_WITH_AS(family_with("gemma2", "hidden_activation", "silu"), doctest::Contains("hidden_activation is \"silu\""), FormatError);
  CHECK_NOTHROW(family_with("gemma2", "hidden_act", "gelu"));  // an old key beside the one that counts
  CHECK_THROWS_WITH_AS(family_with("llama", "model_type", "mixtral"), doctest::Contains("mixture of experts"), FormatError);
  const std::vector<std::pair<std::string, gguf::Value>> file = {{"expert_count", std::uint32_t{8}},
                                                                 {"attention.causal", false},
                                                                 {"attention.max_alibi_bias", 8.0f},
                                                                 {"attention.clamp_kqv", 8.0f},
                                                                 {"nextn_predict_layers", std::uint32_t{1}},
                                                                 {"attention.temperature_scale", 0.1f},
                                                                 {"rope.scaling.alpha", 1000.0f},
                                                                 {"rope.scaling.yarn_ext_factor", 0.5f},
                                                                 {"rope.scaling.yarn_log_multiplier", 0.1f},
                                                                 {"attention.key_length_swa", std::uint32_t{4}},
                                                                 {"rope.dimension_count", std::uint32_t{4}}};
  for (const auto& [key, value] : file) {
    CAPTURE(key);
    CHECK_THROWS_WITH_AS(FamilyFile("llama").set("llama." + key, value).config(), doctest::Contains(("llama." + key + " is ").c_str()),
                         FormatError);
  }
}

TEST_CASE("absent keys mean what transformers and llama.cpp take them for") {
  const auto without = [](const std::string& family, const std::string& key) { return family_with(family, key, nullptr); };
  CHECK(without("qwen3", "head_dim").head_size == 128);
  CHECK(without("gemma3", "head_dim").head_size == 256);
  CHECK(without("llama", "head_dim").head_size == 4);
  CHECK(config_of_json(with_value(with_value(family_config("mistral"), "num_attention_heads", 16), "num_key_value_heads", nullptr))
            .kv_heads == 8);
  CHECK(
      config_of_json(with_value(with_value(family_config("qwen3"), "num_attention_heads", 64), "num_key_value_heads", nullptr)).kv_heads ==
      32);
  CHECK(without("llama", "num_key_value_heads").kv_heads == 4);
  CHECK(without("mistral", "sliding_window").window == 4096);
  CHECK(family_with("mistral", "sliding_window", Json()).window == 4096);
  Json none = family_config("mistral");
  none["sliding_window"] = nullptr;
  CHECK(config_of_json(none).kinds.empty());
  CHECK(without("gemma2", "attn_logit_softcapping").attention_cap == 50);
  CHECK(without("gemma2", "final_logit_softcapping").logit_cap == 30);
  CHECK(without("gemma2", "query_pre_attn_scalar").attention_scale == 1.0 / 16);
  CHECK(without("granite", "attention_multiplier").attention_scale == 1);
  CHECK(without("granite", "logits_scaling").logit_scale == 1);
  CHECK(without("smollm3", "rope_parameters").rope.base == 2e6);
  CHECK(without("gemma3", "rope_parameters").rope.base == 1e6);
  CHECK(without("gemma3", "rope_parameters").local_rope.front().base == 1e4);
  CHECK(without("smollm3", "tie_word_embeddings").tied_head);
  CHECK(!without("qwen2", "tie_word_embeddings").tied_head);
  CHECK(without("phi3", "rms_norm_eps").norm_epsilon == 1e-5f);
  CHECK(without("gemma3", "layer_types").kinds[5].windowed == false);
  CHECK(without("gemma3", "layer_types").kinds[4].windowed == true);

  FamilyFile granite("granite");
  std::erase_if(granite.metadata, [](const auto& entry) { return entry.first == "granite.attention.scale"; });
  CHECK(granite.config().attention_scale == 0);  // of the head's size, where config.json means 1
  granite.set("granite.rope.scaling.finetuned", false);
  CHECK(!granite.config().kind(0).turns);
}

TEST_CASE("windows: a flag a layer, a period, or none") {
  const auto windowed = [](const ModelConfig& config) {
    std::string flags;
    for (const auto kind : config.kinds) flags += kind.windowed ? 'w' : '-';
    return flags;
  };
  CHECK(windowed(family_with("gemma2", "layer_types", {"full_attention", "sliding_attention"})) == "-w");
  CHECK(windowed(family_with("gemma2", "layer_types", nullptr)) == "w-");
  CHECK(windowed(family_with("qwen2", "layer_types", nullptr)) == "-w");
  CHECK_THROWS_WITH_AS(family_with("gemma2", "layer_types", {"full_attention"}),
                       doctest::Contains("layer_types has 1 entries for 2 layers"), FormatError);
  CHECK_THROWS_WITH_AS(family_with("gemma2", "layer_types", {"full_attention", "chunked_attention"}),
                       doctest::Contains("chunked_attention"), FormatError);
  CHECK_THROWS_WITH_AS(family_with("qwen2", "use_sliding_window", false), doctest::Contains("layer_types asks for windows"), FormatError);
  CHECK_THROWS_WITH_AS(family_with("mistral", "sliding_window", -4), doctest::Contains("sliding_window is -4"), FormatError);

  const std::string key = "gemma3.attention.sliding_window_pattern";
  CHECK(windowed(FamilyFile("gemma3").config()) == "wwwww-");
  CHECK(windowed(FamilyFile("gemma3").set(key, std::uint32_t{2}).config()) == "w-w-w-");
  CHECK(windowed(FamilyFile("gemma3").set(key, gguf::Array{std::vector<bool>{false, true, true, false, true, true}}).config()) == "-ww-ww");
  CHECK_THROWS_WITH_AS(FamilyFile("gemma3").set(key, gguf::Array{std::vector<bool>{false, true}}).config(),
                       doctest::Contains((key + " has 2 entries for 6 layers").c_str()), FormatError);
  const ModelConfig plain = FamilyFile("gemma3").set("gemma3.attention.sliding_window", std::uint32_t{0}).config();
  CHECK(plain.kinds.empty());
  CHECK(plain.local_rope.empty());
  FamilyFile olmo3("olmo2");  // OLMo 3 by the name of 2: what stretches RoPE is for layers that see everything
  olmo3.set("olmo2.attention.sliding_window", std::uint32_t{8}).set("olmo2.attention.sliding_window_pattern", std::uint32_t{2});
  olmo3.set("olmo2.rope.scaling.type", std::string("yarn")).set("olmo2.rope.scaling.factor", 4.0f);
  CHECK(windowed(olmo3.config()) == "w-");
  CHECK(olmo3.config().rope.magnitude > 1);
  CHECK(olmo3.config().local_rope.front().base == olmo3.config().rope.base);
  CHECK(olmo3.config().local_rope.front().frequency_factors.empty());
  CHECK(windowed(FamilyFile("phi3").set("phi3.attention.sliding_window", std::uint32_t{8}).config()) == "ww");
}

TEST_CASE("a factor of RoPE without a type is linear, by either key, and the type none takes it away") {
  const std::vector<double> four(4, 4.0);
  CHECK(FamilyFile("llama").set("llama.rope.scaling.factor", 4.0f).config().rope.frequency_factors == four);
  CHECK(FamilyFile("llama").set("llama.rope.scale_linear", 4.0f).config().rope.frequency_factors == four);
  CHECK(FamilyFile("llama").set("llama.rope.scale_linear", 2.0f).set("llama.rope.scaling.factor", 4.0f).config().rope.frequency_factors ==
        four);
  FamilyFile none("llama");
  none.set("llama.rope.scaling.factor", 4.0f).set("llama.rope.scaling.type", std::string("none"));
  CHECK(none.config().rope.frequency_factors.empty());
  CHECK(FamilyFile("llama").set("llama.rope.scaling.attn_factor", 1.5f).config().rope.magnitude == 1.5);
  FamilyFile yarn("qwen3");
  const auto plain = yarn.config().rope.frequency_factors;
  CHECK(
      yarn.set("qwen3.rope.scaling.yarn_beta_fast", 1.5f).set("qwen3.rope.scaling.yarn_beta_slow", 0.25f).config().rope.frequency_factors !=
      plain);
}

TEST_CASE("RoPE of config.json: the older key counts where both are there, settings without sense are refused") {
  Json both = family_config("llama");
  both["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  CHECK(config_of_json(both).rope.frequency_factors == std::vector<double>(4, 4.0));
  const auto rope = [](const Json& parameters) { return family_with("llama", "rope_parameters", parameters); };
  const std::vector<std::pair<Json, const char*>> wrong = {
      {{{"rope_type", "linear"}, {"factor", -1}}, "factor is -1"},
      {{{"rope_type", "ntk"}}, "rope_type is \"ntk\""},
      {{{"rope_type", "default"}, {"rope_theta", 0}}, "rope_theta is 0"},
      {{{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}, "partial_rotary_factor is 0.5"},
      {{{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}, "high_freq_factor is 4"},
      {{{"rope_type", "longrope"}, {"short_factor", {1, 1}}, {"long_factor", {1, 1, 1, 1}}}, "short_factor has 2 factors for 4 pairs"},
      {{{"rope_type", "longrope"}, {"short_factor", {1, 1, 0, 1}}, {"long_factor", {1, 1, 1, 1}}},
       "short_factor has a factor that is not positive"},
      {{{"rope_type", "yarn"}, {"factor", "4"}}, "factor is \"4\""},
      {Json::array(), "rope_parameters is []"}};
  for (const auto& [parameters, reason] : wrong) {
    CAPTURE(parameters.dump());
    CHECK_THROWS_WITH_AS(rope(parameters), doctest::Contains(reason), FormatError);
  }
  Json odd = family_config("phi3");
  odd["rope_parameters"]["partial_rotary_factor"] = 0.4;  // 3 of 8
  CHECK_THROWS_WITH_AS(config_of_json(odd), doctest::Contains("partial_rotary_factor is 0.4"), FormatError);
  CHECK_THROWS_WITH_AS(FamilyFile("phi3").set("phi3.rope.dimension_count", std::uint32_t{5}).config(),
                       doctest::Contains("phi3.rope.dimension_count is 5"), FormatError);
}

TEST_CASE("settings that are not positive or no numbers are refused by name") {
  const std::vector<std::pair<std::string, std::string>> keys = {{"granite", "logits_scaling"},        {"granite", "residual_multiplier"},
                                                                 {"granite", "embedding_multiplier"},  {"granite", "attention_multiplier"},
                                                                 {"gemma2", "query_pre_attn_scalar"},  {"gemma2", "attn_logit_softcapping"},
                                                                 {"gemma2", "final_logit_softcapping"}};
  for (const auto& [family, key] : keys)
    for (const Json& value : {Json(-2), Json("2"), Json::array({1, 2})}) {
      CAPTURE(key);
      CAPTURE(value.dump());
      CHECK_THROWS_AS(family_with(family, key, value), FormatError);
    }
  CHECK_THROWS_AS(family_with("granite", "logits_scaling", 0), FormatError);
  CHECK_THROWS_WITH_AS(family_with("smollm3", "no_rope_layers", {1, 0}), doctest::Contains("no_rope_layers has 2 entries for 4 layers"),
                       FormatError);
  for (const float value : {-1.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const char* key : {"logit_scale", "residual_scale", "embedding_scale", "attention.scale"}) {
      CAPTURE(key);
      CHECK_THROWS_AS(FamilyFile("granite").set(lowrank::concat("granite.", key), value).config(), FormatError);
    }
}

TEST_CASE("biases: config.json and the weights must agree on each") {
  const auto with_weights_of = [](const std::string& family, const Json& config) {
    const TemporaryFolder folder;
    std::filesystem::copy_file(family_models + family + "/model.safetensors", folder / "model.safetensors");
    lowrank::test::write_file(folder / "config.json", config.dump());
    return transformer::load_folder(folder.path());
  };
  CHECK_NOTHROW(with_weights_of("llama", family_config("llama")));
  for (const auto& [family, key] :
       {std::pair{"llama", "attention_bias"}, {"llama", "mlp_bias"}, {"granite", "mlp_bias"}, {"olmo2", "attention_bias"}}) {
    CAPTURE(family);
    CAPTURE(key);
    const Json config = family_config(family);
    const std::string reason = lowrank::concat(" says ", key, config.at(key) ? " false" : " true");
    CHECK_THROWS_WITH_AS(with_weights_of(family, with_value(config, key, !config.at(key).get<bool>())), doctest::Contains(reason.c_str()),
                         FormatError);
  }
  Json mistral = family_config("llama");
  mistral["model_type"] = "mistral", mistral["sliding_window"] = nullptr;
  CHECK_THROWS_WITH_AS(with_weights_of("llama", mistral), doctest::Contains("whose self_attn.q_proj has none"), FormatError);
}

TEST_CASE("a head beside the table that config.json calls tied counts where it is another; the only table there serves as both") {
  const auto file = lowrank::safetensors::File::open(family_models + "qwen2/model.safetensors");
  const auto load = [&](bool has_table, const char* head) {
    const TemporaryFolder folder;
    std::filesystem::copy_file(family_models + "qwen2/config.json", folder / "config.json");
    std::vector<lowrank::StoredTensor> tensors;
    for (const auto& tensor : file.tensors()) {
      const bool is_table = tensor.name == "model.embed_tokens.weight";
      if (!is_table || has_table) tensors.push_back(tensor);
      if (is_table && head)
        tensors.push_back({"lm_head.weight", tensor.dtype, tensor.shape, lowrank::Buffer::allocate(tensor.bytes.size())});
      if (is_table && std::string_view(head ? head : "") == "same")
        std::copy_n(tensor.bytes.as<std::byte>(), tensor.bytes.size(), tensors.back().bytes.mutable_as<std::byte>());
    }
    lowrank::safetensors::write(folder / "model.safetensors", tensors);
    return transformer::load_folder(folder.path());
  };
  const std::vector<std::int32_t> ids = {3, 4, 5};
  transformer::Transformer tied = load(true, nullptr), same = load(true, "same"), alone = load(false, "same"), zeros = load(true, "zeros");
  const auto expected = tied.logits(ids).value();
  CHECK(tied.config.tied_head);
  CHECK(same.logits(ids).value() == expected);
  CHECK(same.config.tied_head);
  CHECK(alone.logits(ids).value() == expected);
  CHECK(!zeros.config.tied_head);
  CHECK(zeros.logits(ids).value().isZero());
  CHECK_THROWS_AS(load(false, nullptr), lowrank::Error);
}
