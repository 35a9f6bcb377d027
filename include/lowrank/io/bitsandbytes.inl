#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include <lowrank/io/json.hpp>

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

namespace detail {

LOWRANK_INLINE std::string where(const safetensors::File& file, const std::string& prefix) {
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
LOWRANK_INLINE const StoredTensor& part(const safetensors::File& file, const std::string& name, DType dtype, Index size) {
  const StoredTensor& tensor = file.at(name);
  check<FormatError>(tensor.dtype == dtype && tensor.size() == size, "bitsandbytes", path_text(file.path()), ": ", name_text(name), " is ",
                     dtype_name(tensor.dtype), ' ', shape_text(tensor.shape), " but must be ", dtype_name(dtype), " [", size, ']');
  if (dtype != DType::f32) return tensor;
  const std::span<const float> values(tensor.bytes.as<float>(), static_cast<std::size_t>(size));
  check<FormatError>(std::all_of(values.begin(), values.end(), [](float x) { return is_finite(x); }), "bitsandbytes",
                     path_text(file.path()), ": ", name_text(name), " holds numbers that are not finite");
  return tensor;
}

LOWRANK_INLINE void refuse_strangers(const safetensors::File& file, const std::string& weight, bool is_nested) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (!tensor.name.starts_with(weight + '.')) continue;
    const std::string_view rest = std::string_view(tensor.name).substr(weight.size() + 1);
    const bool known = rest == "absmax" || rest == "quant_map" || rest.starts_with("quant_state.") ||
                       (is_nested && (rest == "nested_absmax" || rest == "nested_quant_map"));
    check<FormatError>(known, "bitsandbytes", path_text(file.path()), ": unexpected tensor ", name_text(tensor.name));
  }
}

template <std::size_t N>
std::array<float, N> table(const safetensors::File& file, const std::string& name) {
  std::array<float, N> values;
  std::memcpy(values.data(), part(file, name, DType::f32, static_cast<Index>(N)).bytes.data(), sizeof(values));
  return values;
}

LOWRANK_INLINE Parts parts(const safetensors::File& file, const std::string& prefix, const QuantState& state) {
  const std::string weight = prefix + ".weight";
  refuse_strangers(file, weight, state.is_nested);
  const Index size = state.rows * state.cols, blocks = ceil_div(size, state.block);
  const StoredTensor& codes = file.at(weight);
  check<FormatError>(codes.bytes.size() == static_cast<std::size_t>((size + 1) / 2), "bitsandbytes", where(file, prefix), ": weight has ",
                     codes.bytes.size(), " bytes but shape [", state.rows, ", ", state.cols, "] needs ", (size + 1) / 2);
  Parts parts{.codes = codes.bytes, .absmax = {}, .map = table<16>(file, weight + ".quant_map")};
  parts.absmax = part(file, weight + ".absmax", state.is_nested ? DType::u8 : DType::f32, blocks).bytes;
  if (!state.is_nested) return parts;
  parts.nested_absmax = part(file, weight + ".nested_absmax", DType::f32, ceil_div(blocks, DoubleQuant::nested_block)).bytes;
  parts.nested_map = table<256>(file, weight + ".nested_quant_map");
  return parts;
}

}  // namespace detail

LOWRANK_INLINE bool contains(const safetensors::File& file, const std::string& prefix) {
  return file.contains(prefix + std::string(detail::state_key) + "nf4") || file.contains(prefix + std::string(detail::state_key) + "fp4");
}

LOWRANK_INLINE QuantState quant_state(const safetensors::File& file, const std::string& prefix) {
  const std::string at = detail::where(file, prefix), key = prefix + std::string(detail::state_key);
  const StoredTensor *nf4 = file.find(key + "nf4"), *fp4 = file.find(key + "fp4");
  check<FormatError>((nf4 != nullptr) != (fp4 != nullptr), "bitsandbytes", at, " has ", nf4 ? "two" : "no",
                     " quant_state tensors but one is needed; is it a 4-bit checkpoint?");
  const StoredTensor& state = nf4 ? *nf4 : *fp4;
  check<FormatError>(state.dtype == DType::u8 && state.bytes.size() <= 65536, "bitsandbytes", at, " quant_state must be a short U8 tensor");
  return detail::StateReader({state.bytes.as<char>(), state.bytes.size()}, at).read(nf4 ? "nf4" : "fp4");
}

LOWRANK_INLINE lowrank::AnyMatrix load_weight(const safetensors::File& file, const std::string& prefix) {
  const QuantState state = quant_state(file, prefix);
  const detail::Parts parts = detail::parts(file, prefix, state);
  return state.is_nested ? lowrank::AnyMatrix(detail::storage_of<DoubleQuant>(state, parts))
                         : lowrank::AnyMatrix(detail::storage_of<PlainScales>(state, parts));
}

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
