#pragma once

/// What a target supplies for quantizing and for writing whole matrices.

#include <cstddef>
#include <cstdint>

#include <lowrank/kernels/format/encode.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// What a target (an instruction set) supplies for quantizing and for writing whole matrices.
struct QuantizeKernels {
  /// Quantizes whole blocks: block / 2 bytes of codes and one scale each. The first block with a number that is not finite, or `blocks`.
  using EncodeTable = Index (*)(const TableEncoder& encoder, const float* x, Index blocks, std::uint8_t* codes, float* scales);
  /// out[i] = element begin + i of the flattened matrix, i < count; begin is a multiple of 32 and where a block begins, count a multiple of
  /// 32. `streams` writes past the caches.
  template <class Element>
  using Decode = void (*)(const BlockSource& from, Index begin, Index count, Element* out, bool streams);

  /// Quantizes whole blocks of 32 numbers with their scale in half precision. The first block that cannot be stored (a number is not
  /// finite, or the scale does not fit), or `blocks`.
  using EncodeBlocks = Index (*)(const float* x, Index blocks, std::byte* to);

  EncodeTable encode_table;
  // Null: the format's own rule does it.
  EncodeBlocks encode_extreme = nullptr;  ///< Q4_0: scale = the extreme / -8, code = number / scale + 8
  EncodeBlocks encode_range = nullptr;    ///< Q4_1: scale = (max - min) / 15, code = (number - min) / scale
  EncodeBlocks encode_bytes = nullptr;    ///< Q8_0: scale = max |x| / 127, code = number / scale
  // Null, both or none: Target::decode_blocks does it.
  Decode<float> decode_float = nullptr;
  Decode<BFloat16> decode_bfloat16 = nullptr;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
