#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>

/// 4-bit weights written as bitsandbytes 0.50 writes them: the same tensors, the same JSON, byte by byte (see bitsandbytes.hpp).

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

namespace detail {

/// The tensors of a weight with that state, made of its parts.
std::vector<StoredTensor> tensors(const QuantState& state, const Parts& parts, const std::string& prefix);

template <class Scales>
Parts parts_of(const TableStorage<Scales>& storage) {
  Parts parts{.codes = storage.codes(), .absmax = storage.scales().absmax(), .map = storage.table()};
  if constexpr (Scales::is_double_quantized) {
    parts.nested_absmax = storage.scales().nested_absmax();
    parts.nested_map = storage.scales().map();
  }
  return parts;
}

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
  QuantState state{std::string(Format::quant_type),     Format::block, w.rows(), w.cols(), std::string(dtype),
                   Format::Scales::is_double_quantized, 0.0f};
  if constexpr (Format::Scales::is_double_quantized) state.nested_offset = w.storage().scales().offset();
  return detail::tensors(state, detail::parts_of(w.storage()), prefix);
}

/// The same for a weight in whatever format `load` found.
template <class... Formats>
std::vector<StoredTensor> tensors(const std::variant<QuantizedMatrix<Formats>...>& w, const std::string& prefix,
                                  std::string_view dtype = "float32") {
  return std::visit([&](const auto& matrix) { return tensors(matrix, prefix, dtype); }, w);
}

namespace detail {

/// Throws ValueError where there is no format of that type with such blocks.
void check_format(std::string_view quant_type, Index block);

}  // namespace detail

/// Quantizes to a format that is chosen at run time: nf4 or fp4, blocks of 32 to 4096, plain or double-quantized scales; the scales by
/// search if one is given. Throws ValueError for another format, or naming the first weight that is not finite.
template <Source Weights, class Matrices = AnyMatrix>
Matrices quantize(const Weights& w, std::string_view quant_type, Index block, bool is_nested,
                  const std::optional<Search>& search = std::nullopt) {
  detail::check_format(quant_type, block);
  Matrices matrix;
  detail::visit_format<Matrices>(quant_type, block, is_nested, [&]<class Format>(Format) {
    matrix = search ? lowrank::quantize<Format>(w, *search) : lowrank::quantize<Format>(w);
  });
  return matrix;
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
