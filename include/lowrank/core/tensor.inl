#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string shape_text(std::span<const Index> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

namespace detail {
template <class T>
void copy_as_float(const StoredTensor& tensor, std::vector<float>& out) {
  const T* from = tensor.bytes.as<T>();
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(from[i]);
}
}  // namespace detail

LOWRANK_INLINE std::vector<float> to_floats(const StoredTensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.size()));
  switch (tensor.dtype) {
    case DType::f32:
      detail::copy_as_float<float>(tensor, out);
      break;
    case DType::f64:
      detail::copy_as_float<double>(tensor, out);
      break;
    case DType::bf16:
      detail::copy_as_float<BFloat16>(tensor, out);
      break;
    case DType::f16:
      detail::copy_as_float<Half>(tensor, out);
      break;
    default:
      fail<FormatError>("to_floats", tensor.name, " holds ", dtype_name(tensor.dtype), " but F32, F64, BF16 or F16 is needed");
  }
  return out;
}

}  // namespace lowrank::inline LOWRANK_ABI
