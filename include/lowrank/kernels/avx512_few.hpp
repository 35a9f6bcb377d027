#pragma once

/// Few tokens with AVX-512: rows of weights are read once, front to back, and met by all tokens while they are in registers.
///
/// Lanes run along the depth, so codes need no transposing; two to four rows go side by side, which shares the loads of the activations and
/// gives the multiply-adds independent chains.

#if defined(__x86_64__)

#include <bit>

#include <lowrank/kernels/avx512.hpp>
#include <lowrank/kernels/pieces.hpp>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsics start from an undefined register
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

namespace lowrank::inline LOWRANK_ABI::kernels::avx512 {

/// How 32 elements of a row lie in memory: the inner loop is compiled for each.
enum class Layout { pairs, halves, long_halves, bytes, fp32, bf16, half };

inline Layout layout_of(const Piece& piece) {
  switch (piece.kind) {
    case Piece::Kind::fp32:
      return Layout::fp32;
    case Piece::Kind::bf16:
      return Layout::bf16;
    case Piece::Kind::half:
      return Layout::half;
    default:
      break;
  }
  if (piece.blocks.order == CodeOrder::nibble_pairs) return Layout::pairs;
  if (piece.blocks.order == CodeOrder::bytes) return Layout::bytes;
  return piece.blocks.run == 16 ? Layout::halves : Layout::long_halves;
}

/// Where chunk c of a row begins, and its scale. Offsets are the same in every row, so they are found once a chunk.
struct ChunkPlaces {
  const std::byte* first;  ///< row 0 of the product
  Index row_bytes;
  Index block_shift = 5, block_bytes = 64, codes_at = 0, chunk_bytes = 64;
  Index group_shift = 63;
  Index scale_at = -1, offset_at = -1;  ///< half-precision scales inside the block
  Index long_run = 0;

  ChunkPlaces(const Piece& piece, Index row) {
    if (piece.kind != Piece::Kind::blocks) {
      const Index size = piece.kind == Piece::Kind::fp32 ? 4 : 2;
      row_bytes = piece.stride * size;
      block_bytes = chunk_bytes = 32 * size;
      first = static_cast<const std::byte*>(piece.data) + row * row_bytes;
      return;
    }
    const BlockSource& s = piece.blocks;
    row_bytes = s.row_bytes();
    first = s.data + row * row_bytes;
    group_shift = std::countr_zero(static_cast<std::size_t>(s.group));
    if (s.order == CodeOrder::nibble_pairs) {
      block_bytes = chunk_bytes = 16;
      return;
    }
    block_shift = std::countr_zero(static_cast<std::size_t>(s.block));
    block_bytes = s.block_bytes;
    codes_at = s.codes_at;
    chunk_bytes = s.order == CodeOrder::bytes ? 32 : 16;
    if (s.run == 32) long_run = 1;
    if (s.read_scales == HalfScales::read && s.group == s.block) scale_at = s.scale_at, offset_at = s.offset_at;
  }
  /// Byte of the block that holds chunk c, from the beginning of a row.
  Index block_at(Index c) const { return (c * 32 >> block_shift) * block_bytes; }
  /// Byte of the chunk's codes within that block.
  Index inside(Index c) const {
    const Index position = c & ((Index{1} << (block_shift - 5)) - 1);
    return codes_at + (long_run ? position / 2 * 32 : position * chunk_bytes);
  }
};

/// The two halves of a chunk, before scaling.
template <Layout L>
[[gnu::always_inline]] inline void load_chunk(const std::byte* at, Index chunk, __m512 table, __m512& first, __m512& second) {
  const auto* bytes = reinterpret_cast<const __m128i*>(at);
  if constexpr (L == Layout::pairs || L == Layout::halves) {
    const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes));
    const __m512 low = _mm512_permutexvar_ps(codes, table), high = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table);
    first = L == Layout::pairs ? high : low;
    second = L == Layout::pairs ? low : high;
  } else if constexpr (L == Layout::long_halves) {
    const __m128i shift = _mm_cvtsi32_si128(chunk % 2 == 0 ? 0 : 4);
    first = _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes)), shift), table);
    second = _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes + 1)), shift), table);
  } else if constexpr (L == Layout::bytes) {
    first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes)));
    second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes + 1)));
  }
}

/// Dense chunks: the last one of a row may be short.
template <Layout L>
[[gnu::always_inline]] inline void load_dense(const std::byte* at, Index count, __m512& first, __m512& second) {
  const __mmask16 m = first_lanes(count), n = first_lanes(count > 16 ? count - 16 : 0);
  if constexpr (L == Layout::fp32) {
    first = _mm512_maskz_loadu_ps(m, at);
    second = _mm512_maskz_loadu_ps(n, at + 64);
  } else {
    const __m256i a = _mm256_maskz_loadu_epi16(m, at), b = _mm256_maskz_loadu_epi16(n, at + 32);
    if constexpr (L == Layout::half) {
      first = _mm512_cvtph_ps(a);
      second = _mm512_cvtph_ps(b);
    } else {
      first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
      second = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
    }
  }
}

