#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE void StoredTensor::check_bytes(std::string_view operation) const {
  const Index count = element_count(operation, name, shape), bits = dtype_bits(dtype);
  const auto needed = static_cast<std::size_t>(count / 8 * bits + ceil_div(count % 8 * bits, 8));
  check<ShapeError>(bytes.size() == needed, operation, name, " has ", bytes.size(), " bytes but ", shape_text(shape), " of ",
                    dtype_name(dtype), " needs ", needed);
}

namespace detail {
template <class T>
void copy_as_float(const StoredTensor& tensor, std::vector<float>& out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;  // a slice need not be aligned
    std::memcpy(&value, tensor.bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}
}  // namespace detail

LOWRANK_INLINE std::vector<float> to_floats(const StoredTensor& tensor) {
  tensor.check_bytes("to_floats");
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
