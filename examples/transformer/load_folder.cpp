#include <transformer/load_folder.hpp>

#include <cmath>
#include <filesystem>
#include <numbers>
#include <string>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/finite.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/io/safetensors_matrix.hpp>
#include <lowrank/nn/any_linear.hpp>

#include <transformer/data.hpp>
#include <transformer/folder.hpp>

namespace transformer {

namespace {

using Json = lowrank::json::Json;

/// A JSON object whose members are read by name and type.
class JsonReader {
 public:
  JsonReader(const Json& object, std::string file) : object_(object), file_(std::move(file)) {
    lowrank::check<lowrank::FormatError>(object.is_object(), "load_folder", file_, " is not a JSON object");
  }

  /// The member, or null when it is absent or null.
  const Json* find(const char* key) const {
    const auto member = object_.find(key);
    return member == object_.end() || member->is_null() ? nullptr : &*member;
  }
  Index size(const char* key) const {
    const Json* value = find(key);
    const auto number = value ? lowrank::json::as_index(*value) : std::nullopt;
    lowrank::check<lowrank::FormatError>(number.has_value(), "load_folder", file_, ": ", key, " must be a whole number");
    return *number;
  }
  Index size_or(const char* key, Index fallback) const { return find(key) ? size(key) : fallback; }
  double number_or(const char* key, double fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    lowrank::check<lowrank::FormatError>(value->is_number(), "load_folder", file_, ": ", key, " must be a number");
    return value->get<double>();
  }
  std::string text_or(const char* key, const char* fallback) const {
    const Json* value = find(key);
    if (!value) return fallback;
    lowrank::check<lowrank::FormatError>(value->is_string(), "load_folder", file_, ": ", key, " must be a string");
    return value->get<std::string>();
  }
  bool flag(const char* key) const {
    const Json* value = find(key);
    return value && value->is_boolean() && value->get<bool>();
  }
  const std::string& file() const { return file_; }

