#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/adapter_parts.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/update/registry.hpp>

namespace lowrank::inline LOWRANK_ABI::mlx {

namespace detail {

using json::Json;

inline constexpr std::string_view tensors_name = "adapters.safetensors", config_name = "adapter_config.json";

inline constexpr std::size_t max_config_size = std::size_t{4} << 20;

/// What the configuration says about the mathematics.
struct Config {
  Index rank = 0, layers = -1;  // -1: all
  double scale = 1, dropout = 0;
  const Method* method = nullptr;
  std::optional<std::string> model;
};

class ConfigReader {
 public:
  ConfigReader(std::string_view text, std::string file) : file_(std::move(file)), config_(json::parse(text, "mlx", file_)) {
    check<FormatError>(config_.is_object(), "mlx", file_, ": must be a JSON object");
  }

  Config read() const {
    Config config;
    const Json type = json::member(config_, "fine_tune_type");
    std::string known;
    for (const Method& method : methods()) {
      if (method.peft_type != "LORA") continue;
      known += concat(known.empty() ? "" : " or ", method.name);
      const Json flag = json::member(config_, std::string(method.flag).c_str());
      const bool is_chosen =
          type.is_string() ? json::is_text(type, {method.name}) : method.flag.empty() && !config_.contains("fine_tune_type");
      if (is_chosen || (flag.is_boolean() && flag.get<bool>())) config.method = &method;
    }
    require(config.method != nullptr, "fine_tune_type", type, concat(known, "; full copies of the weights are no adapter"));
    const char* const layers_key = config_.contains("num_layers") ? "num_layers" : "lora_layers";  // the latter until 2024
    const Json layers = json::member(config_, layers_key);
    const auto count = json::as_index(layers);
    require(count || (layers.is_number_integer() && layers.get<std::int64_t>() == -1), layers_key, layers, "a whole number of at least -1");
    config.layers = count.value_or(-1);
    if (const Json model = json::member(config_, "model"); model.is_string()) config.model = model.get<std::string>();
    read_parameters(config);
    return config;
  }

 private:
  void require(bool condition, std::string_view key, const Json& value, std::string_view expected) const {
    check<FormatError>(condition, "mlx", file_, ": ", key, " is ", json::excerpt(value), " but must be ", expected);
  }
  void read_parameters(Config& config) const {
    const Json parameters = json::member(config_, "lora_parameters");
    require(parameters.is_object(), "lora_parameters", parameters, "an object of rank, scale and dropout");
    constexpr std::array known{"rank", "scale", "dropout", "keys"};
    for (const auto& [key, value] : parameters.items())
      check<FormatError>(std::find(known.begin(), known.end(), key) != known.end(), "mlx", file_, ": lora_parameters has the key ",
                         name_text(key), ", which is not supported and may change what the adapter computes");
    const Json rank = json::member(parameters, "rank"), scale = json::member(parameters, "scale");
    const auto number = json::as_index(rank);
    require(number && *number > 0 && *number <= std::numeric_limits<std::int32_t>::max(), "rank", rank, "a positive whole number");
    require(scale.is_number() && is_finite(scale.get<double>()) && std::abs(scale.get<double>()) > 0, "scale", scale,
            "a finite number other than 0");
    if (parameters.contains("dropout")) {
      const Json dropout = json::member(parameters, "dropout");
      config.dropout = dropout.is_number() ? dropout.get<double>() : -1;
      require(config.dropout >= 0 && config.dropout < 1, "dropout", dropout, "at least 0 and below 1");
    }
    config.rank = *number;
    config.scale = scale.get<double>();
  }

