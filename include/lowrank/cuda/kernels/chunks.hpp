#pragma once

/// A frozen matrix as kernels of a GPU read it: 32 neighbours of a row, a chunk, lie in aligned words of 16 bytes, scales beside them.
///
/// Files interleave codes and scales in blocks of 18, 20 or 34 bytes, which no GPU loads well; cuda/weight.hpp moves the bytes and changes
/// no number. Element 8 i + j of a chunk of 4-bit codes is nibble j (from the lowest) of word i; signed bytes and bfloat16 lie in their
/// order.

#include <bit>
#include <cstdint>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

inline constexpr int chunk_size = 32;

/// How a chunk finds its scale: it has none (bfloat16), a float each `1 << group_shift` chunks, half precision a chunk (ggml), or
/// scale_map[code] · scales[group / 256] + scale_offset (double quantization).
enum class Scaling : std::uint8_t { none, floats, halves, doubled };

/// Plain pointers into host or device memory, never both; passed to kernels by value.
struct ChunkedView {
  const Word4* codes = nullptr;  ///< [rows][chunks][bits / 4]
  int rows = 0, cols = 0;
  int chunks = 0;  ///< in a row: cols / 32, rounded up
  int bits = 4;    ///< 4, 8 or 16
  Scaling scaling = Scaling::none;
  int group_shift = 0;
  const float* scales = nullptr;
  const float* offsets = nullptr;                                       // may be null
  const std::uint16_t *half_scales = nullptr, *half_offsets = nullptr;  // the latter may be null
  const std::uint8_t* scale_codes = nullptr;
  const float* scale_map = nullptr;
  float scale_offset = 0;
  float table[16] = {};

  constexpr int words() const { return bits / 4; }
};

struct ChunkScale {
  float scale = 0, offset = 0;
};

namespace detail {
LOWRANK_DEVICE float half_value(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<std::uint16_t>(bits)));
  return value;
#else
  Half h;
  h.bits = static_cast<std::uint16_t>(bits);
  return h;
#endif
}
}  // namespace detail

/// A chunk's scale and offset as they are stored: what is loaded early, and decoded where it is used.
struct StoredScale {
  std::uint32_t scale = 0, offset = 0;
};

/// Of a chunk, counted from the matrix' first, where the scaling is known.
template <Scaling By>
LOWRANK_DEVICE StoredScale stored_scale(const ChunkedView& w, Index chunk) {
  const Index group = chunk >> w.group_shift;
  if constexpr (By == Scaling::floats)
    return {std::bit_cast<std::uint32_t>(w.scales[group]), w.offsets ? std::bit_cast<std::uint32_t>(w.offsets[group]) : 0u};
  if constexpr (By == Scaling::halves) return {w.half_scales[group], w.half_offsets ? w.half_offsets[group] : 0u};
  if constexpr (By == Scaling::doubled) return {w.scale_codes[group], std::bit_cast<std::uint32_t>(w.scales[group / 256])};
  return {};
}
template <Scaling By>
LOWRANK_DEVICE ChunkScale decode_scale(const ChunkedView& w, StoredScale s) {
  if constexpr (By == Scaling::floats) return {std::bit_cast<float>(s.scale), std::bit_cast<float>(s.offset)};
  if constexpr (By == Scaling::halves) return {detail::half_value(s.scale), detail::half_value(s.offset)};
  if constexpr (By == Scaling::doubled) return {w.scale_map[s.scale] * std::bit_cast<float>(s.offset) + w.scale_offset, 0.0f};
  return {1.0f, 0.0f};
}

/// Scale and offset of a chunk, counted from the matrix' first.
LOWRANK_DEVICE ChunkScale scale_of(const ChunkedView& w, Index chunk) {
  if (w.scaling == Scaling::floats) return decode_scale<Scaling::floats>(w, stored_scale<Scaling::floats>(w, chunk));
  if (w.scaling == Scaling::halves) return decode_scale<Scaling::halves>(w, stored_scale<Scaling::halves>(w, chunk));
  if (w.scaling == Scaling::doubled) return decode_scale<Scaling::doubled>(w, stored_scale<Scaling::doubled>(w, chunk));
  return {1.0f, 0.0f};
}

/// Elements 8 part … 8 part + 7 of a chunk: table[code] · scale + offset. A table of 16 floats in shared memory has a bank an entry, so
/// lanes that look up different codes never wait for each other.
template <int Bits>
LOWRANK_DEVICE void decode_part(const Word4* chunk, int part, const float* table, ChunkScale by, float (&out)[8]) {
  if constexpr (Bits == 4) {
    const std::uint32_t word = chunk->word[part];
    for (int j = 0; j < 8; ++j) out[j] = table[(word >> (4 * j)) & 15u] * by.scale + by.offset;
  } else if constexpr (Bits == 8) {
    for (int j = 0; j < 8; ++j) {
      const std::uint32_t word = chunk[part / 2].word[part % 2 * 2 + j / 4];
      out[j] = static_cast<float>(static_cast<std::int8_t>((word >> (8 * (j % 4))) & 0xffu)) * by.scale;
    }
  } else {
    for (int j = 0; j < 4; ++j) {
      out[2 * j] = low_bfloat16(chunk[part].word[j]);
      out[2 * j + 1] = high_bfloat16(chunk[part].word[j]);
    }
  }
}

/// The same eight numbers as bfloat16.
template <int Bits>
LOWRANK_DEVICE Word4 decode_bfloat16(const Word4* chunk, int part, const float* table, ChunkScale by) {
  if constexpr (Bits == 16) return chunk[part];
  Word4 eight;
  float number[8];
  decode_part<Bits>(chunk, part, table, by, number);
  for (int j = 0; j < 4; ++j) eight.word[j] = bfloat16_pair(number[2 * j], number[2 * j + 1]);
  return eight;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
