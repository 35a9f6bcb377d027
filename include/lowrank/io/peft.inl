#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/adapters/target.hpp>
#include <lowrank/io/adapter_parts.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/update/registry.hpp>

namespace lowrank::inline LOWRANK_ABI::peft {

namespace detail {

inline constexpr std::string_view prefix = "base_model.model.";

inline constexpr std::string_view config_name = "adapter_config.json", tensors_name = "adapter_model.safetensors";

inline constexpr std::size_t max_config_size = std::size_t{4} << 20;

/// Keys of the tensors' file that other readers pass over: what the adapter needs beyond its configuration, and who wrote it.
inline constexpr std::string_view own_keys = "lowrank.", base_key = "lowrank.base", version_key = "lowrank.version";

LOWRANK_INLINE std::string own_version() { return concat(LOWRANK_VERSION_MAJOR, '.', LOWRANK_VERSION_MINOR, '.', LOWRANK_VERSION_PATCH); }

/// Reads those keys into the configuration. Throws FormatError for a need that this version does not know.
LOWRANK_INLINE void read_needs(const safetensors::Metadata& metadata, LoraConfig& config, const std::string& file) {
  for (const auto& [key, value] : metadata)
    if (key == version_key) config.made_by = value;
  for (const auto& [key, value] : metadata) {
    if (!key.starts_with(own_keys) || key == version_key) continue;
    check<FormatError>(key == base_key && value == "nf4", "peft", file, ": the adapter needs ", name_text(key), " = ", name_text(value),
                       ", which version ", own_version(), " of this library does not know; it was written by version ",
                       name_text(config.made_by.empty() ? "unknown" : config.made_by));
    config.needs_base = value;
  }
}

/// The same of an adapter that is to be written: one that was made here says so, one of another's file stays as it was.
LOWRANK_INLINE safetensors::Metadata needs_of(const LoraConfig& config) {
  safetensors::Metadata metadata{{"format", "pt"}};
  if (!config.needs_base.empty()) metadata.emplace_back(base_key, config.needs_base);
  const bool is_fresh = config.json.empty() && config.made_by.empty();
  if (is_fresh || !config.made_by.empty()) metadata.emplace_back(version_key, is_fresh ? own_version() : config.made_by);
  return metadata;
}

/// The tensor that a name without the prefix stands for among those of a type's methods: the longest that fits; `path` becomes the
/// module's. Empty: none.
LOWRANK_INLINE std::string_view split(std::string_view name, std::string_view peft_type, std::string_view& path) {
  std::string_view best;
  for (const Method& method : methods())
    for (const auto& [tensor, outputs] : method.tensors) {
      const std::size_t size = tensor.size() + (tensor.starts_with('_') ? 0 : 1);  // what begins with _ follows the path without a dot
      const bool fits = method.peft_type == peft_type && name.size() > size && name.ends_with(tensor) &&
                        (size == tensor.size() || name[name.size() - size] == '.');
      if (!fits || tensor.size() <= best.size()) continue;
      best = tensor;
      path = name.substr(0, name.size() - size);
    }
  return best;
}

/// Behind a table's path: the rows of the tokens that are trained.
inline constexpr std::string_view token_rows_end = ".token_adapter.trainable_tokens_delta";

/// Whether a tensor is of a module that modules_to_save names.
LOWRANK_INLINE bool is_of_saved(std::span<const std::string> names, std::string_view tensor) {
  return lowrank::detail::names_saved(names, tensor.substr(0, std::min(tensor.size(), tensor.rfind('.'))));
}

/// Full tensors that a configuration announces: modules_to_save, trained biases, targeted or resized embeddings.
LOWRANK_INLINE bool is_expected_saved(const LoraConfig& config, std::string_view name) {
  const auto has = [&](std::string_view part) { return lowrank::detail::contains_name(name, part); };
  if (is_of_saved(config.modules_to_save, name)) return true;
  if (!config.trained_tokens.empty() && name.ends_with(token_rows_end)) return true;
  if (config.bias != "none" && name.ends_with(".bias")) return true;
  return has("base_layer") || has("embed_tokens") || has("lm_head") || has("wte") || has("word_embeddings");
}

/// Turns tensors by name into an adapter; strict about names, shapes, ranks and numbers.
class Assembler {
 public:
  Assembler(LoraConfig config, std::string file)
      : file_(std::move(file)),
        method_(method_of(config)),
        is_target_(config),
        ranks_(config.rank_pattern, "rank_pattern"),
        alphas_(config.alpha_pattern, "alpha_pattern") {
    adapter_.config = std::move(config);
  }