 private:
  const Json& object_;
  std::string file_;
};

/// The llama 3 stretching of long waves: factor 1 for short ones, `factor` for long ones, a blend between.
std::vector<double> llama3_factors(const JsonReader& scaling, Index head_size, double base) {
  const double factor = scaling.number_or("factor", 8), low = scaling.number_or("low_freq_factor", 1),
               high = scaling.number_or("high_freq_factor", 4);
  const double context = scaling.number_or("original_max_position_embeddings", 8192);
  lowrank::check<lowrank::FormatError>(factor > 0 && context > 0 && high > low, "load_folder", scaling.file(),
                                       ": the llama3 RoPE scaling is not well formed");
  std::vector<double> factors;
  for (Index j = 0; j < head_size / 2; ++j) {
    const double wave = 2 * std::numbers::pi * std::pow(base, 2.0 * static_cast<double>(j) / static_cast<double>(head_size));
    const double blend = std::clamp((context / wave - low) / (high - low), 0.0, 1.0);
    factors.push_back(1 / ((1 - blend) / factor + blend));
  }
  return factors;
}

lowrank::RopeOptions folder_rope(const JsonReader& config, Index head_size) {
  using lowrank::FormatError;
  lowrank::RopeOptions rope{head_size, config.number_or("rope_theta", 10000), lowrank::RopePairs::halves, {}};
  const Json none = Json::object(), *nested = config.find("rope_parameters") ? config.find("rope_parameters") : config.find("rope_scaling");
  const JsonReader scaling(nested ? *nested : none, config.file());
  rope.base = scaling.number_or("rope_theta", rope.base);
  lowrank::check<FormatError>(rope.base > 0 && std::isfinite(rope.base), "load_folder", config.file(), ": rope_theta is ", rope.base,
                              "; it must be positive");
  const std::string kind = scaling.text_or("rope_type", scaling.text_or("type", "default").c_str());
  if (kind == "llama3") {
    rope.frequency_factors = llama3_factors(scaling, head_size, rope.base);
  } else if (kind == "linear") {
    const double factor = scaling.number_or("factor", 1);
    lowrank::check<FormatError>(factor > 0, "load_folder", config.file(), ": the RoPE factor is ", factor, "; it must be positive");
    rope.frequency_factors.assign(static_cast<std::size_t>(head_size / 2), factor);
  } else {
    lowrank::check<FormatError>(kind == "default", "load_folder", config.file(), ": RoPE scaling ", lowrank::name_text(kind),
                                "; default, linear and llama3 are supported");
  }
  return rope;
}

lowrank::Column<float> folder_vector(FolderTensors& tensors, const std::string& name, Index size) {
  const std::vector<float> values = lowrank::to_floats(tensors.take(name, {size}));
  const lowrank::Column<float> result = Eigen::Map<const lowrank::Column<float>>(values.data(), size);
  lowrank::check<lowrank::FormatError>(result.allFinite(), "load_folder", "tensor ", name,
                                       " holds numbers that are not finite; the file is damaged");
  return result;
}

/// name.weight [rows, cols], dense or in 4 bits of bitsandbytes, with name.bias where there is one.
lowrank::AnyLinear folder_linear(FolderTensors& tensors, const std::string& name, Index rows, Index cols) {
  using namespace lowrank;
  const std::string weight = name + ".weight";
  Column<float> bias;
  if (tensors.has(name + ".bias")) bias = folder_vector(tensors, name + ".bias", rows);
  const auto& file = tensors.file_of(weight);
  if (bitsandbytes::contains(file, name)) {
    tensors.mark(weight);
    AnyMatrix matrix = bitsandbytes::load_weight(file, name);
    check<FormatError>(matrix.rows() == rows && matrix.cols() == cols, "load_folder", weight, " is [", matrix.rows(), ", ", matrix.cols(),
                       "] but config.json asks for [", rows, ", ", cols, ']');
    return AnyLinear(std::move(matrix), std::move(bias));
  }
  const StoredTensor& tensor = tensors.take(weight, {rows, cols});
  const auto wrong = first_row_not_finite(tensor);
  check<FormatError>(!wrong, "load_folder", path_text(file.path()), ": tensor ", weight, " holds numbers in row ", wrong.value_or(0),
                     " that are not finite; the file is damaged");
  return AnyLinear(safetensors::matrix(tensor, "load_folder"), std::move(bias));
}

Parameter<float> folder_norm(FolderTensors& tensors, const std::string& name, Index size) {
  Parameter<float> weight;
  weight.name = name;
  weight.value = folder_vector(tensors, name, size);
  weight.trainable = false;
  return weight;
}

}  // namespace

LlamaConfig folder_config(const std::filesystem::path& folder) {
  using lowrank::FormatError;
  const std::string path = (folder / "config.json").string();
  const Json json = lowrank::json::parse(read_text(path), "load_folder", path);
  const JsonReader reader(json, path);
  const std::string type = reader.text_or("model_type", "");
  lowrank::check<FormatError>(type == "llama" || type == "mistral", "load_folder", path, " describes a model of type ",
                              lowrank::name_text(type), "; llama is supported");
  lowrank::check<FormatError>(reader.text_or("hidden_act", "silu") == "silu", "load_folder", path, ": hidden_act must be silu");
  lowrank::check<FormatError>(!reader.find("sliding_window"), "load_folder", path, ": sliding_window is not supported");
  LlamaConfig config;
  config.vocabulary = reader.size("vocab_size");
  config.hidden = reader.size("hidden_size");
  config.layers = reader.size("num_hidden_layers");
  config.heads = reader.size("num_attention_heads");
  lowrank::check<FormatError>(config.heads > 0, "load_folder", path, ": num_attention_heads is 0; it must be positive");
  config.kv_heads = reader.size_or("num_key_value_heads", config.heads);
  config.head_size = reader.size_or("head_dim", config.hidden / config.heads);
  config.intermediate = reader.size("intermediate_size");
  config.context = reader.size_or("max_position_embeddings", 2048);
  config.norm_epsilon = static_cast<float>(reader.number_or("rms_norm_eps", 1e-6));
  config.tied_head = reader.flag("tie_word_embeddings");
  config.validate();
  config.rope = folder_rope(reader, config.head_size);
  return config;
}

Llama load_folder(const std::filesystem::path& folder) {
  Llama model;
  model.config = folder_config(folder);
  const LlamaConfig& c = model.config;
  FolderTensors tensors(folder);
  model.embedding = AdaptedLinear(folder_linear(tensors, "model.embed_tokens", c.vocabulary, c.hidden));
  for (Index i = 0; i < c.layers; ++i) {
    const std::string layer = lowrank::concat("model.layers.", i, '.');
    const auto map = [&](Projection p, Index out, Index in) {
      return AdaptedLinear(folder_linear(tensors, layer + module_name(p), out, in));
    };
    model.blocks.push_back({folder_norm(tensors, layer + "input_layernorm.weight", c.hidden),
                            folder_norm(tensors, layer + "post_attention_layernorm.weight", c.hidden),
                            map(Projection::query, c.query_width(), c.hidden), map(Projection::key, c.kv_width(), c.hidden),
                            map(Projection::value, c.kv_width(), c.hidden), map(Projection::output, c.hidden, c.query_width()),
                            map(Projection::gate, c.intermediate, c.hidden), map(Projection::up, c.intermediate, c.hidden),
                            map(Projection::down, c.hidden, c.intermediate)});
  }
  model.final_norm = folder_norm(tensors, "model.norm.weight", c.hidden);
  if (c.tied_head) {
    tensors.mark("lm_head.weight");  // some files hold the table twice
  } else {
    model.separate_head = AdaptedLinear(folder_linear(tensors, "lm_head", c.vocabulary, c.hidden));
  }
  tensors.finish();
  return model;
}

}  // namespace transformer
