#pragma once

#include <optional>

#include <lowrank/core/tensor.hpp>
#include <lowrank/io/gguf.hpp>

/// A look at a stored matrix before it is used: one number that is not finite turns every result into NaN, far from its cause.

namespace lowrank::inline LOWRANK_ABI {

/// The row of a tensor, all dimensions but the last one flattened, that holds the first number which is not finite, or nothing.
///
/// Looks at the elements of F32, F16 and BF16 and at the half-precision scales of blocks; other types count as finite. Cost: one pass over
/// those, on all threads.
std::optional<Index> first_row_not_finite(const gguf::Tensor& tensor);

/// The same for a tensor of a safetensors file; types other than F32, F16 and BF16 count as finite.
std::optional<Index> first_row_not_finite(const StoredTensor& tensor);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/finite.inl>
#endif