  std::string file_;
  Json config_;
};

struct Parts {
  const StoredTensor *a = nullptr, *b = nullptr, *m = nullptr;
};

/// The tensors of every module. Names that are none of an adapter's are refused.
LOWRANK_INLINE std::map<std::string, Parts> sort_in(const std::vector<StoredTensor>& tensors, const std::string& file) {
  std::map<std::string, Parts> layers;
  for (const StoredTensor& tensor : tensors) {
    const std::string_view name = tensor.name;
    const std::size_t cut = name.ends_with(".lora_a") || name.ends_with(".lora_b") ? 7 : name.ends_with(".m") ? 2 : 0;
    check<FormatError>(cut > 0 && name.size() > cut && name.size() <= 1024, "mlx", file, ": unexpected tensor ", name_text(name),
                       "; names must end in .lora_a, .lora_b or .m");
    lowrank::detail::check_finite(tensor, "mlx", file);
    Parts& parts = layers[tensor.name.substr(0, name.size() - cut)];
    (cut == 2 ? parts.m : name.back() == 'a' ? parts.a : parts.b) = &tensor;
  }
  check<FormatError>(!layers.empty(), "mlx", file, ": no adapter tensor in it");
  return layers;
}

LOWRANK_INLINE bool is_embedding(std::string_view path) {
  constexpr std::array<std::string_view, 4> names{"embed_tokens", "wte", "word_embeddings", "tok_embeddings"};
  return std::find(names.begin(), names.end(), lowrank::detail::last_part(path)) != names.end();
}

LOWRANK_INLINE ModuleTensors read_layer(const std::string& path, const Parts& parts, const Config& config, const std::string& file) {
  for (const auto& [tensor, suffix] : {std::pair(parts.a, ".lora_a"), std::pair(parts.b, ".lora_b")})
    check<FormatError>(tensor != nullptr, "mlx", file, ": missing tensor ", name_text(path + suffix), "; its other half is there");
  const std::size_t more = config.method->required - 2;  // tensors beside A and B
  check<FormatError>(more > 0 || !parts.m, "mlx", file, ": unexpected tensor ", name_text(path + ".m"), "; fine_tune_type is ",
                     config.method->name);
  check<FormatError>(more == 0 || parts.m, "mlx", file, ": missing tensor ", name_text(path + ".m"), "; fine_tune_type is ",
                     config.method->name);
  const auto &a = parts.a->shape, &b = parts.b->shape;
  const Index rank = config.rank;
  check<FormatError>(a.size() == 2 && b.size() == 2 && a[1] == rank && b[0] == rank && a[0] > 0 && b[1] > 0, "mlx", file, ": ",
                     name_text(path), " has lora_a ", shape_text(a), " and lora_b ", shape_text(b), " but rank ", rank, " needs [in, ",
                     rank, "] and [", rank, ", out]");
  ModuleTensors layer =
      lora_tensors(lowrank::detail::transposed(*parts.a), lowrank::detail::transposed(*parts.b), config.scale, is_embedding(path));
  check<FormatError>(!parts.m || !layer.is_embedding, "mlx", file, ": ", name_text(path), " is an embedding with ", config.method->name,
                     ", which means something else there than in PEFT; train it with lora");
  check<FormatError>(!parts.m || parts.m->shape == std::vector{b[1]}, "mlx", file, ": ", name_text(path + ".m"), " is ",
                     shape_text(parts.m ? parts.m->shape : std::vector<Index>{}), " but must be [", b[1], ']');
  if (parts.m) layer.tensors.emplace(config.method->tensors[2].name, *parts.m);
  return layer;
}

/// The blocks that a module's path counts, by "layers.N." or "h.N."; nothing outside of them.
LOWRANK_INLINE std::optional<Index> block_of(std::string_view path) {
  for (std::size_t begin = 0, end = path.find('.'); end != path.npos; begin = end + 1, end = path.find('.', begin)) {
    const std::string_view part = path.substr(begin, end - begin);
    const bool is_number = !part.empty() && part.size() <= 6 && part.find_first_not_of("0123456789") == part.npos;
    if (is_number) return static_cast<Index>(std::stol(std::string(part)));
  }
  return std::nullopt;
}

/// Checks the blocks against num_layers; returns whether every block from the first on has the same modules.
LOWRANK_INLINE bool check_blocks(const Adapter& adapter, const Config& config, const std::string& file) {
  std::map<Index, std::set<std::string_view>> blocks;
  for (const auto& [path, layer] : adapter.layers)
    if (const auto block = block_of(path)) blocks[*block].insert(lowrank::detail::last_part(path));
  const auto count = static_cast<Index>(blocks.size());
  check<FormatError>(config.layers <= 0 || count <= config.layers, "mlx", file, ": tensors for ", count, " blocks but num_layers is ",
                     config.layers);
  const bool from_first = count == 0 || (blocks.begin()->first == 0 && blocks.rbegin()->first == count - 1);
  return from_first && std::all_of(blocks.begin(), blocks.end(), [&](const auto& b) { return b.second == blocks.begin()->second; });
}

}  // namespace detail

LOWRANK_INLINE bool is_adapter(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::exists(folder / detail::tensors_name, ignored);
}

LOWRANK_INLINE Adapter load(const std::filesystem::path& folder) {
  const auto config_path = folder / detail::config_name;
  const Buffer bytes = Buffer::map(config_path);
  check<FormatError>(bytes.size() <= detail::max_config_size, "mlx", path_text(config_path), ": ", bytes.size(),
                     " bytes are no adapter configuration");
  const detail::Config config = detail::ConfigReader({bytes.as<char>(), bytes.size()}, path_text(config_path)).read();
  const auto tensors_path = folder / detail::tensors_name;
  const std::string file = path_text(tensors_path);
  const auto source = safetensors::File::open(tensors_path);
  Adapter adapter;
  for (const auto& [path, parts] : detail::sort_in(source.tensors(), file))
    adapter.layers.emplace(path, detail::read_layer(path, parts, config, file));
  lowrank::detail::describe_layers(adapter, detail::check_blocks(adapter, config, file));
  adapter.config.dropout = config.dropout;
  if (!config.method->flag.empty()) adapter.config.fields[std::string(config.method->flag)] = true;
  adapter.config.base_model = config.model;
  adapter.config.task_type = "CAUSAL_LM";
  return adapter;
}

}  // namespace lowrank::inline LOWRANK_ABI::mlx
