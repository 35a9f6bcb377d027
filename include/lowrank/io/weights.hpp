#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/tensor.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The weights of a model's files by name, mapped: nothing is read before it is used. A value; copies share the mapping, as does whatever
/// it gives, so that it may go before its matrices do.
///
///   const Weights weights = load_weights("model.gguf");
///   AnyLinear query{weights.matrix("blk.0.attn_q.weight")};
/// A name that is not there is a FormatError with the names that are nearest.
class Weights {
 public:
  /// Nothing, to be assigned.
  Weights() : content_(std::make_shared<const Content>()) {}

  std::size_t size() const { return content_->tensors.size(); }
  bool contains(std::string_view name) const { return content_->tensors.find(name) != content_->tensors.end(); }
  /// In alphabetical order.
  std::vector<std::string> names() const;
  /// The file or folder.
  const std::filesystem::path& path() const { return content_->path; }

  /// Sizes, outermost dimension first; of a 4-bit weight of bitsandbytes [out, in].
  std::vector<Index> shape(std::string_view name) const;
  /// A tensor of two dimensions [rows, cols] in the format that the file has it in. Throws FormatError for other shapes and for formats
  /// that are not read.
  AnyMatrix matrix(std::string_view name) const;
  /// The numbers of a tensor of one dimension [n], or of none [1]. Throws FormatError for other shapes, and unless it is F32, F64, F16 or
  /// BF16.
  Column<float> vector(std::string_view name) const;
  /// A dense tensor of any shape, where it lies. Throws FormatError for blocks of few bits.
  StoredTensor tensor(std::string_view name) const;

 private:
  /// A 4-bit weight of bitsandbytes is one entry, made of its parts.
  using Tensor = std::variant<StoredTensor, gguf::Tensor, AnyMatrix>;
  struct Content {
    std::filesystem::path path = {};
    std::map<std::string, Tensor, std::less<>> tensors = {};
  };

  explicit Weights(Content content) : content_(std::make_shared<const Content>(std::move(content))) {}
  const Tensor& at(std::string_view name) const;
  static void add_gguf(Content& content);
  static void add_safetensors(Content& content, const safetensors::File& file);

  friend Weights load_weights(const std::filesystem::path& path);

  std::shared_ptr<const Content> content_;
};

/// `Weights of "model.gguf": 291 tensors`.
std::string describe(const Weights& weights);

/// The weights of a GGUF file, a safetensors file, or a Hugging Face folder (model.safetensors, or the shards that its index lists), told
/// apart by what they hold, not by their names.
///
/// Throws IoError, and FormatError for a file of another kind or damaged, a GGUF file that is one part of several, and whatever
/// safetensors::open_folder refuses. Whether all numbers are finite is not looked at: first_row_not_finite() does that, at a pass over
/// them.
Weights load_weights(const std::filesystem::path& path);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/weights.inl>
#endif
