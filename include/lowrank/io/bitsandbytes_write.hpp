#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>

/// 4-bit weights written as bitsandbytes 0.50 writes them: the same tensors, the same JSON, byte by byte (see bitsandbytes.hpp).

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

namespace detail {

/// A finite number as Python's repr: the fewest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
inline std::string python_text(double number) {
  char digits[400];
  const double magnitude = std::abs(number);
  const bool is_plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), number, is_plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  const std::string text(digits, end);
  return is_plain && text.find('.') == text.npos ? text + ".0" : text;
}

inline StoredTensor view(std::string name, DType dtype, std::vector<Index> shape, const Buffer& bytes) {
  return {std::move(name), dtype, std::move(shape), bytes};
}

template <std::size_t N>
StoredTensor table_tensor(std::string name, const std::array<float, N>& values) {
  return make_tensor<float>(std::move(name), {static_cast<Index>(N)}, values);
}

inline void check_state(const QuantState& state) {
  const auto size = checked_product(state.rows, state.cols);
  check<ShapeError>(size && *size > 0, "bitsandbytes", "a weight of [", state.rows, ", ", state.cols,
                    "] cannot be saved; it needs an element");
  check<ValueError>(state.dtype == "float32" || state.dtype == "bfloat16" || state.dtype == "float16", "bitsandbytes", "the dtype is ",
                    name_text(state.dtype), "; give float32, bfloat16 or float16, that of the weight before quantization");
  check<ValueError>(std::isfinite(state.nested_offset), "bitsandbytes", "the offset of the scales is ", state.nested_offset,
                    "; it must be finite");
}

}  // namespace detail

/// The JSON of a quant_state: bitsandbytes' keys, order, separators and digits.
inline std::string quant_state_text(const QuantState& state) {
  std::string text = concat(R"({"quant_type": ")", state.quant_type, R"(", "blocksize": )", state.block, R"(, "dtype": ")", state.dtype,
                            R"(", "shape": [)", state.rows, ", ", state.cols, ']');
  if (state.is_nested)
    text += concat(R"(, "nested_blocksize": )", DoubleQuant::nested_block, R"(, "nested_dtype": "float32", "nested_offset": )",
                   detail::python_text(static_cast<double>(state.nested_offset)));
  return text + '}';
}

/// The tensors that stand for a layer's weight [out, in] in a checkpoint; `dtype` is what the weight had before it was quantized (float32,
/// bfloat16, float16) and what bitsandbytes will decode to.
///
/// Codes and scales are shared, not copied; the maps are those that the matrix has. What `load` reads comes out as it was, byte by byte.
/// Throws ValueError for another dtype, ShapeError for an empty weight.
template <class Format>
std::vector<StoredTensor> tensors(const QuantizedMatrix<Format>& w, const std::string& prefix, std::string_view dtype = "float32") {
  const auto& storage = w.storage();
  QuantState state{std::string(Format::quant_type),     Format::block, w.rows(), w.cols(), std::string(dtype),
                   Format::Scales::is_double_quantized, 0.0f};
  if constexpr (Format::Scales::is_double_quantized) state.nested_offset = storage.scales().offset();
  detail::check_state(state);
  const std::string weight = prefix + ".weight", text = quant_state_text(state);
  const Index blocks = storage.blocks();
  std::vector<StoredTensor> all{
      detail::view(weight, DType::u8, {static_cast<Index>(storage.codes().size()), 1}, storage.codes()),
      detail::view(weight + ".absmax", Format::Scales::is_double_quantized ? DType::u8 : DType::f32, {blocks}, storage.scales().absmax()),
      detail::table_tensor(weight + ".quant_map", storage.table())};
  if constexpr (Format::Scales::is_double_quantized) {
    const Buffer& nested = storage.scales().nested_absmax();
    all.push_back(detail::view(weight + ".nested_absmax", DType::f32, {ceil_div(blocks, DoubleQuant::nested_block)}, nested));
    all.push_back(detail::table_tensor(weight + ".nested_quant_map", storage.scales().map()));
  }
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  all.push_back(
      make_tensor<std::uint8_t>(prefix + std::string(detail::state_key) + state.quant_type, {static_cast<Index>(bytes.size())}, bytes));
  return all;
}

/// The same for a weight in whatever format `load` found.
template <class... Formats>
std::vector<StoredTensor> tensors(const std::variant<QuantizedMatrix<Formats>...>& w, const std::string& prefix,
                                  std::string_view dtype = "float32") {
  return std::visit([&](const auto& matrix) { return tensors(matrix, prefix, dtype); }, w);
}

namespace detail {
template <std::size_t I = 0, Source Weights>
AnyMatrix quantize_matching(const Weights& w, std::string_view quant_type, Index block, bool is_nested,
                            const std::optional<Search>& search) {
  using Format = typename FormatOf<std::variant_alternative_t<I, AnyMatrix>>::type;
  if (quant_type == Format::quant_type && block == Format::block && is_nested == Format::Scales::is_double_quantized)
    return search ? lowrank::quantize<Format>(w, *search) : lowrank::quantize<Format>(w);
  if constexpr (I + 1 < std::variant_size_v<AnyMatrix>)
    return quantize_matching<I + 1>(w, quant_type, block, is_nested, search);
  else
    fail<ValueError>("bitsandbytes", "no format ", name_text(quant_type), " with blocks of ", block,
                     "; give nf4 or fp4, and a power of two from 32 to 4096");
}
}  // namespace detail

/// Quantizes to a format that is chosen at run time: nf4 or fp4, blocks of 32 to 4096, plain or double-quantized scales; the scales by
/// search if one is given. Throws ValueError for another format, or naming the first weight that is not finite.
template <Source Weights>
AnyMatrix quantize(const Weights& w, std::string_view quant_type, Index block, bool is_nested,
                   const std::optional<Search>& search = std::nullopt) {
  return detail::quantize_matching(w, quant_type, block, is_nested, search);
}

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
