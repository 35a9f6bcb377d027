#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/io/safetensors.hpp>
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

inline std::string where(const safetensors::File& file, const std::string& prefix) {
  return concat(path_text(file.path()), ": ", name_text(prefix));
}

/// Reads the JSON, key by key.
class StateReader {
 public:
  StateReader(std::string_view text, std::string at) : at_(std::move(at)), state_(json::parse(text, "bitsandbytes", at_ + " quant_state")) {
    check<FormatError>(state_.is_object(), "bitsandbytes", at_, " quant_state must be a JSON object");
  }

  QuantState read(std::string_view quant_type) const {
    refuse_unknown();
    require(json::is_text(value("quant_type"), {quant_type}), "quant_type", quant_type, ", as in the tensor's name");
    const auto block = json::as_index(value("blocksize"));
    require(block && quant::is_block_size(*block), "blocksize", "a power of two from 32 to 4096");
    const json::Json dtype = value("dtype");
    require(json::is_text(dtype, {"float32", "bfloat16", "float16"}), "dtype", "float32, bfloat16 or float16");
    const auto [rows, cols] = shape();
    const bool is_nested = state_.contains("nested_offset") || state_.contains("nested_blocksize") || state_.contains("nested_dtype");
    return {std::string(quant_type), *block, rows, cols, dtype.get<std::string>(), is_nested, is_nested ? nested_offset() : 0.0f};
  }

 private:
  json::Json value(const char* key) const { return json::member(state_, key); }
  template <class... Parts>
  void require(bool condition, const char* key, const Parts&... expected) const {
    check<FormatError>(condition, "bitsandbytes", at_, " quant_state: ", key, " is ", json::excerpt(value(key)), " but must be ",
                       expected...);
  }
  void refuse_unknown() const {
    constexpr std::array known{"quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"};
    for (const auto& [key, ignored] : state_.items())
      check<FormatError>(std::find(known.begin(), known.end(), key) != known.end(), "bitsandbytes", at_,
                         " quant_state has the unknown key ", name_text(key));
  }
  std::pair<Index, Index> shape() const {
    const json::Json shape = value("shape");
    const auto rows = shape.is_array() && shape.size() == 2 ? json::as_index(shape[0]) : std::nullopt;
    const auto cols = rows ? json::as_index(shape[1]) : std::nullopt;
    const auto size = cols ? checked_product(*rows, *cols) : std::nullopt;
    require(size && *size > 0 && *size <= std::numeric_limits<Index>::max() / 2, "shape", "[out, in], whole and positive");
    return {rows.value_or(0), cols.value_or(0)};
  }
  float nested_offset() const {
    require(json::as_index(value("nested_blocksize")) == DoubleQuant::nested_block, "nested_blocksize", DoubleQuant::nested_block);
    require(json::is_text(value("nested_dtype"), {"float32"}), "nested_dtype", "float32");
    const json::Json offset = value("nested_offset");
    require(offset.is_number() && std::abs(offset.get<double>()) <= std::numeric_limits<float>::max(), "nested_offset", "a finite number");
    return offset.get<float>();
  }

  std::string at_;
  json::Json state_;
};

/// A part of a weight, of the expected type, shape and, for floats, finite.
inline const StoredTensor& part(const safetensors::File& file, const std::string& name, DType dtype, Index size) {
  const StoredTensor& tensor = file.at(name);
  check<FormatError>(tensor.dtype == dtype && tensor.size() == size, "bitsandbytes", path_text(file.path()), ": ", name_text(name), " is ",
                     dtype_name(tensor.dtype), ' ', shape_text(tensor.shape), " but must be ", dtype_name(dtype), " [", size, ']');
  if (dtype != DType::f32) return tensor;
  const std::span<const float> values(tensor.bytes.as<float>(), static_cast<std::size_t>(size));
  check<FormatError>(std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); }), "bitsandbytes",
                     path_text(file.path()), ": ", name_text(name), " holds numbers that are not finite");
  return tensor;
}

template <std::size_t N>
std::array<float, N> table(const safetensors::File& file, const std::string& name) {
  std::array<float, N> values;
  std::memcpy(values.data(), part(file, name, DType::f32, static_cast<Index>(N)).bytes.data(), sizeof(values));
  return values;
}

inline void refuse_strangers(const safetensors::File& file, const std::string& weight, bool is_nested) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (!tensor.name.starts_with(weight + '.')) continue;
    const std::string_view rest = std::string_view(tensor.name).substr(weight.size() + 1);
    const bool known = rest == "absmax" || rest == "quant_map" || rest.starts_with("quant_state.") ||
                       (is_nested && (rest == "nested_absmax" || rest == "nested_quant_map"));
    check<FormatError>(known, "bitsandbytes", path_text(file.path()), ": unexpected tensor ", name_text(tensor.name));
  }
}

}  // namespace detail

/// Every format that bitsandbytes writes.
using AnyMatrix = typename detail::Join<detail::AllBlocks<Nf4, PlainScales>, detail::AllBlocks<Nf4, DoubleQuant>,
                                        detail::AllBlocks<Fp4, PlainScales>, detail::AllBlocks<Fp4, DoubleQuant>>::type;

/// Whether the layer with that prefix has a 4-bit weight in the file.
inline bool contains(const safetensors::File& file, const std::string& prefix) {
  return file.contains(prefix + std::string(detail::state_key) + "nf4") || file.contains(prefix + std::string(detail::state_key) + "fp4");
}

/// What the file says about the layer's weight. Throws FormatError when it says nothing, or nothing that makes sense.
inline QuantState quant_state(const safetensors::File& file, const std::string& prefix) {
  const std::string at = detail::where(file, prefix), key = prefix + std::string(detail::state_key);
  const StoredTensor *nf4 = file.find(key + "nf4"), *fp4 = file.find(key + "fp4");
  check<FormatError>((nf4 != nullptr) != (fp4 != nullptr), "bitsandbytes", at, " has ", nf4 ? "two" : "no",
                     " quant_state tensors but one is needed; is it a 4-bit checkpoint?");
  const StoredTensor& state = nf4 ? *nf4 : *fp4;
  check<FormatError>(state.dtype == DType::u8 && state.bytes.size() <= 65536, "bitsandbytes", at, " quant_state must be a short U8 tensor");
  return detail::StateReader({state.bytes.as<char>(), state.bytes.size()}, at).read(nf4 ? "nf4" : "fp4");
}

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

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