  Adapter assemble(const std::vector<StoredTensor>& tensors) {
    for (const StoredTensor& tensor : tensors) sort_in(with_plain_name(tensor));
    for (auto& [path, module] : adapter_.layers) complete(path, module);
    for (const std::string& name : adapter_.config.modules_to_save)
      check<FormatError>(std::any_of(adapter_.saved.begin(), adapter_.saved.end(),
                                     [&](const auto& tensor) {
                                       return is_of_saved({&name, 1}, tensor.name);
                                     }),
                         "peft", file_, ": modules_to_save names ", name_text(name),
                         " but no tensor of it is there; the file is incomplete");
    check_token_rows();
    check<FormatError>(!adapter_.layers.empty() || !adapter_.saved.empty(), "peft", file_, ": no adapter tensor in it");
    return std::move(adapter_);
  }

 private:
  /// A name that begins with "_" follows the module's path; some versions of PEFT leave the adapter's name between the two.
  static StoredTensor with_plain_name(StoredTensor tensor) {
    constexpr std::string_view adapter = ".default";
    const auto at = tensor.name.find(concat(adapter, '_'));
    if (at != std::string::npos) tensor.name.erase(at, adapter.size());
    return tensor;
  }

  void sort_in(const StoredTensor& tensor) {
    constexpr std::string_view root = "base_model.";
    const bool is_shared =
        tensor.name.starts_with(root) &&
        std::find(method_.shared.begin(), method_.shared.end(), std::string_view(tensor.name).substr(root.size())) != method_.shared.end();
    check<FormatError>(is_shared || (tensor.name.starts_with(prefix) && tensor.name.size() <= 1024), "peft", file_, ": unexpected tensor ",
                       name_text(tensor.name), "; names must begin with ", prefix);
    lowrank::detail::check_finite(tensor, "peft", file_);
    if (is_shared) {
      adapter_.shared.push_back(tensor);
      adapter_.shared.back().name.erase(0, root.size());
      return;
    }
    const std::string_view name = std::string_view(tensor.name).substr(prefix.size());
    std::string_view path;
    if (const std::string_view part = split(name, method_.peft_type, path); !part.empty()) {
      adapter_.layers[std::string(path)].tensors.emplace(part, tensor);
      return;
    }
    check<FormatError>(is_expected_saved(adapter_.config, name), "peft", file_, ": unexpected tensor ", name_text(tensor.name),
                       "; it is no part of ", method_.peft_type, " and the configuration does not name it");
    adapter_.saved.push_back(tensor);
    adapter_.saved.back().name = name;
  }

  /// Why a module has tensors beyond those that each of its type has.
  std::string reason() const {
    return method_.flag.empty() ? concat("peft_type is ", method_.peft_type) : concat(method_.flag, " is true");
  }

