#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/json.hpp>
#include <lowrank/io/safetensors.hpp>

#include <transformer/data.hpp>

namespace transformer {

/// All safetensors of a folder as one set of names: model.safetensors, or the shards that its index lists.
class FolderTensors {
 public:
  explicit FolderTensors(const std::filesystem::path& folder) : folder_(folder) {
    const auto index = folder / "model.safetensors.index.json";
    std::set<std::string> names{"model.safetensors"};
    if (std::filesystem::exists(index)) names = shard_names(index);
    for (const std::string& name : names) {
      files_.push_back(lowrank::safetensors::File::open(folder / name));
      for (const auto& tensor : files_.back().tensors()) {
        const bool fresh = where_.emplace(tensor.name, files_.size() - 1).second;
        lowrank::check<lowrank::FormatError>(fresh, "load_folder", folder.string(), ": tensor ", lowrank::name_text(tensor.name),
                                             " occurs in two shards");
      }
    }
  }

  bool has(const std::string& name) const { return where_.contains(name); }
  const std::vector<lowrank::safetensors::File>& files() const { return files_; }
  /// The file that has the tensor.
  const lowrank::safetensors::File& file_of(const std::string& name) const {
    const auto found = where_.find(name);
    lowrank::check<lowrank::FormatError>(found != where_.end(), "load_folder", folder_.string(), ": no tensor ", name,
                                         "; the model is incomplete or not a Llama");
    return files_[found->second];
  }
  /// The tensor, marked as read, of that shape.
  const lowrank::StoredTensor& take(const std::string& name, const std::vector<Index>& shape) {
    const auto& tensor = file_of(name).at(name);
    lowrank::check<lowrank::FormatError>(tensor.shape == shape, "load_folder", folder_.string(), ": tensor ", name, " is ",
                                         lowrank::shape_text(tensor.shape), " but config.json asks for ", lowrank::shape_text(shape));
    taken_.insert(name);
    return tensor;
  }
  /// Marks a tensor and all that belong to it (name.…) as read.
  void mark(const std::string& name) {
    for (auto entry = where_.lower_bound(name); entry != where_.end() && entry->first.starts_with(name); ++entry)
      if (entry->first.size() == name.size() || entry->first[name.size()] == '.') taken_.insert(entry->first);
  }
  /// Throws FormatError if a tensor was left over.
  void finish() const {
    for (const auto& [name, file] : where_)
      lowrank::check<lowrank::FormatError>(taken_.contains(name) || name.ends_with("rotary_emb.inv_freq"), "load_folder", folder_.string(),
                                           ": unexpected tensor ", lowrank::name_text(name), "; this is not the plain Llama architecture");
  }

 private:
  static bool is_file_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
           name.find_first_of(std::string_view("/\0", 2)) == name.npos;
  }
  std::set<std::string> shard_names(const std::filesystem::path& index) const {
    const auto json = lowrank::json::parse(read_text(index), "load_folder", index.string());
    lowrank::check<lowrank::FormatError>(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(), "load_folder",
                                         index.string(), " has no weight_map");
    std::set<std::string> names;
    for (const auto& [tensor, file] : json["weight_map"].items()) {
      lowrank::check<lowrank::FormatError>(file.is_string() && is_file_name(file.get<std::string>()), "load_folder", index.string(),
                                           ": the file of ", lowrank::name_text(tensor), " is ", lowrank::json::excerpt(file),
                                           " but must be a name of 1 to 255 bytes in the same folder");
      names.insert(file.get<std::string>());
    }
    return names;
  }

  std::filesystem::path folder_;
  std::vector<lowrank::safetensors::File> files_;
  std::map<std::string, std::size_t> where_;
  std::set<std::string> taken_;
};

}  // namespace transformer
