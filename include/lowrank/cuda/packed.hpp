#pragma once

/// A frozen matrix as kernels of a GPU read it: 32 neighbours of a row, a chunk, lie in aligned words of 16 bytes, scales beside them.
///
/// Files interleave codes and scales in blocks of 18, 20 or 34 bytes, which no GPU loads well; packing moves bytes and changes no number.
/// Element 8 i + j of a chunk of 4-bit codes is nibble j (from the lowest) of word i; signed bytes and bfloat16 lie in their order.

#include <bit>
#include <cstring>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/cuda/simt.hpp>
#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/kernels/format/source.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

inline constexpr int chunk_size = 32;

/// How a chunk finds its scale: it has none (bfloat16), a float each `1 << group_shift` chunks, half precision a chunk (ggml), or
/// scale_map[code] · scales[group / 256] + scale_offset (double quantization).
enum class Scaling : std::uint8_t { none, floats, halves, doubled };

/// Plain pointers into host or device memory, never both; passed to kernels by value.
struct PackedView {
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
  half h;
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
LOWRANK_DEVICE StoredScale stored_scale(const PackedView& w, Index chunk) {
  const Index group = chunk >> w.group_shift;
  if constexpr (By == Scaling::floats)
    return {std::bit_cast<std::uint32_t>(w.scales[group]), w.offsets ? std::bit_cast<std::uint32_t>(w.offsets[group]) : 0u};
  if constexpr (By == Scaling::halves) return {w.half_scales[group], w.half_offsets ? w.half_offsets[group] : 0u};
  if constexpr (By == Scaling::doubled) return {w.scale_codes[group], std::bit_cast<std::uint32_t>(w.scales[group / 256])};
  return {};
}
template <Scaling By>
LOWRANK_DEVICE ChunkScale decode_scale(const PackedView& w, StoredScale s) {
  if constexpr (By == Scaling::floats) return {std::bit_cast<float>(s.scale), std::bit_cast<float>(s.offset)};
  if constexpr (By == Scaling::halves) return {detail::half_value(s.scale), detail::half_value(s.offset)};
  if constexpr (By == Scaling::doubled) return {w.scale_map[s.scale] * std::bit_cast<float>(s.offset) + w.scale_offset, 0.0f};
  return {1.0f, 0.0f};
}

/// Scale and offset of a chunk, counted from the matrix' first.
LOWRANK_DEVICE ChunkScale scale_of(const PackedView& w, Index chunk) {
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

/// A packed matrix in host memory: what is copied to the device, piece by piece.
struct PackedMatrix {
  std::vector<Word4> codes;
  std::vector<float> scales, offsets, scale_map;
  std::vector<std::uint16_t> half_scales, half_offsets;
  std::vector<std::uint8_t> scale_codes;
  PackedView facts;  ///< without pointers

  /// The view of these very arrays.
  PackedView view() const {
    PackedView v = facts;
    v.codes = codes.data();
    v.scales = scales.data();
    v.offsets = offsets.empty() ? nullptr : offsets.data();
    v.half_scales = half_scales.data();
    v.half_offsets = half_offsets.empty() ? nullptr : half_offsets.data();
    v.scale_codes = scale_codes.data();
    v.scale_map = scale_map.data();
    return v;
  }
  std::size_t bytes() const {
    return codes.size() * sizeof(Word4) + 4 * (scales.size() + offsets.size() + scale_map.size()) +
           2 * (half_scales.size() + half_offsets.size()) + scale_codes.size();
  }
};

namespace detail {

inline PackedMatrix packed_frame(const char* operation, Index rows, Index cols, int bits) {
  constexpr Index largest = Index{1} << 30;
  check<ShapeError>(rows >= 0 && cols >= 0 && rows <= largest && cols <= largest && rows * ceil_div(cols, chunk_size) <= largest, operation,
                    "a matrix [", rows, ", ", cols, "] is too large for the device; it holds at most 2^30 rows, columns, and 32 numbers");
  PackedMatrix packed;
  packed.facts.rows = static_cast<int>(rows);
  packed.facts.cols = static_cast<int>(cols);
  packed.facts.chunks = static_cast<int>(ceil_div(cols, chunk_size));
  packed.facts.bits = bits;
  packed.codes.assign(static_cast<std::size_t>(rows * packed.facts.chunks * packed.facts.words()), Word4{});
  return packed;
}

/// Nibbles of eight bytes, the low ones, next to each other.
constexpr std::uint32_t joined_nibbles(std::uint64_t bytes) {
  bytes &= 0x0f0f0f0f0f0f0f0full;
  bytes = (bytes | bytes >> 4) & 0x00ff00ff00ff00ffull;
  bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffull;
  return static_cast<std::uint32_t>(bytes | bytes >> 16);
}

/// The codes of the 32 elements from a flattened one on.
inline void pack_chunk(const BlockSource& w, Index first, Word4* to) {
  const std::byte* const from = w.order == CodeOrder::nibble_pairs ? w.data + first / 2 : w.block_of(first) + w.codes_at;
  if (w.order == CodeOrder::bytes && w.block == chunk_size) {
    std::memcpy(to, from, chunk_size);
  } else if (w.order == CodeOrder::nibble_pairs) {
    std::memcpy(to->word, from, sizeof(Word4));
    for (std::uint32_t& word : to->word) word = (word & 0x0f0f0f0fu) << 4 | (word >> 4 & 0x0f0f0f0fu);
  } else if (w.order == CodeOrder::nibble_halves && w.block == chunk_size && w.run == chunk_size / 2) {
    std::uint64_t bytes[2];
    std::memcpy(bytes, from, sizeof bytes);
    for (int i = 0; i < 2; ++i) to->word[i] = joined_nibbles(bytes[i]), to->word[2 + i] = joined_nibbles(bytes[i] >> 4);
  } else {
    for (Index j = 0; j < chunk_size; ++j) {
      if (w.order == CodeOrder::bytes) {
        const auto code = static_cast<std::uint32_t>(w.block_of(first + j)[w.codes_at + (first + j) % w.block]);
        to[j / 16].word[j % 16 / 4] |= code << (8 * (j % 4));
      } else {
        to->word[j / 8] |= static_cast<std::uint32_t>(w.nibble(first + j)) << (4 * (j % 8));
      }
    }
  }
}

inline void pack_codes(const BlockSource& w, PackedMatrix& packed) {
  const Index chunks = packed.facts.chunks, words = packed.facts.words();
  parallel_ranges(w.rows(), 64, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index chunk = 0; chunk < chunks; ++chunk)
        pack_chunk(w, row * w.pitch + chunk * chunk_size, packed.codes.data() + (row * chunks + chunk) * words);
  });
}

inline void pack_scales(const BlockSource& w, PackedMatrix& packed) {
  const Index groups = ceil_div(w.rows() * w.pitch, w.group);
  const auto count = static_cast<std::size_t>(groups);
  packed.facts.group_shift = std::countr_zero(static_cast<std::size_t>(w.group / chunk_size));
  if (w.scale_codes != nullptr) {
    packed.facts.scaling = Scaling::doubled;
    packed.facts.scale_offset = w.scale_offset;
    packed.scale_codes.assign(w.scale_codes, w.scale_codes + groups);
    packed.scale_map.assign(w.scale_map, w.scale_map + 256);
    for (Index i = 0; i < ceil_div(groups, 256); ++i) packed.scales.push_back(ArrayScales::float_at(w.scales, i));
    return;
  }
  packed.scales.resize(count);
  packed.offsets.resize(count);
  for (Index i = 0; i < groups; ++i)
    w.read_scales(w, i, 1, &packed.scales[static_cast<std::size_t>(i)], &packed.offsets[static_cast<std::size_t>(i)]);
  bool is_offset = false, is_half = true;
  for (std::size_t i = 0; i < count; ++i) {
    is_offset = is_offset || packed.offsets[i] != 0;
    is_half = is_half && static_cast<float>(half(packed.scales[i])) == packed.scales[i] &&
              static_cast<float>(half(packed.offsets[i])) == packed.offsets[i];
  }
  packed.facts.scaling = is_half ? Scaling::halves : Scaling::floats;
  if (!is_offset) packed.offsets.clear();
  if (!is_half) return;
  for (const float scale : packed.scales) packed.half_scales.push_back(half(scale).bits);
  for (const float offset : packed.offsets) packed.half_offsets.push_back(half(offset).bits);
  packed.scales.clear();
  packed.offsets.clear();
}

}  // namespace detail