inline float half_at(const std::byte* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/// Scales of up to 4 rows that are not inside blocks, read ahead of the product, 128 groups at a time.
struct RowScales {
  static constexpr Index window = 128;
  float scale[4][window], offset[4][window];

  void load(const BlockSource& s, Index row, Index rows, Index group) {
    const Index groups = s.pitch / s.group, count = groups - group < window ? groups - group : window;
    for (Index r = 0; r < rows; ++r) s.read_scales(s, (row + r) * groups + group, count, scale[r], offset[r]);
  }
};

/// Scaled chunk c of Rows rows: w[r][0 and 1].
template <Layout L, int Rows>
[[gnu::always_inline]] inline void scaled_chunk(const FewTokens& p, const ChunkPlaces& places, Index row, Index c, __m512 table,
                                                const RowScales& scales, __m512 factor, __m512 (*w)[2]) {
  constexpr bool is_dense = L == Layout::fp32 || L == Layout::bf16 || L == Layout::half;
  const Index block = places.block_at(c), inside = places.inside(c), g = (c * 32 >> places.group_shift) % RowScales::window;
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const std::byte* at = places.first + (row + r) * places.row_bytes + block;
    if constexpr (is_dense) {
      load_dense<L>(at + inside, p.piece->length - c * 32, w[r][0], w[r][1]);
      w[r][0] = _mm512_mul_ps(w[r][0], factor);
      w[r][1] = _mm512_mul_ps(w[r][1], factor);
    } else {
      load_chunk<L>(at + inside, c, table, w[r][0], w[r][1]);
      const bool in_block = L != Layout::pairs && places.scale_at >= 0;
      const __m512 slope = _mm512_mul_ps(_mm512_set1_ps(in_block ? half_at(at + places.scale_at) : scales.scale[r][g]), factor);
      if (in_block && places.offset_at < 0) {
        w[r][0] = _mm512_mul_ps(w[r][0], slope);
        w[r][1] = _mm512_mul_ps(w[r][1], slope);
      } else {
        const __m512 offset = _mm512_mul_ps(_mm512_set1_ps(in_block ? half_at(at + places.offset_at) : scales.offset[r][g]), factor);
        w[r][0] = _mm512_fmadd_ps(w[r][0], slope, offset);
        w[r][1] = _mm512_fmadd_ps(w[r][1], slope, offset);
      }
    }
  }
}

/// Reads scales ahead when chunk c begins a new window of groups.
[[gnu::always_inline]] inline void read_ahead(const FewTokens& p, const ChunkPlaces& places, Index row, int rows, Index c,
                                              RowScales& scales) {
  if (p.piece->kind != Piece::Kind::blocks || places.scale_at >= 0) return;
  const Index g = c * 32 >> places.group_shift;
  if (g % RowScales::window == 0 && g << places.group_shift == c * 32) scales.load(p.piece->blocks, p.row + row, rows, g);
}

inline void store_sum(const FewTokens& p, Index row, Index token, float sum) {
  float& y = p.y[token * p.ldy + row];
  y = p.accumulate ? y + sum : sum;
}

template <Layout L, int Rows, int Tokens>
void few_rows(const FewTokens& p, const ChunkPlaces& places, Index row) {
  const __m512 table = _mm512_loadu_ps(p.piece->blocks.table.data()), factor = _mm512_set1_ps(p.piece->scale);
  const Index width = p.chunks * 32;
  RowScales scales;
  __m512 sum[Rows][Tokens];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) sum[r][t] = _mm512_setzero_ps();
  }
  for (Index c = 0; c < p.chunks; ++c) {
    read_ahead(p, places, row, Rows, c, scales);
    __m512 w[Rows][2];
    scaled_chunk<L, Rows>(p, places, row, c, table, scales, factor, w);
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) {
      const float* x = p.x + t * width + c * 32;
      const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
      LOWRANK_UNROLL
      for (int r = 0; r < Rows; ++r) sum[r][t] = _mm512_fmadd_ps(w[r][1], second, _mm512_fmadd_ps(w[r][0], first, sum[r][t]));
    }
  }
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t)
      if (t < p.tokens) store_sum(p, row + r, t, _mm512_reduce_add_ps(sum[r][t]));
  }
}

/// All rows with activations padded to Tokens: Rows side by side, then one by one.
template <Layout L, int Rows, int Tokens>
void few_all(const FewTokens& p) {
  const ChunkPlaces places(*p.piece, p.row);
  Index row = 0;
  for (; row + Rows <= p.rows; row += Rows) few_rows<L, Rows, Tokens>(p, places, row);
  for (; row < p.rows; ++row) few_rows<L, 1, Tokens>(p, places, row);
}

template <Layout L>
void few_layout(const FewTokens& p) {
  if (p.tokens == 1) return few_all<L, 4, 1>(p);
  if (p.tokens == 2) return few_all<L, 4, 2>(p);
  if (p.tokens <= 4) return few_all<L, 2, 4>(p);
  few_all<L, 2, 8>(p);
}

inline void few_tokens(const FewTokens& p) {
  switch (layout_of(*p.piece)) {
    case Layout::pairs:
      return few_layout<Layout::pairs>(p);
    case Layout::halves:
      return few_layout<Layout::halves>(p);
    case Layout::long_halves:
      return few_layout<Layout::long_halves>(p);
    case Layout::bytes:
      return few_layout<Layout::bytes>(p);
    case Layout::fp32:
      return few_layout<Layout::fp32>(p);
    case Layout::bf16:
      return few_layout<Layout::bf16>(p);
    case Layout::half:
      return few_layout<Layout::half>(p);
  }
}

inline constexpr KernelTable table = {.name = "avx512",
                                      .lanes = lanes,
                                      .vectors = vectors,
                                      .columns = columns,
                                      .fp32 = panel_kernels<false>(),
                                      .bf16 = panel_kernels<true>(),
                                      .decode_blocks = decode_blocks,
                                      .widen_bfloat16 = avx2::widen_bfloat16,
                                      .widen_half = avx2::widen_half,
                                      .few_tokens = few_tokens,
                                      .few_tokens_bf16 = few_tokens,
                                      .few_tokens_int8 = nullptr,
                                      .to_bfloat16 = nullptr,
                                      .to_int8 = nullptr};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

#endif  // defined(__x86_64__)
