#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/adapters/target.hpp>
#include <lowrank/io/adapter_parts.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI::peft {

namespace detail {

inline constexpr std::string_view prefix = "base_model.model.";

inline constexpr std::string_view config_name = "adapter_config.json", tensors_name = "adapter_model.safetensors";

inline constexpr std::size_t max_config_size = std::size_t{4} << 20;

enum class Role { a, b, embedding_a, embedding_b, bias, magnitude, saved };

struct Suffix {
  std::string_view text;
  Role role;
};

inline constexpr std::array<Suffix, 6> suffixes{{{".lora_A.weight", Role::a},
                                                 {".lora_B.weight", Role::b},
                                                 {".lora_embedding_A", Role::embedding_a},
                                                 {".lora_embedding_B", Role::embedding_b},
                                                 {".lora_B.bias", Role::bias},
                                                 {".lora_magnitude_vector", Role::magnitude}}};

/// The role of a tensor by its name without the prefix; `path` becomes the module's.
LOWRANK_INLINE Role split(std::string_view name, std::string_view& path) {
  path = name;
  for (const auto& [text, role] : suffixes) {
    if (!name.ends_with(text)) continue;
    path = name.substr(0, name.size() - text.size());
    return role;
  }
  return Role::saved;
}

/// A layer while its tensors come in.
struct Parts {
  const StoredTensor *a = nullptr, *b = nullptr, *bias = nullptr, *magnitude = nullptr;
  bool is_embedding = false;
};

/// Full tensors that a configuration announces: modules_to_save, trained biases, targeted or resized embeddings.
LOWRANK_INLINE bool is_expected_saved(const LoraConfig& config, std::string_view name) {
  const auto has = [&](std::string_view part) { return lowrank::detail::contains_name(name, part); };
  if (std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(), has)) return true;
  if (config.bias != "none" && name.ends_with(".bias")) return true;
  return has("base_layer") || has("embed_tokens") || has("lm_head") || has("wte") || has("word_embeddings");
}

/// Turns tensors by name into an adapter; strict about names, shapes, ranks and numbers.
class Assembler {
 public:
  Assembler(LoraConfig config, std::string file)
      : file_(std::move(file)),
        is_target_(config),
        ranks_(config.rank_pattern, "rank_pattern"),
        alphas_(config.alpha_pattern, "alpha_pattern") {
    adapter_.config = std::move(config);
  }

  Adapter assemble(const std::vector<StoredTensor>& tensors) {
    for (const StoredTensor& tensor : tensors) sort_in(tensor);
    for (const auto& [path, parts] : parts_) add_layer(path, parts);
    for (const std::string& name : adapter_.config.modules_to_save)
      check<FormatError>(std::any_of(adapter_.saved.begin(), adapter_.saved.end(),
                                     [&](const auto& tensor) { return lowrank::detail::contains_name(tensor.name, name); }),
                         "peft", file_, ": modules_to_save names ", name_text(name),
                         " but no tensor of it is there; the file is incomplete");
    check<FormatError>(!adapter_.layers.empty() || !adapter_.saved.empty(), "peft", file_, ": no adapter tensor in it");
    return std::move(adapter_);
  }

 private:
  void sort_in(const StoredTensor& tensor) {
    check<FormatError>(tensor.name.starts_with(prefix) && tensor.name.size() <= 1024, "peft", file_, ": unexpected tensor ",
                       name_text(tensor.name), "; names must begin with ", prefix);
    lowrank::detail::check_finite(tensor, "peft", file_);
    const std::string_view name = std::string_view(tensor.name).substr(prefix.size());
    std::string_view path;
    const Role role = split(name, path);
    if (role == Role::saved) {
      check<FormatError>(name.find("lora_") == std::string_view::npos && is_expected_saved(adapter_.config, name), "peft", file_,
                         ": unexpected tensor ", name_text(tensor.name), "; it is no part of LoRA and the configuration does not name it");
      adapter_.saved.push_back(tensor);
      adapter_.saved.back().name = name;
      return;
    }
    Parts& parts = parts_[std::string(path)];
    const bool embedding = role == Role::embedding_a || role == Role::embedding_b;
    const StoredTensor*& place = role == Role::a || role == Role::embedding_a   ? parts.a
                                 : role == Role::b || role == Role::embedding_b ? parts.b
                                 : role == Role::bias                           ? parts.bias
                                                                                : parts.magnitude;
    check<FormatError>(place == nullptr, "peft", file_, ": ", name_text(path), " has the tensors of a linear layer and of an embedding");
    place = &tensor;
    parts.is_embedding = parts.is_embedding || embedding;
  }

  void require_present(bool present, bool wanted, std::string_view path, std::string_view suffix, std::string_view reason) const {
    check<FormatError>(present || !wanted, "peft", file_, ": missing tensor ", prefix, path, suffix, ", needed as ", reason);
    check<FormatError>(!present || wanted, "peft", file_, ": unexpected tensor ", prefix, path, suffix, " without ", reason);
  }