/// Numbers [rows, cols] of any source as bfloat16, what tensor cores multiply; rows are padded with zeros to whole chunks.
template <Source W>
PackedMatrix pack_bfloat16(const W& w) {
  PackedMatrix packed = detail::packed_frame("pack", w.rows(), w.cols(), 16);
  parallel_ranges(w.rows(), 16, [&](Index begin, Index end) {
    std::vector<float> row(static_cast<std::size_t>(w.cols()));
    for (Index i = begin; i < end; ++i) {
      w.decode(i, Index{1}, Index{0}, w.cols(), row.data(), w.cols());
      std::uint32_t* const to = packed.codes[static_cast<std::size_t>(i * packed.facts.chunks * 4)].word;
      for (Index k = 0; k < w.cols(); ++k)
        to[k / 2] |= static_cast<std::uint32_t>(bfloat16(row[static_cast<std::size_t>(k)]).bits) << (k % 2 * 16);
    }
  });
  return packed;
}

/// Codes and scales of a 4- or 8-bit matrix, with every number unchanged. Where rows do not hold whole chunks of 32 (bitsandbytes' blocks
/// of a matrix with such columns), the decoded numbers as bfloat16, which the products would round them to anyway. Throws ShapeError.
inline PackedMatrix pack(const BlockSource& w) {
  const bool whole = w.pitch % chunk_size == 0 && w.group % chunk_size == 0 && std::has_single_bit(static_cast<std::size_t>(w.group));
  if (!whole) return pack_bfloat16(w);
  PackedMatrix packed = detail::packed_frame("pack", w.rows(), w.cols(), w.order == CodeOrder::bytes ? 8 : 4);
  for (int i = 0; i < 16; ++i) packed.facts.table[i] = w.table[static_cast<std::size_t>(i)];
  detail::pack_codes(w, packed);
  detail::pack_scales(w, packed);
  return packed;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
