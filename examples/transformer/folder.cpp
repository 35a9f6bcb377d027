#include <transformer/folder.hpp>

#include <string_view>

#include <lowrank/core/buffer.hpp>
#include <lowrank/error.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/json.hpp>

#include <transformer/data.hpp>

namespace transformer {

namespace {

bool is_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 && name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}
/// The files that an index lists.
std::set<std::string> shard_names(const std::filesystem::path& index) {
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

}  // namespace

FolderTensors::FolderTensors(const std::filesystem::path& folder) : folder_(folder) {
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

const lowrank::safetensors::File& FolderTensors::file_of(const std::string& name) const {
  const auto found = where_.find(name);
  lowrank::check<lowrank::FormatError>(found != where_.end(), "load_folder", folder_.string(), ": no tensor ", name,
                                       "; the model is incomplete or not a Llama");
  return files_[found->second];
}

const lowrank::StoredTensor& FolderTensors::take(const std::string& name, const std::vector<Index>& shape) {
  const auto& tensor = file_of(name).at(name);
  lowrank::check<lowrank::FormatError>(tensor.shape == shape, "load_folder", folder_.string(), ": tensor ", name, " is ",
                                       lowrank::shape_text(tensor.shape), " but config.json asks for ", lowrank::shape_text(shape));
  taken_.insert(name);
  return tensor;
}

void FolderTensors::mark(const std::string& name) {
  for (auto entry = where_.lower_bound(name); entry != where_.end() && entry->first.starts_with(name); ++entry)
    if (entry->first.size() == name.size() || entry->first[name.size()] == '.') taken_.insert(entry->first);
}

void FolderTensors::finish() const {
  for (const auto& [name, file] : where_)
    lowrank::check<lowrank::FormatError>(taken_.contains(name) || name.ends_with("rotary_emb.inv_freq"), "load_folder", folder_.string(),
                                         ": unexpected tensor ", lowrank::name_text(name), "; this is not the plain Llama architecture");
}

void copy_whole(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto bytes = lowrank::Buffer::map(from);
  lowrank::AtomicFile file(to, "copy");
  file.write(bytes.bytes());
  file.commit();
}

void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool is_text = extension == ".json" || extension == ".txt" || extension == ".jinja" || extension == ".model";
    if (!entry.is_regular_file() || !is_text || name == "config.json" || name.ends_with(".index.json")) continue;
    copy_whole(entry.path(), to / name);
  }
}

}  // namespace transformer