  void check_names(const std::string& path, const ModuleTensors& module) const {
    const auto need = [&](std::string_view name, std::string_view why) {
      check<FormatError>(module.find(name), "peft", file_, ": missing tensor ", prefix, name_in_file(path, name), ", needed as ", why);
    };
    for (const std::string_view name : {ModuleTensors{}.a_name(), ModuleTensors{}.b_name()})
      check<FormatError>(!module.is_embedding || !module.find(name), "peft", file_, ": ", name_text(path),
                         " has the tensors of a linear layer and of an embedding");
    const bool has_factors = method_.required >= 2 && method_.tensors[0].name == ModuleTensors{}.a_name();
    if (has_factors)
      for (const std::string_view name : {module.a_name(), module.b_name()}) need(name, "its other half is there");
    for (std::size_t i = has_factors ? 2 : 0; i < method_.required; ++i) need(method_.tensors[i].name, reason());
    if (adapter_.config.lora_bias && !module.is_embedding) need(ModuleTensors::bias_name, "lora_bias is true");
    for (const auto& [name, tensor] : module.tensors) {
      check<FormatError>(method_.find(name) != nullptr, "peft", file_, ": unexpected tensor ", tensor.name, " without ", reason_for(name));
      check<FormatError>(name != ModuleTensors::bias_name || adapter_.config.lora_bias, "peft", file_, ": unexpected tensor ", tensor.name,
                         " without lora_bias is true");
    }
    const StoredTensor& first = module.tensors.begin()->second;
    const bool follows = adapter_.config.ensure_weight_tying && path.ends_with("lm_head");  // the token table, which is named
    check<FormatError>(follows || std::holds_alternative<std::monostate>(adapter_.config.target_modules) || is_target_(path), "peft", file_,
                       ": unexpected tensor ", first.name, "; target_modules does not name its module");
  }
  /// What a configuration with that tensor says.
  std::string reason_for(std::string_view name) const {
    for (const Method& method : methods())
      if (method.peft_type == method_.peft_type && method.find(name)) return concat(method.flag, " is true");
    return {};
  }

  /// Each list of tokens has its rows; a head that is the token table has none of its own.
  void check_token_rows() const {
    const auto& lists = adapter_.config.trained_tokens;
    for (const auto& list : lists) {
      const std::string& name = list.first;
      const auto& tokens = list.second;
      const auto fits = [&](const StoredTensor& tensor) {
        return tensor.name.ends_with(concat(name, token_rows_end)) && tensor.shape.size() == 2 &&
               tensor.shape[0] == static_cast<Index>(tokens.size());
      };
      const bool is_shared = name.ends_with("lm_head") && std::any_of(lists.begin(), lists.end(), [&](const auto& other) {
                               return other.first != name && other.second == tokens;
                             });
      check<FormatError>(is_shared || std::any_of(adapter_.saved.begin(), adapter_.saved.end(), fits), "peft", file_,
                         ": trainable_token_indices has ", tokens.size(), " tokens of ", name_text(name.empty() ? "the token table" : name),
                         " but no tensor …", token_rows_end, " with a row for each is there");
    }
  }

  void complete(const std::string& path, ModuleTensors& tensors) {
    const LoraConfig& config = adapter_.config;
    for (const std::string_view name : {"lora_embedding_A", "lora_embedding_B"})
      tensors.is_embedding = tensors.is_embedding || tensors.find(name);
    check_names(path, tensors);
    if (config.peft_type == "LORA") {
      check_shapes(path, tensors);
      tensors.scale = lora_scale(tensors.rank(), alphas_.value(path, config.alpha), config.use_rslora);
    }
    for (auto note : {ranks_.overlap(path), alphas_.overlap(path)})
      if (note) adapter_.notes.push_back(std::move(*note));
  }

  void check_shapes(const std::string& path, const ModuleTensors& module) const {
    const auto &a = module.a(), &b = module.b();
    const Index rank = ranks_.value(path, adapter_.config.rank);
    const std::vector<Index> kernel = module.kernel();
    const bool is_convolution = !kernel.empty() && kernel.size() <= 3 && !module.is_embedding;
    check<FormatError>(a.shape.size() == b.shape.size() && (a.shape.size() == 2 || is_convolution) && a.size() > 0 && b.size() > 0, "peft",
                       file_, ": ", path, " has A ", shape_text(a.shape), " and B ", shape_text(b.shape),
                       " but both must be matrices, or those of a convolution: A [rank, channels, kernel…], B [out, rank, 1…]");
    check<FormatError>(a.shape[0] == rank && b.shape[1] == rank, "peft", file_, ": ", path, " has A ", shape_text(a.shape), " and B ",
                       shape_text(b.shape), " but the configuration gives it rank ", rank, ": A must be [", rank, ", in], B [out, ", rank,
                       "]; a convolution with groups above 1, whose B has fewer columns, is not supported");
    for (const auto& [name, tensor] : module.tensors) {
      if (&tensor == &a) continue;
      const auto expected = shape_in_file(name, &tensor == &b ? std::vector{b.shape[0], rank} : std::vector{b.shape[0]},
                                          is_convolution ? kernel : std::vector<Index>{});
      check<FormatError>(tensor.shape == expected, "peft", file_, ": ", tensor.name, " is ", shape_text(tensor.shape), " but must be ",
                         shape_text(expected), "; B gives a number an output channel, and its kernel is 1");
    }
  }

