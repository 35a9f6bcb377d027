#pragma once

#include <string>
#include <string_view>

#include <lowrank/io/gguf.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

/// A matrix of a GGUF file in the format that it has there, over its mapped bytes: F32, F16, BF16 or a format of quant/ggml_formats.hpp.
///
/// Throws FormatError "[operation] …" for any other type.
AnyMatrix matrix(const Tensor& tensor, std::string_view operation = "gguf");

/// Whether save_matrix() makes tensors of that type: F32, F16, BF16, Q4_0, Q4_1 and Q8_0.
bool is_writable(GgmlType type);

/// A matrix in another type, and the tensor that holds it.
struct SavedMatrix {
  AnyMatrix matrix;
  Tensor tensor;
};

/// w rounded once to a type. Throws ValueError for a type that is only read, or naming the first number that is not finite.
SavedMatrix save_matrix(const AnyMatrix& w, std::string name, GgmlType type);

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gguf_matrix.inl>
#endif
