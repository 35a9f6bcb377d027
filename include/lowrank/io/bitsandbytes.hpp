#pragma once

#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/io/bytes.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/quant/any_matrix.hpp>
#include <lowrank/quant/fp4.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

/// 4-bit weights as bitsandbytes saves them. For a layer with prefix P:
///
/// P.weight: codes, two a byte; P.weight.absmax: fp32[blocks], or uint8[blocks] when nested; P.weight.quant_map: fp32[16];
/// P.weight.nested_absmax: fp32[ceil(blocks / 256)]; P.weight.nested_quant_map: fp32[256];
/// P.weight.quant_state.bitsandbytes__nf4 (or __fp4): JSON with quant_type, blocksize, dtype, shape [out, in], and when nested
/// nested_blocksize, nested_dtype, nested_offset. The stored maps are used, not recomputed.

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

/// What the JSON beside a weight says.
struct QuantState {
  std::string quant_type;  // nf4 or fp4
  Index block = 64;
  Index rows = 0, cols = 0;
  std::string dtype;  // of the weight before quantization: float32, bfloat16 or float16
  bool is_nested = false;
  float nested_offset = 0;
};

namespace detail {

template <template <int, class> class Format, class Scales>
using AllBlocks =
    std::variant<QuantizedMatrix<Format<32, Scales>>, QuantizedMatrix<Format<64, Scales>>, QuantizedMatrix<Format<128, Scales>>,
                 QuantizedMatrix<Format<256, Scales>>, QuantizedMatrix<Format<512, Scales>>, QuantizedMatrix<Format<1024, Scales>>,
                 QuantizedMatrix<Format<2048, Scales>>, QuantizedMatrix<Format<4096, Scales>>>;

template <class... Variants>
struct Join;
template <class... A>
struct Join<std::variant<A...>> {
  using type = std::variant<A...>;
};
template <class... A, class... B, class... Rest>
struct Join<std::variant<A...>, std::variant<B...>, Rest...> : Join<std::variant<A..., B...>, Rest...> {};

constexpr std::string_view state_key = ".weight.quant_state.bitsandbytes__";

std::string where(const safetensors::File& file, const std::string& prefix);

}  // namespace detail

/// Every format that bitsandbytes writes.
using AnyMatrix = typename detail::Join<detail::AllBlocks<Nf4, PlainScales>, detail::AllBlocks<Nf4, DoubleQuant>,
                                        detail::AllBlocks<Fp4, PlainScales>, detail::AllBlocks<Fp4, DoubleQuant>>::type;

/// Whether the layer with that prefix has a 4-bit weight in the file.
bool contains(const safetensors::File& file, const std::string& prefix);

/// What the file says about the layer's weight. Throws FormatError when it says nothing, or nothing that makes sense.
QuantState quant_state(const safetensors::File& file, const std::string& prefix);

namespace detail {

/// What a file holds of a weight, checked against its state; the nested parts are those of scales in 8 bits.
struct Parts {
  Buffer codes, absmax, nested_absmax = {};
  std::array<float, 16> map = {};
  std::array<float, 256> nested_map = {};
};
Parts parts(const safetensors::File& file, const std::string& prefix, const QuantState& state);

/// Calls visit(Format()) for the one of the variant's formats that has these properties; whether there is one.
template <class... Formats, class Visit>
bool visit_format(std::type_identity<std::variant<QuantizedMatrix<Formats>...>>, std::string_view quant_type, Index block, bool is_nested,
                  const Visit& visit) {
  return ((Formats::quant_type == quant_type && Formats::block == block && Formats::Scales::is_double_quantized == is_nested &&
           (visit(Formats()), true)) ||
          ...);
}
template <class Matrices, class Visit>
bool visit_format(std::string_view quant_type, Index block, bool is_nested, const Visit& visit) {
  return visit_format(std::type_identity<Matrices>(), quant_type, block, is_nested, visit);
}

/// The storage of a weight, made of its parts.
template <class Scales>
TableStorage<Scales> storage_of(const QuantState& state, const Parts& parts) {
  const Index blocks = ceil_div(state.rows * state.cols, state.block);
  const auto with = [&](typename Scales::Storage scales) {
    return TableStorage<Scales>(state.quant_type, state.block, state.rows, state.cols, parts.codes, std::move(scales), parts.map);
  };
  if constexpr (Scales::is_double_quantized)
    return with({state.quant_type, blocks, parts.absmax, parts.nested_absmax, state.nested_offset, parts.nested_map});
  else
    return with({state.quant_type, blocks, parts.absmax});
}

template <class Format>
QuantizedMatrix<Format> matrix_of(const QuantState& state, const Parts& parts) {
  return QuantizedMatrix<Format>(TableBlocks<Format>(storage_of<typename Format::Scales>(state, parts)));
}

}  // namespace detail

/// The 4-bit weight of a layer as Format, which must be the file's; it shares the mapped bytes. Throws FormatError.
template <class Format>
QuantizedMatrix<Format> load_as(const safetensors::File& file, const std::string& prefix) {
  const QuantState state = quant_state(file, prefix);
  constexpr bool is_nested = Format::Scales::is_double_quantized;
  check<FormatError>(state.quant_type == Format::quant_type && state.block == Format::block && state.is_nested == is_nested, "bitsandbytes",
                     detail::where(file, prefix), " is ", state.quant_type, " with blocks of ", state.block,
                     state.is_nested ? ", nested" : ", plain", ", but ", Format::quant_type, " with blocks of ", Format::block,
                     is_nested ? ", nested" : ", plain", " was asked for");
  return detail::matrix_of<Format>(state, detail::parts(file, prefix, state));
}

/// The 4-bit weight of a layer in whatever format the file has it, as a variant of QuantizedMatrix: of all of them, or, with a
/// variant of fewer for Matrices, of those that a program knows. Throws FormatError.
template <class Matrices = AnyMatrix>
Matrices load(const safetensors::File& file, const std::string& prefix) {
  const QuantState state = quant_state(file, prefix);
  Matrices matrix;
  const auto read = [&](auto format) { matrix = detail::matrix_of<decltype(format)>(state, detail::parts(file, prefix, state)); };
  if (detail::visit_format<Matrices>(state.quant_type, state.block, state.is_nested, read)) return matrix;
  fail<FormatError>("bitsandbytes", detail::where(file, prefix), ": no format with blocks of ", state.block);
}

/// The same as a weight whose format is known at run time only.
lowrank::AnyMatrix load_weight(const safetensors::File& file, const std::string& prefix);

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/bitsandbytes.inl>
#endif
