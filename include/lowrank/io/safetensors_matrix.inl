#pragma once

#include <optional>

#include <lowrank/io/bytes.hpp>
#include <lowrank/nn/frozen_linear.hpp>

namespace lowrank::inline LOWRANK_ABI::safetensors {

LOWRANK_INLINE AnyMatrix matrix(const Tensor& tensor, std::string_view operation) {
  check<FormatError>(tensor.shape.size() == 2, operation, "tensor ", name_text(tensor.name), " is ", shape_text(tensor.shape),
                     "; a matrix has two dimensions [rows, cols]");
  const auto count = checked_count(tensor.shape);
  const auto bits = count ? checked_product(*count, dtype_bits(tensor.dtype)) : std::nullopt;
  check<ShapeError>(bits && static_cast<std::size_t>(*bits / 8) == tensor.bytes.size(), operation, "tensor ", name_text(tensor.name),
                    " has ", tensor.bytes.size(), " bytes, not those of ", shape_text(tensor.shape), ' ', dtype_name(tensor.dtype));
  const Index rows = tensor.shape[0], cols = tensor.shape[1];
  if (tensor.dtype == DType::f32) return AnyMatrix(StoredMatrix<float>(rows, cols, tensor.bytes));
  if (tensor.dtype == DType::f16) return AnyMatrix(StoredMatrix<Half>(rows, cols, tensor.bytes));
  if (tensor.dtype == DType::bf16) return AnyMatrix(StoredMatrix<BFloat16>(rows, cols, tensor.bytes));
  if (tensor.dtype == DType::f64) return AnyMatrix(StoredMatrix<double>(rows, cols, tensor.bytes));
  fail<FormatError>(operation, "tensor ", name_text(tensor.name), " is ", dtype_name(tensor.dtype),
                    "; readable are F32, F16, BF16 and F64, and NF4 and FP4 of bitsandbytes with all their parts");
}

}  // namespace lowrank::inline LOWRANK_ABI::safetensors
