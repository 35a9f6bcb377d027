#pragma once

#include <algorithm>
#include <optional>
#include <utility>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/safetensors_folder.hpp>
#include <lowrank/io/safetensors_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Characters that two names begin and end with alike: cheap, whatever a file's names are.
LOWRANK_INLINE std::size_t likeness(std::string_view a, std::string_view b) {
  const std::size_t shorter = std::min(a.size(), b.size());
  const auto first =
      static_cast<std::size_t>(std::mismatch(a.begin(), a.begin() + static_cast<Index>(shorter), b.begin()).first - a.begin());
  const auto last =
      static_cast<std::size_t>(std::mismatch(a.rbegin(), a.rbegin() + static_cast<Index>(shorter), b.rbegin()).first - a.rbegin());
  return std::min(shorter, first + last);
}

/// The names most like one that is not there, as "a", "b" and "c".
LOWRANK_INLINE std::string nearest_names(std::string_view name, const std::vector<std::string>& names) {
  std::vector<std::pair<std::size_t, const std::string*>> near;
  for (const std::string& other : names) near.emplace_back(likeness(name, other), &other);
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(near.size(), 3); ++i) text += (i == 0 ? "" : ", ") + name_text(*near[i].second);
  return text;
}

/// A dense tensor of a GGUF file as what other files call it.
LOWRANK_INLINE std::optional<DType> dense_type(GgmlType type) { return dtype_from_name(lowrank::ggml_traits(type).name); }

}  // namespace detail

LOWRANK_INLINE std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : content_->tensors) names.push_back(name);
  return names;
}

LOWRANK_INLINE const Weights::Tensor& Weights::at(std::string_view name) const {
  const auto found = content_->tensors.find(name);
  if (found != content_->tensors.end()) return found->second;
  fail<FormatError>("weights", path_text(path()), " has no tensor ", name_text(name), " among its ", size(),
                    size() == 0 ? "" : "; the nearest names are ", detail::nearest_names(name, names()));
}

LOWRANK_INLINE std::vector<Index> Weights::shape(std::string_view name) const {
  const Tensor& tensor = at(name);
  if (const auto* matrix = std::get_if<AnyMatrix>(&tensor)) return {matrix->rows(), matrix->cols()};
  if (const auto* blocks = std::get_if<gguf::Tensor>(&tensor)) return blocks->shape;
  return std::get<StoredTensor>(tensor).shape;
}

LOWRANK_INLINE AnyMatrix Weights::matrix(std::string_view name) const {
  const Tensor& tensor = at(name);
  if (const auto* matrix = std::get_if<AnyMatrix>(&tensor)) return *matrix;
  if (const auto* stored = std::get_if<StoredTensor>(&tensor)) return safetensors::matrix(*stored, "weights");
  const auto& blocks = std::get<gguf::Tensor>(tensor);
  check<FormatError>(blocks.shape.size() == 2, "weights", "tensor ", name_text(name), " is ", shape_text(blocks.shape),
                     "; a matrix has two dimensions [rows, cols]");
  return gguf::matrix(blocks, "weights");
}

LOWRANK_INLINE Column<float> Weights::vector(std::string_view name) const {
  const StoredTensor stored = tensor(name);
  check<FormatError>(stored.shape.size() <= 1, "weights", "tensor ", name_text(name), " is ", shape_text(stored.shape),
                     "; a vector has one dimension [n]");
  const std::vector<float> numbers = to_floats(stored);
  return Eigen::Map<const Column<float>>(numbers.data(), static_cast<Index>(numbers.size()));
}

LOWRANK_INLINE StoredTensor Weights::tensor(std::string_view name) const {
  const Tensor& tensor = at(name);
  if (const auto* stored = std::get_if<StoredTensor>(&tensor)) return *stored;
  const auto* blocks = std::get_if<gguf::Tensor>(&tensor);
  const auto dtype = blocks ? detail::dense_type(blocks->type) : std::nullopt;
  check<FormatError>(dtype.has_value(), "weights", "tensor ", name_text(name), " is ",
                     blocks ? ggml_traits(blocks->type).name : "in 4 bits of bitsandbytes", ", not dense; read it by matrix()");
  return {blocks->name, *dtype, blocks->shape, blocks->bytes};
}

LOWRANK_INLINE void Weights::add_gguf(Content& content) {
  const auto file = gguf::File::open(content.path);
  for (const gguf::Tensor& tensor : file.tensors()) content.tensors.emplace(tensor.name, tensor);
}

LOWRANK_INLINE void Weights::add_safetensors(Content& content, const safetensors::File& file) {
  constexpr std::string_view weight = ".weight";
  for (const StoredTensor& tensor : file.tensors()) {
    const std::size_t inside = tensor.name.rfind(".weight.");
    const std::string owner = tensor.name.substr(0, inside == std::string::npos ? 0 : inside);
    if (bitsandbytes::contains(file, owner) && file.contains(owner + ".weight")) continue;  // a part of that weight
    const std::string prefix = tensor.name.substr(0, tensor.name.size() - std::min(tensor.name.size(), weight.size()));
    const bool in_four_bits = tensor.name.ends_with(weight) && bitsandbytes::contains(file, prefix);
    content.tensors.emplace(tensor.name, in_four_bits ? Tensor(bitsandbytes::load_weight(file, prefix)) : Tensor(tensor));
  }
}

LOWRANK_INLINE std::string describe(const Weights& weights) {
  return concat("Weights of ", path_text(weights.path()), ": ", weights.size(), " tensors");
}

LOWRANK_INLINE Weights load_weights(const std::filesystem::path& path) {
  Weights::Content content{path};
  if (std::filesystem::is_directory(path)) {
    for (const auto& file : safetensors::open_folder(path, "load_weights")) Weights::add_safetensors(content, file);
    return Weights(std::move(content));
  }
  const Buffer bytes = Buffer::map(path);
  const std::string_view head(bytes.as<char>(), std::min<std::size_t>(bytes.size(), 9));
  if (head.starts_with("GGUF")) {
    Weights::add_gguf(content);
  } else {
    check<FormatError>(!head.starts_with("PK\x03\x04"), "load_weights", path_text(path),
                       " is a zip archive, as PyTorch saves; save the model as safetensors");
    check<FormatError>(head.size() == 9 && head[8] == '{', "load_weights", path_text(path), " begins with ", name_text(head.substr(0, 8)),
                       ": it is neither GGUF nor safetensors");
    Weights::add_safetensors(content, safetensors::File::open(path));
  }
  return Weights(std::move(content));
}

}  // namespace lowrank::inline LOWRANK_ABI
