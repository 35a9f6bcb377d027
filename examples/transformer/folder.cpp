#include <transformer/folder.hpp>

#include <lowrank/core/buffer.hpp>
#include <lowrank/error.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/safetensors_folder.hpp>

namespace transformer {

FolderTensors::FolderTensors(const std::filesystem::path& folder)
    : folder_(folder), files_(lowrank::safetensors::open_folder(folder, "load_folder")) {
  for (std::size_t i = 0; i < files_.size(); ++i)
    for (const auto& tensor : files_[i].tensors()) where_.emplace(tensor.name, i);
}

const lowrank::safetensors::File& FolderTensors::file_of(const std::string& name) const {
  const auto found = where_.find(name);
  lowrank::check<lowrank::FormatError>(found != where_.end(), "load_folder", folder_.string(), ": no tensor ", name,
                                       "; the model is incomplete, or not of the type that config.json says");
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
                                         ": unexpected tensor ", lowrank::name_text(name),
                                         "; the model_type that config.json names has no such tensor");
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
