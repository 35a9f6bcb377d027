#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>

/// 4-bit weights written as bitsandbytes 0.50 writes them: the same tensors, the same JSON, byte by byte (see bitsandbytes.hpp).

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

namespace detail {

StoredTensor view(std::string name, DType dtype, std::vector<Index> shape, const Buffer& bytes);

template <std::size_t N>
StoredTensor table_tensor(std::string name, const std::array<float, N>& values) {
  return make_tensor<float>(std::move(name), {static_cast<Index>(N)}, values);
}

void check_state(const QuantState& state);

}  // namespace detail

/// The JSON of a quant_state: bitsandbytes' keys, order, separators and digits.
std::string quant_state_text(const QuantState& state);

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

/// A weight in 4 bits, and the tensors that stand for it in a checkpoint.
struct SavedWeight {
  lowrank::AnyMatrix matrix;
  std::vector<StoredTensor> tensors;
};

/// quantize() and tensors() of a weight whose format is known at run time only: to state.quant_type with blocks of state.block, nested or
/// not, for a weight that was state.dtype. Throws what those do.
SavedWeight save_weight(const lowrank::AnyMatrix& w, const QuantState& state, const std::string& prefix,
                        const std::optional<Search>& search = std::nullopt);

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/bitsandbytes_write.inl>
#endif
