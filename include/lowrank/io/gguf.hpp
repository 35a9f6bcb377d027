#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/tensor.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/file.hpp>
#include <lowrank/io/ggml_type.hpp>

/// The GGUF format, versions 2 and 3: "GGUF", u32 version, u64 tensors, u64 metadata entries, the entries (key, type, value), the tensor
/// table (name, u32 dimensions, u64 sizes innermost first, u32 type, u64 offset), then the tensors' bytes, each at a multiple of
/// `general.alignment` (32 by default). Strings are a u64 length and bytes. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

namespace lowrank::inline LOWRANK_ABI::gguf {

/// A metadata array; the place of an alternative is the number of its element type in the file.
struct Array {
  using Items =
      std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>, std::vector<std::int16_t>,
                   std::vector<std::uint32_t>, std::vector<std::int32_t>, std::vector<float>, std::vector<bool>, std::vector<std::string>,
                   std::vector<Array>, std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;
  Items items;
  bool operator==(const Array&) const = default;
};

/// A metadata value; the place of an alternative is the number of its type in the file.
using Value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, float, bool, std::string,
                           Array, std::uint64_t, std::int64_t, double>;
/// Keys and values in the order of the file.
using Metadata = std::vector<std::pair<std::string, Value>>;

/// Names of the types, in the order of Value's alternatives.
inline constexpr std::array<std::string_view, 13> value_type_names{"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                                                   "bool",  "string", "array",  "uint64", "int64",  "float64"};
inline constexpr int max_array_depth = 4;             ///< arrays in arrays
inline constexpr std::size_t default_alignment = 32;  ///< bytes; general.alignment may say otherwise

/// A tensor of the file: shape outermost dimension first, as everywhere in the library (the file has it innermost first).
struct Tensor {
  std::string name;
  GgmlType type = GgmlType::f32;
  std::vector<Index> shape = {};
  Buffer bytes = {};

  /// Elements of a row: the innermost dimension.
  Index cols() const { return shape.empty() ? 1 : shape.back(); }
  /// Rows: the product of all other dimensions; 1 for a vector.
  Index rows() const { return cols() == 0 ? 0 : size() / cols(); }
  /// Number of elements. Throws ShapeError for a negative size and for a product that memory cannot hold.
  Index size() const { return element_count("gguf", name, shape); }
};

/// Bytes that a tensor of this shape takes, or nothing when a row is no whole number of blocks or the count exceeds Index.
std::optional<Index> byte_count(GgmlType type, std::span<const Index> shape);

/// The elements of an F32, F64, F16 or BF16 tensor as float. Throws FormatError for other types.
std::vector<float> to_floats(const Tensor& tensor);

namespace detail {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

/// Numbers keep their value or are refused: integers by range, float to double and back; a bool is no number.
template <class To, class From>
std::optional<To> convert_scalar(const From& from) {
  constexpr bool has_bool = std::is_same_v<From, bool> || std::is_same_v<To, bool>;
  if constexpr (std::is_same_v<To, From>)
    return from;
  else if constexpr (std::is_integral_v<To> && std::is_integral_v<From> && !has_bool)
    return std::in_range<To>(from) ? std::optional<To>(static_cast<To>(from)) : std::nullopt;
  else if constexpr (std::is_floating_point_v<To> && std::is_floating_point_v<From>)
    return static_cast<To>(from);
  else
    return std::nullopt;
}

template <class To>
std::optional<To> convert(const Value& value) {
  if constexpr (!IsVector<To>::value) {
    return std::visit([](const auto& from) { return convert_scalar<To>(from); }, value);
  } else {
    const auto* array = std::get_if<Array>(&value);
    if (!array) return std::nullopt;
    return std::visit(
        [](const auto& items) -> std::optional<To> {
          To result;
          result.reserve(items.size());
          for (auto&& item : items) {
            auto converted = convert_scalar<typename To::value_type, typename std::decay_t<decltype(items)>::value_type>(item);
            if (!converted) return std::nullopt;
            result.push_back(std::move(*converted));
          }
          return result;
        },
        array->items);
  }
}

std::string describe(const Value& value);

}  // namespace detail

/// A GGUF file, mapped: opening reads metadata and tensor table; tensors share the mapping.
class File {
 public:
  /// Maps and checks everything up to the tensors' bytes, and that those are all inside. The first part of a model in several files
  /// (NAME-00001-of-00003.gguf, as gguf-split writes them) brings the others with it, as if they were one file. Throws IoError or
  /// FormatError; for another part, too, with the name of the first.
  static File open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::uint32_t version() const { return version_; }
  const Metadata& metadata() const { return metadata_; }
  /// In the order of the file.
  const std::vector<Tensor>& tensors() const { return tensors_; }

  /// The value of a key, or null.
  const Value* find(const std::string& key) const;

  /// The value of a key as T: bool, an integer that holds it, float, double, std::string, or a std::vector of those.
  /// Throws FormatError when the key is absent or its value does not fit.
  template <class T>
  T get(const std::string& key) const {
    const Value* value = find(key);
    check<FormatError>(value != nullptr, "gguf", path_text(path_), ": no metadata key ", name_text(key), "; the file is not complete");
    auto converted = detail::convert<T>(*value);
    check<FormatError>(converted.has_value(), "gguf", path_text(path_), ": metadata ", name_text(key), " is ", detail::describe(*value),
                       ", out of range or not of the type that is needed");
    return std::move(*converted);
  }
  /// The same, with a value for when the key is absent.
  template <class T>
  T get_or(const std::string& key, T fallback) const {
    return find(key) ? get<T>(key) : std::move(fallback);
  }

  /// The tensor of that name, or null.
  const Tensor* find_tensor(const std::string& name) const;
  /// The tensor of that name. Throws FormatError when there is none.
  const Tensor& tensor(const std::string& name) const;

 private:
  static File open_one(const std::filesystem::path& path);
  /// Reads the other parts of a first one. What only says how the model was cut (split.*) goes.
  void join(Index parts);
  void add(File part, Index number, Index parts);

  std::filesystem::path path_;
  std::uint32_t version_ = 0;
  Metadata metadata_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, std::size_t> keys_, names_;
};

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gguf.inl>
#endif
