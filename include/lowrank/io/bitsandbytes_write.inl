#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <span>

namespace lowrank::inline LOWRANK_ABI::bitsandbytes {

namespace detail {

/// A finite number as Python's repr: the fewest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
LOWRANK_INLINE std::string python_text(double number) {
  char digits[400];
  const double magnitude = std::abs(number);
  const bool is_plain = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end =
      std::to_chars(digits, digits + sizeof(digits), number, is_plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  const std::string text(digits, end);
  return is_plain && text.find('.') == text.npos ? text + ".0" : text;
}

LOWRANK_INLINE void check_state(const QuantState& state) {
  const auto size = checked_product(state.rows, state.cols);
  check<ShapeError>(size && *size > 0, "bitsandbytes", "a weight of [", state.rows, ", ", state.cols,
                    "] cannot be saved; it needs an element");
  check<ValueError>(state.dtype == "float32" || state.dtype == "bfloat16" || state.dtype == "float16", "bitsandbytes", "the dtype is ",
                    name_text(state.dtype), "; give float32, bfloat16 or float16, that of the weight before quantization");
  check<ValueError>(std::isfinite(state.nested_offset), "bitsandbytes", "the offset of the scales is ", state.nested_offset,
                    "; it must be finite");
}

LOWRANK_INLINE std::vector<StoredTensor> tensors(const QuantState& state, const Parts& parts, const std::string& prefix) {
  check_state(state);
  const Index blocks = ceil_div(state.rows * state.cols, state.block);
  const std::string weight = prefix + ".weight", text = quant_state_text(state);
  const auto table = [&](const char* name, std::span<const float> values) {
    return make_tensor<float>(weight + name, {static_cast<Index>(values.size())}, values);
  };
  std::vector<StoredTensor> all{{weight, DType::u8, {static_cast<Index>(parts.codes.size()), 1}, parts.codes},
                                {weight + ".absmax", state.is_nested ? DType::u8 : DType::f32, {blocks}, parts.absmax},
                                table(".quant_map", parts.map)};
  if (state.is_nested) {
    all.push_back({weight + ".nested_absmax", DType::f32, {ceil_div(blocks, DoubleQuant::nested_block)}, parts.nested_absmax});
    all.push_back(table(".nested_quant_map", parts.nested_map));
  }
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  all.push_back(make_tensor<std::uint8_t>(prefix + std::string(state_key) + state.quant_type, {static_cast<Index>(bytes.size())}, bytes));
  return all;
}

}  // namespace detail

LOWRANK_INLINE std::string quant_state_text(const QuantState& state) {
  std::string text = concat(R"({"quant_type": ")", state.quant_type, R"(", "blocksize": )", state.block, R"(, "dtype": ")", state.dtype,
                            R"(", "shape": [)", state.rows, ", ", state.cols, ']');
  if (state.is_nested)
    text += concat(R"(, "nested_blocksize": )", DoubleQuant::nested_block, R"(, "nested_dtype": "float32", "nested_offset": )",
                   detail::python_text(static_cast<double>(state.nested_offset)));
  return text + '}';
}

LOWRANK_INLINE SavedWeight save_weight(const lowrank::AnyMatrix& w, const QuantState& state, const std::string& prefix,
                                       const std::optional<Search>& search) {
  SavedWeight saved;
  detail::quantize_as(w, state.quant_type, state.block, state.is_nested, search, [&](auto matrix) {
    saved.tensors = tensors(matrix, prefix, state.dtype);
    saved.matrix = lowrank::AnyMatrix(std::move(matrix));
  });
  return saved;
}

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
