#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include <lowrank/io/bytes.hpp>
#include <lowrank/io/json.hpp>

namespace lowrank::inline LOWRANK_ABI::safetensors {

namespace detail {

LOWRANK_INLINE bool is_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 && name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

/// The file of each tensor, as an index says.
LOWRANK_INLINE std::map<std::string, std::string> read_index(const std::filesystem::path& path, std::string_view operation) {
  const Buffer bytes = Buffer::map(path);
  const std::string file = path_text(path);
  const auto json = json::parse({bytes.as<char>(), bytes.size()}, operation, file);
  check<FormatError>(json.is_object(), operation, file, " is ", json::excerpt(json), " but must be an object");
  const json::Json weights = json::member(json, "weight_map");
  check<FormatError>(weights.is_object(), operation, file, " has no weight_map, an object of tensors and their files");
  std::map<std::string, std::string> files;
  for (const auto& [tensor, name] : weights.items()) {
    check<FormatError>(name.is_string() && is_file_name(name.get_ref<const std::string&>()), operation, file, ": the file of ",
                       name_text(tensor), " is ", json::excerpt(name), " but must be a name of 1 to 255 bytes in the same folder");
    files.emplace(tensor, name.get_ref<const std::string&>());
  }
  return files;
}

/// Opens the shards of an index and compares their tensors with it.
LOWRANK_INLINE std::vector<File> open_shards(const std::filesystem::path& index, std::string_view operation) {
  const auto wanted = read_index(index, operation);
  std::map<std::string, std::vector<std::string>> by_file;
  for (const auto& [tensor, file] : wanted) by_file[file].push_back(tensor);
  std::vector<File> files;
  std::map<std::string, std::string> found;
  for (const auto& [name, tensors] : by_file) {
    const auto path = index.parent_path() / name;
    check<FormatError>(std::filesystem::exists(path), operation, path_text(index), " names the shard ", name_text(name),
                       ", which is not there; download it again");
    files.push_back(File::open(path));
    for (const Tensor& tensor : files.back().tensors()) {
      const auto [other, is_new] = found.emplace(tensor.name, name);
      check<FormatError>(is_new, operation, path_text(index), ": tensor ", name_text(tensor.name), " occurs in two shards, ",
                         name_text(other->second), " and ", name_text(name));
      const auto said = wanted.find(tensor.name);
      check<FormatError>(said != wanted.end() && said->second == name, operation, path_text(index), ": tensor ", name_text(tensor.name),
                         " is in the shard ", name_text(name), " but the index says ",
                         said == wanted.end() ? "nothing of it" : "otherwise");
    }
    for (const std::string& tensor : tensors)
      check<FormatError>(files.back().contains(tensor), operation, path_text(index), ": tensor ", name_text(tensor),
                         " is not in the shard ", name_text(name), ", where it should be; the download is incomplete or the index old");
  }
  return files;
}

}  // namespace detail

LOWRANK_INLINE std::string instead_of_model(const std::filesystem::path& folder) {
  std::error_code failure;
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) names.insert(entry.path().filename().string());
  const auto first = [&](std::string_view begin, std::string_view end) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.starts_with(begin) && n.ends_with(end); });
    return found == names.end() ? std::string() : *found;
  };
  if (names.contains("adapter_config.json"))
    return " is the folder of an adapter; give it as the adapter, and the model that it was trained on as the model";
  if (const std::string pickle = first("pytorch_model", ".bin"); !pickle.empty())
    return concat(" holds ", pickle, ", a pickle, which may run code; save the model with save_pretrained(…, safe_serialization=True)");
  if (const std::string native = first("consolidated", ".safetensors"); !native.empty())
    return concat(" holds ", native, ", whose tensors have other names; take the model's files for transformers, model.safetensors");
  if (const std::string other = first("", ".pth"); !other.empty())
    return concat(" holds ", other, ", a pickle with other names; take the model's files for transformers, model.safetensors");
  if (const std::string gguf = first("", ".gguf"); !gguf.empty()) return concat(" holds ", gguf, "; give that file");
  if (const std::string shard = first("model-", ".safetensors"); !shard.empty())
    return concat(" holds ", shard, " but no model.safetensors.index.json, which says what is where; download it, too");
  return " has neither model.safetensors nor model.safetensors.index.json; give the folder of a model in safetensors";
}

LOWRANK_INLINE std::vector<File> open_folder(const std::filesystem::path& folder, std::string_view operation) {
  const auto index = folder / "model.safetensors.index.json", whole = folder / "model.safetensors";
  if (std::filesystem::exists(index)) return detail::open_shards(index, operation);
  if (!std::filesystem::exists(whole)) fail<FormatError>(operation, path_text(folder), instead_of_model(folder));
  std::vector<File> files;
  files.push_back(File::open(whole));
  return files;
}

}  // namespace lowrank::inline LOWRANK_ABI::safetensors
