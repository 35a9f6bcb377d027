#pragma once

#include <charconv>
#include <cmath>

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

LOWRANK_INLINE StoredTensor view(std::string name, DType dtype, std::vector<Index> shape, const Buffer& bytes) {
  return {std::move(name), dtype, std::move(shape), bytes};
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
  return std::visit(
      [&](const auto& matrix) {
        return SavedWeight{lowrank::AnyMatrix(matrix), tensors(matrix, prefix, state.dtype)};
      },
      quantize(w, state.quant_type, state.block, state.is_nested, search));
}

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
