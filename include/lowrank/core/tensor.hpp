#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/print.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

static_assert(std::endian::native == std::endian::little, "every file format of the library is little-endian, and files are mapped");

/// Element types of stored tensors, in the order of the safetensors format (its writers sort by it, last first).
// clang-format off
enum class DType {
  boolean, f4, f6_e2m3, f6_e3m2, u8, i8, f8_e5m2, f8_e4m3, f8_e8m0, f8_e4m3fnuz, f8_e5m2fnuz,
  i16, u16, f16, bf16, i32, u32, f32, c64, f64, i64, u64
};

namespace detail {
struct DTypeTraits {
  std::string_view name;
  int bits;
};
inline constexpr std::array<DTypeTraits, 22> dtype_traits{{
    {"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8}, {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32}, {"U32", 32}, {"F32", 32},
    {"C64", 64}, {"F64", 64}, {"I64", 64}, {"U64", 64}
}};
// clang-format on

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::bf16;
  if constexpr (std::is_same_v<T, Half>) return DType::f16;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, std::int8_t>) return DType::i8;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, std::uint64_t>) return DType::u64;
}
}  // namespace detail

/// The name that safetensors gives an element type, such as "BF16".
constexpr std::string_view dtype_name(DType dtype) { return detail::dtype_traits[static_cast<std::size_t>(dtype)].name; }
/// Bits of one element; sub-byte types are packed without gaps.
constexpr int dtype_bits(DType dtype) { return detail::dtype_traits[static_cast<std::size_t>(dtype)].bits; }
/// The element type of that name, or nothing.
constexpr std::optional<DType> dtype_from_name(std::string_view name) {
  for (std::size_t i = 0; i < detail::dtype_traits.size(); ++i)
    if (detail::dtype_traits[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

/// A named array as a file holds it: element type, shape (outermost dimension first, row-major) and bytes, owned or mapped.
///
/// An aggregate, so that shape and bytes may disagree until someone reads it; what reads the bytes calls check_bytes() first.
struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<Index> shape = {};
  Buffer bytes = {};

  /// Number of elements; 1 for the empty shape. Throws ShapeError for a negative size and for a product that memory cannot hold.
  Index size() const { return element_count("stored_tensor", name, shape); }
  /// Throws ShapeError unless the bytes are those of the shape and the element type.
  void check_bytes(std::string_view operation) const;
};

inline std::string describe(DType dtype) { return std::string(dtype_name(dtype)); }
/// `model.norm.weight F32 [576], 2.3 kB`.
inline std::string describe(const StoredTensor& tensor) {
  return concat(printable(tensor.name, 80), ' ', dtype_name(tensor.dtype), ' ', shape_text(tensor.shape), ", ",
                bytes_text(tensor.bytes.size()));
}

/// Copies numbers into a tensor of that name and shape. Throws ShapeError when their count is not the shape's, or the shape is none.
template <class T>
StoredTensor make_tensor(std::string name, std::vector<Index> shape, std::span<const T> values) {
  StoredTensor tensor{std::move(name), detail::dtype_of<T>(), std::move(shape), Buffer::allocate(values.size_bytes())};
  check<ShapeError>(tensor.size() == static_cast<Index>(values.size()), "make_tensor", tensor.name, " has ", values.size(),
                    " values but the shape ", shape_text(tensor.shape));
  if (!values.empty()) std::memcpy(tensor.bytes.mutable_as<std::byte>(), values.data(), values.size_bytes());
  return tensor;
}

/// The elements of an F32, F64, BF16 or F16 tensor as float, in storage order. Throws FormatError for other element types, ShapeError where
/// shape and bytes disagree.
std::vector<float> to_floats(const StoredTensor& tensor);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/core/tensor.inl>
#endif
