#pragma once

#include <array>
#include <cstring>
#include <string>
#include <string_view>
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

template <class Matrix>
struct FormatOf;
template <class Format>
struct FormatOf<QuantizedMatrix<Format>> {
  using type = Format;
};

constexpr std::string_view state_key = ".weight.quant_state.bitsandbytes__";

std::string where(const safetensors::File& file, const std::string& prefix);

/// A part of a weight, of the expected type, shape and, for floats, finite.
const StoredTensor& part(const safetensors::File& file, const std::string& name, DType dtype, Index size);

template <std::size_t N>
std::array<float, N> table(const safetensors::File& file, const std::string& name) {
  std::array<float, N> values;
  std::memcpy(values.data(), part(file, name, DType::f32, static_cast<Index>(N)).bytes.data(), sizeof(values));
  return values;
}

void refuse_strangers(const safetensors::File& file, const std::string& weight, bool is_nested);

}  // namespace detail

/// Every format that bitsandbytes writes.
using AnyMatrix = typename detail::Join<detail::AllBlocks<Nf4, PlainScales>, detail::AllBlocks<Nf4, DoubleQuant>,
                                        detail::AllBlocks<Fp4, PlainScales>, detail::AllBlocks<Fp4, DoubleQuant>>::type;

/// Whether the layer with that prefix has a 4-bit weight in the file.
bool contains(const safetensors::File& file, const std::string& prefix);

/// What the file says about the layer's weight. Throws FormatError when it says nothing, or nothing that makes sense.
QuantState quant_state(const safetensors::File& file, const std::string& prefix);

/// The 4-bit weight of a layer as Format, which must be the file's; it shares the mapped bytes. Throws FormatError.
template <class Format>
QuantizedMatrix<Format> load_as(const safetensors::File& file, const std::string& prefix) {
  const QuantState state = quant_state(file, prefix);
  const std::string weight = prefix + ".weight";
  constexpr bool is_nested = Format::Scales::is_double_quantized;
  check<FormatError>(state.quant_type == Format::quant_type && state.block == Format::block && state.is_nested == is_nested, "bitsandbytes",
                     detail::where(file, prefix), " is ", state.quant_type, " with blocks of ", state.block,
                     state.is_nested ? ", nested" : ", plain", ", but ", Format::quant_type, " with blocks of ", Format::block,
                     is_nested ? ", nested" : ", plain", " was asked for");
  detail::refuse_strangers(file, weight, is_nested);
  const Index size = state.rows * state.cols, blocks = ceil_div(size, Format::block);
  const StoredTensor& codes = file.at(weight);
  check<FormatError>(codes.bytes.size() == static_cast<std::size_t>((size + 1) / 2), "bitsandbytes", detail::where(file, prefix),
                     ": weight has ", codes.bytes.size(), " bytes but shape [", state.rows, ", ", state.cols, "] needs ", (size + 1) / 2);
  const auto map = detail::table<16>(file, weight + ".quant_map");
  if constexpr (is_nested) {
    const auto& absmax = detail::part(file, weight + ".absmax", DType::u8, blocks);
    const auto& nested = detail::part(file, weight + ".nested_absmax", DType::f32, ceil_div(blocks, DoubleQuant::nested_block));
    const auto nested_map = detail::table<256>(file, weight + ".nested_quant_map");
    return {state.rows, state.cols, codes.bytes, absmax.bytes, nested.bytes, state.nested_offset, map, nested_map};
  } else {
    return {state.rows, state.cols, codes.bytes, detail::part(file, weight + ".absmax", DType::f32, blocks).bytes, map};
  }
}

namespace detail {

template <class Matrices, std::size_t I = 0>
Matrices load_matching(const QuantState& state, const safetensors::File& file, const std::string& prefix) {
  using Format = typename FormatOf<std::variant_alternative_t<I, Matrices>>::type;
  if (state.quant_type == Format::quant_type && state.block == Format::block && state.is_nested == Format::Scales::is_double_quantized)
    return load_as<Format>(file, prefix);
  if constexpr (I + 1 < std::variant_size_v<Matrices>)
    return load_matching<Matrices, I + 1>(state, file, prefix);
  else
    fail<FormatError>("bitsandbytes", where(file, prefix), ": no format with blocks of ", state.block);
}

}  // namespace detail

/// The 4-bit weight of a layer in whatever format the file has it, as a variant of QuantizedMatrix: of all of them, or, with a
/// variant of fewer for Matrices, of those that a program knows. Throws FormatError.
template <class Matrices = AnyMatrix>
Matrices load(const safetensors::File& file, const std::string& prefix) {
  return detail::load_matching<Matrices>(quant_state(file, prefix), file, prefix);
}

/// The same as a weight whose format is known at run time only.
lowrank::AnyMatrix load_weight(const safetensors::File& file, const std::string& prefix);

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/bitsandbytes.inl>
#endif