  std::string file_;
  const Method& method_;
  TargetMatcher is_target_;
  PatternTable<Index> ranks_;
  PatternTable<double> alphas_;
  Adapter adapter_;
};

/// Compiles the configuration's expressions. Throws FormatError naming the file for those that cannot be read.
LOWRANK_INLINE Assembler make_assembler(LoraConfig config, const std::string& file) {
  try {
    return Assembler(std::move(config), file);
  } catch (const ValueError& error) {
    fail<FormatError>("peft", file, ": ", without_operation(error.what()));
  }
}

/// The configuration as it is, or as that of a method whose files go under another type and whose tensors are there.
LOWRANK_INLINE LoraConfig told_by_tensors(LoraConfig config, const std::vector<StoredTensor>& tensors, const std::string& file) {
  for (const Method& method : methods()) {
    if (method.alias.empty() || method.alias != config.peft_type) continue;
    const std::string_view sign = method.tensors[method.required - 1].name;
    if (std::none_of(tensors.begin(), tensors.end(), [&](const StoredTensor& tensor) { return tensor.name.ends_with(sign); })) continue;
    json::Json keys = json::Json::object();
    for (const auto& [key, value] : config.json) keys[key] = json::parse(value, "peft", file);
    keys["peft_type"] = std::string(method.peft_type);
    LoraConfig told = parse_config(keys.dump(), file);
    told.needs_base = config.needs_base, told.made_by = config.made_by;
    return told;
  }
  return config;
}

LOWRANK_INLINE LoraConfig load_config(const std::filesystem::path& path) {
  const Buffer bytes = Buffer::map(path);
  check<FormatError>(bytes.size() <= max_config_size, "peft", path_text(path), ": ", bytes.size(), " bytes are no adapter configuration");
  return parse_config({bytes.as<char>(), bytes.size()}, path_text(path));
}

}  // namespace detail

namespace detail {

/// Throws IoError for a folder that is another kind of thing than an adapter in safetensors, saying which.
LOWRANK_INLINE void check_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  const auto has = [&](std::string_view name) { return std::filesystem::exists(folder / name, ignored); };
  check<IoError>(std::filesystem::is_directory(folder, ignored), "peft", path_text(folder),
                 " is not a folder; give one with adapter_config.json and adapter_model.safetensors");
  check<IoError>(has(tensors_name) || !has("adapter_model.bin"), "peft", path_text(folder),
                 " holds a pickle, adapter_model.bin; save it with safe_serialization=True");
  if (has(config_name) || has(tensors_name)) return;
  check<IoError>(!has("config.json"), "peft", path_text(folder),
                 " is the folder of a model; give it as the model, and as the adapter a folder with adapter_config.json");
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    check<IoError>(!std::filesystem::exists(entry.path() / config_name, ignored), "peft", path_text(folder),
                   " is no adapter, but folders in it are; give one of them, such as ", path_text(entry.path()));
    check<IoError>(entry.path().extension() != ".gguf", "peft", path_text(folder), " holds ", path_text(entry.path()), "; give that file");
  }
}

}  // namespace detail

LOWRANK_INLINE Adapter load(const std::filesystem::path& folder) {
  const auto config_path = folder / detail::config_name, tensors_path = folder / detail::tensors_name;
  detail::check_folder(folder);
  LoraConfig config = detail::load_config(config_path);
  const auto file = safetensors::File::open(tensors_path);
  detail::read_needs(file.metadata(), config, path_text(folder));
  return detail::make_assembler(detail::told_by_tensors(config, file.tensors(), path_text(folder)), path_text(folder))
      .assemble(file.tensors());
}

