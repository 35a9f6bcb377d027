#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/gguf.hpp>
#include <lowrank/quant/any_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

/// A matrix of a GGUF file in the format that it has there, over its mapped bytes: F32, F16, BF16 or a format of quant/ggml_formats.hpp.
///
/// Throws FormatError "[operation] …" for any other type.
AnyMatrix matrix(const Tensor& tensor, std::string_view operation = "gguf");

/// Whether save_matrix() makes tensors of that type: F32, F16, BF16 and all formats of ggml but IQ1 to IQ3 and NVFP4.
bool is_writable(GgmlType type);

/// Names of the types that are written, in lower case: f32, f16, bf16, q4_0, …
std::vector<std::string> writable_types();

/// The type of one of those names, or nothing.
std::optional<GgmlType> writable_type(std::string_view name);

/// The type in which llama.cpp stores rows of `cols` weights that shall be `type`: itself where they are whole blocks of it; else, for
/// blocks of 256, one with blocks of 32 and no fewer bits; else F16.
///
/// Q2_K, Q3_K, TQ1_0, TQ2_0 become Q4_0, Q4_K Q5_0, Q5_K Q5_1, Q6_K Q8_0, and IQ4_XS IQ4_NL.
GgmlType type_for_columns(GgmlType type, Index cols);

/// A matrix in another type, and the tensor that holds it.
struct SavedMatrix {
  AnyMatrix matrix;
  Tensor tensor;
};

/// w rounded once to a type, with an importance for each column where one is given (quantize()). Throws ValueError for a type that is only
/// read, or naming the first number that is not finite.
SavedMatrix save_matrix(const AnyMatrix& w, std::string name, GgmlType type, std::span<const float> importance = {});

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gguf_matrix.inl>
#endif