  void add_layer(const std::string& path, const Parts& parts) {
    const LoraConfig& config = adapter_.config;
    const bool embedding = parts.is_embedding;
    require_present(parts.a, true, path, embedding ? ".lora_embedding_A" : ".lora_A.weight", "its other half is there");
    require_present(parts.b, true, path, embedding ? ".lora_embedding_B" : ".lora_B.weight", "its other half is there");
    require_present(parts.magnitude, config.use_dora, path, ".lora_magnitude_vector", "use_dora is true");
    require_present(parts.bias, config.lora_bias && !embedding, path, ".lora_B.bias", "lora_bias is true");
    check<FormatError>(std::holds_alternative<std::monostate>(config.target_modules) || is_target_(path), "peft", file_,
                       ": unexpected tensor ", parts.a->name, "; target_modules does not name its module");
    check_shapes(path, parts);
    const Index rank = ranks_.value(path, config.rank);
    const double scale = lora_scale(rank, alphas_.value(path, config.alpha), config.use_rslora);
    for (auto note : {ranks_.overlap(path), alphas_.overlap(path)})
      if (note) adapter_.notes.push_back(std::move(*note));
    const auto copy = [](const StoredTensor* tensor) { return tensor ? std::optional(*tensor) : std::nullopt; };
    adapter_.layers[path] = {*parts.a, *parts.b, scale, copy(parts.magnitude), copy(parts.bias), embedding};
  }

  void check_shapes(const std::string& path, const Parts& parts) const {
    const auto &a = *parts.a, &b = *parts.b;
    const Index rank = ranks_.value(path, adapter_.config.rank);
    check<FormatError>(a.shape.size() == 2 && b.shape.size() == 2 && a.size() > 0 && b.size() > 0, "peft", file_, ": ", path, " has A ",
                       shape_text(a.shape), " and B ", shape_text(b.shape), " but both must be matrices; convolutions are not supported");
    check<FormatError>(a.shape[0] == rank && b.shape[1] == rank, "peft", file_, ": ", path, " has A ", shape_text(a.shape), " and B ",
                       shape_text(b.shape), " but the configuration gives it rank ", rank, ": A must be [", rank, ", in], B [out, ", rank,
                       ']');
    for (const StoredTensor* vector : {parts.magnitude, parts.bias})
      check<FormatError>(!vector || vector->shape == std::vector{b.shape[0]}, "peft", file_, ": ", vector ? vector->name : "", " is ",
                         vector ? shape_text(vector->shape) : "", " but must be [", b.shape[0], "], the rows of B");
  }

  std::string file_;
  TargetMatcher is_target_;
  PatternTable<Index> ranks_;
  PatternTable<double> alphas_;
  std::map<std::string, Parts> parts_;
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

LOWRANK_INLINE LoraConfig load_config(const std::filesystem::path& path) {
  const Buffer bytes = Buffer::map(path);
  check<FormatError>(bytes.size() <= max_config_size, "peft", path_text(path), ": ", bytes.size(), " bytes are no adapter configuration");
  return parse_config({bytes.as<char>(), bytes.size()}, path_text(path));
}

}  // namespace detail

LOWRANK_INLINE Adapter load(const std::filesystem::path& folder) {
  const auto config_path = folder / detail::config_name, tensors_path = folder / detail::tensors_name;
  std::error_code ignored;
  check<IoError>(std::filesystem::is_directory(folder, ignored), "peft", path_text(folder),
                 " is not a folder; give one with adapter_config.json and adapter_model.safetensors");
  check<IoError>(std::filesystem::exists(tensors_path, ignored) || !std::filesystem::exists(folder / "adapter_model.bin", ignored), "peft",
                 path_text(folder), " holds a pickle, adapter_model.bin; save it with safe_serialization=True");
  return detail::make_assembler(detail::load_config(config_path), path_text(folder))
      .assemble(safetensors::File::open(tensors_path).tensors());
}

namespace detail {

LOWRANK_INLINE std::vector<StoredTensor> named_tensors(const Adapter& adapter) {
  std::vector<StoredTensor> tensors;
  const auto put = [&](const StoredTensor& tensor, const std::string& name) {
    tensors.push_back(tensor);
    tensors.back().name = std::string(prefix) + name;
  };
  for (const auto& [path, layer] : adapter.layers) {
    put(layer.a, path + (layer.is_embedding ? ".lora_embedding_A" : ".lora_A.weight"));
    put(layer.b, path + (layer.is_embedding ? ".lora_embedding_B" : ".lora_B.weight"));
    if (layer.magnitude) put(*layer.magnitude, path + ".lora_magnitude_vector");
    if (layer.bias) put(*layer.bias, path + ".lora_B.bias");
  }
  for (const StoredTensor& tensor : adapter.saved) put(tensor, tensor.name);
  return tensors;
}

/// The alpha that gives a layer its scale.
LOWRANK_INLINE double alpha_of(const LoraTensors& layer, bool use_rslora) {
  const auto r = static_cast<double>(layer.rank());
  return layer.scale * (use_rslora ? std::sqrt(r) : r);
}

/// The configuration with patterns that still say the truth when their keys are sorted, as they will be in the file: the given ones where
/// they do, otherwise one exact path a module.
LOWRANK_INLINE LoraConfig with_true_patterns(const Adapter& adapter) {
  LoraConfig config = adapter.config;
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
LOWRANK_INLINE void write_files(const std::filesystem::path& folder, const std::string& config, const std::vector<StoredTensor>& tensors) {
  AtomicFile config_file(folder / config_name, "peft::save"), tensor_file(folder / tensors_name, "peft::save");
  safetensors::write(tensor_file, path_text(folder / tensors_name), tensors, {{"format", "pt"}});
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
    detail::write_files(folder, text, tensors);
  } catch (...) {
    if (!existed) std::filesystem::remove(folder, error);  // only when empty
    throw;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI::peft