namespace detail {

LOWRANK_INLINE std::vector<StoredTensor> named_tensors(const Adapter& adapter) {
  std::vector<StoredTensor> tensors;
  const auto put = [&](const StoredTensor& tensor, const std::string& name) {
    tensors.push_back(tensor);
    tensors.back().name = std::string(prefix) + name;
  };
  for (const auto& [path, module] : adapter.layers)
    for (const auto& [name, tensor] : module.tensors) put(tensor, name_in_file(path, name));
  for (const StoredTensor& tensor : adapter.shared) {
    tensors.push_back(tensor);
    tensors.back().name = "base_model." + tensor.name;
  }
  for (const StoredTensor& tensor : adapter.saved) put(tensor, tensor.name);
  return tensors;
}

/// The alpha that gives a layer its scale.
LOWRANK_INLINE double alpha_of(const ModuleTensors& layer, bool use_rslora) {
  const auto r = static_cast<double>(layer.rank());
  return layer.scale * (use_rslora ? std::sqrt(r) : r);
}

/// The configuration with patterns that still say the truth when their keys are sorted, as they will be in the file: the given ones where
/// they do, otherwise one exact path a module.
LOWRANK_INLINE LoraConfig with_true_patterns(const Adapter& adapter) {
  LoraConfig config = adapter.config;
  if (config.peft_type != "LORA") return config;
  std::sort(config.rank_pattern.begin(), config.rank_pattern.end());
  std::sort(config.alpha_pattern.begin(), config.alpha_pattern.end());
  const PatternTable<Index> ranks(config.rank_pattern, "rank_pattern");
  const PatternTable<double> alphas(config.alpha_pattern, "alpha_pattern");
  const bool true_already = std::all_of(adapter.layers.begin(), adapter.layers.end(), [&](const auto& entry) {
    const auto& [path, layer] = entry;
    return ranks.value(path, config.rank) == layer.rank() &&
           lora_scale(layer.rank(), alphas.value(path, config.alpha), config.use_rslora) == layer.scale;
  });
  if (true_already) return adapter.config;
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  for (const auto& [path, layer] : adapter.layers) {
    if (layer.rank() != config.rank) config.rank_pattern.emplace_back(path, layer.rank());
    if (lora_scale(layer.rank(), config.alpha, config.use_rslora) != layer.scale)
      config.alpha_pattern.emplace_back(path, alpha_of(layer, config.use_rslora));
  }
  return config;
}

/// Writes both files of a folder under temporary names, then renames both.
LOWRANK_INLINE void write_files(const std::filesystem::path& folder, const std::string& config, const std::vector<StoredTensor>& tensors,
                                const safetensors::Metadata& metadata) {
  AtomicFile config_file(folder / config_name, "peft::save"), tensor_file(folder / tensors_name, "peft::save");
  safetensors::write(tensor_file, path_text(folder / tensors_name), tensors, metadata);
  config_file.write(config);
  tensor_file.finish();
  config_file.finish();
  tensor_file.publish();
  config_file.publish();
}

}  // namespace detail

LOWRANK_INLINE void save(const Adapter& adapter, const std::filesystem::path& folder) {
  const LoraConfig config = detail::with_true_patterns(adapter);
  const std::string text = config_text(config);
  const std::vector<StoredTensor> tensors = detail::named_tensors(adapter);
  detail::make_assembler(parse_config(text, path_text(folder)), path_text(folder)).assemble(tensors);
  std::error_code error;
  const bool existed = std::filesystem::is_directory(folder, error);
  if (!existed) std::filesystem::create_directories(folder, error);
  check<IoError>(existed || !error, "peft::save", path_text(folder), " cannot be created: ", error.message(),
                 "; give a folder in a place that is writable");
  try {
    detail::write_files(folder, text, tensors, detail::needs_of(adapter.config));
  } catch (...) {
    if (!existed) std::filesystem::remove(folder, error);  // only when empty
    throw;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI::peft
