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
  check<ValueError>(is_finite(state.nested_offset), "bitsandbytes", "the offset of the scales is ", state.nested_offset,
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

namespace detail {

LOWRANK_INLINE void check_format(std::string_view quant_type, Index block) {
  check<ValueError>((quant_type == Nf4<>::quant_type || quant_type == Fp4<>::quant_type) && quant::is_block_size(block), "bitsandbytes",
                    "no format ", name_text(quant_type), " with blocks of ", block,
                    "; give nf4 or fp4, and a power of two from 32 to 4096");
}

template <class Scales>
SavedWeight save_with(const lowrank::AnyMatrix& w, QuantState state, const std::string& prefix, std::span<const float> fractions) {
  const bool is_nf4 = state.quant_type == Nf4<>::quant_type;
  const kernels::TableEncoder encoder{is_nf4 ? Nf4<>::rule : Fp4<>::rule, state.block, fractions};
  auto storage = TableStorage<Scales>::encode(state.quant_type, w, encoder, is_nf4 ? Nf4<>::table : Fp4<>::table);
  state.rows = w.rows(), state.cols = w.cols();
  if constexpr (Scales::is_double_quantized) state.nested_offset = storage.scales().offset();
  std::vector<StoredTensor> parts = tensors(state, parts_of(storage), prefix);
  return {lowrank::AnyMatrix(std::move(storage)), std::move(parts)};
}

}  // namespace detail

LOWRANK_INLINE SavedWeight save_weight(const lowrank::AnyMatrix& w, const QuantState& state, const std::string& prefix,
                                       const std::optional<Search>& search) {
  detail::check_format(state.quant_type, state.block);
  const std::vector<float> fractions = search ? search->fractions() : std::vector<float>();
  return state.is_nested ? detail::save_with<DoubleQuant>(w, state, prefix, fractions)
                         : detail::save_with<PlainScales>(w, state, prefix, fractions);
}

}  // namespace lowrank::inline LOWRANK_ABI::bitsandbytes
