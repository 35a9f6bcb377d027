#pragma once

/// Few tokens with AVX-512: rows of weights are read once, front to back, and
/// met by all tokens while they are in registers.
///
/// Lanes run along the depth, so codes need no transposing; two to four rows go
/// side by side, which shares the loads of the activations and gives the
/// multiply-adds independent chains.

#if defined(__x86_64__)

#include <bit>

#include <lowrank/kernels/target/avx512.hpp>
#include <lowrank/kernels/target/avx512_elementwise.hpp>
#include <lowrank/kernels/driver/pieces.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::avx512 {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsics start from an undefined
                                                        // register
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#endif

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

/// Where the scale and offset of a chunk come from.
enum class Scaling {
  none,    ///< dense elements
  array,   ///< float32, one a group; no offset
  half,    ///< half precision inside the block, the offset behind the scale
  window,  ///< anything else: read ahead, 128 groups at a time
};

inline Scaling scaling_of(const Piece& piece) {
  if (piece.kind != Piece::Kind::blocks) return Scaling::none;
  const BlockSource& s = piece.blocks;
  if (s.order == CodeOrder::nibble_pairs) return s.read_scales == ArrayScales::read ? Scaling::array : Scaling::window;
  const bool is_half = s.read_scales == HalfScales::read && s.group == 32 && s.block == 32 && s.run == 16;
  return is_half && (s.offset_at < 0 || s.offset_at == s.scale_at + 2) ? Scaling::half : Scaling::window;
}

/// Rows side by side: where their chunks lie and how they are scaled. Rows past
/// the last repeat it.
template <Layout L, Scaling M, int Rows>
struct RowGroup {
  static constexpr bool has_plain_blocks = L == Layout::pairs || M == Scaling::half || M == Scaling::none;  ///< a chunk a block
  static constexpr Index window_groups = 128;

  const Piece& piece;
  const std::byte* row[Rows];
  const std::byte* scale_row[Rows] = {};
  Index first_row[Rows];
  Index block_shift = 5, block_bytes = 16, codes_at = 0, chunk_bytes = 16, group_shift = 63;
  bool has_long_runs = false;
  __m128 offset_mask = _mm_setzero_ps();
  const std::byte* ahead;  ///< where prefetching begins
  Index chunk_pitch;       ///< bytes from one chunk of a row to the next, on average
  float pairs[M == Scaling::window ? Rows : 1][M == Scaling::window ? window_groups : 1][2];

  RowGroup(const FewTokens& p, Index begin) : piece(*p.piece) {
    const BlockSource& s = piece.blocks;
    const Index size = piece.kind == Piece::Kind::fp32 ? 4 : 2;
    const Index row_bytes = M == Scaling::none ? piece.stride * size : s.row_bytes();
    for (int r = 0; r < Rows; ++r) {
      first_row[r] = p.row + (begin + r < p.rows ? begin + r : p.rows - 1);
      row[r] = (M == Scaling::none ? static_cast<const std::byte*>(piece.data) : s.data) + first_row[r] * row_bytes;
      if (M == Scaling::array) scale_row[r] = s.scales + first_row[r] * (s.pitch / s.group) * 4;
    }
    ahead = row[0] + ((4095 + Rows * row_bytes) / (Rows * row_bytes)) * (Rows * row_bytes);
    chunk_pitch = row_bytes / p.chunks;
    if (M == Scaling::none) {
      block_bytes = chunk_bytes = 32 * size;
      return;
    }
    group_shift = std::countr_zero(static_cast<std::size_t>(s.group));
    if (s.order == CodeOrder::nibble_pairs) return;
    block_shift = std::countr_zero(static_cast<std::size_t>(s.block));
    block_bytes = s.block_bytes;
    codes_at = s.codes_at;
    if (s.order == CodeOrder::bytes) chunk_bytes = 32;
    has_long_runs = s.order == CodeOrder::nibble_halves && s.run == 32;
    offset_mask = _mm_castsi128_ps(_mm_setr_epi32(-1, s.offset_at < 0 ? 0 : -1, 0, 0));
  }

  /// Asks for the rows that come 4 KiB or more later, a chunk's share at a time: rows are short, and the processor's own prefetching ends
  /// at every page.
  [[gnu::always_inline]] void prefetch(Index c) const {
    const std::byte* at = ahead + c * (Rows * chunk_pitch);
    LOWRANK_UNROLL
    for (Index line = 0; line < (Rows * 20 + 63) / 64; ++line) _mm_prefetch(reinterpret_cast<const char*>(at + 64 * line), _MM_HINT_T0);
  }

  /// Chunks whose scales are at hand after read_ahead.
  Index window() const { return M == Scaling::window ? window_groups << group_shift >> 5 : Index{1} << 40; }
  void read_ahead(Index chunk) {
    if constexpr (M == Scaling::window) {
      const BlockSource& s = piece.blocks;
      const Index groups = s.pitch >> group_shift, g = chunk * 32 >> group_shift, left = groups - g;
      const Index count = left < window_groups ? left : window_groups;
      float scale[window_groups], offset[window_groups];
      for (int r = 0; r < Rows; ++r) {
        s.read_scales(s, first_row[r] * groups + g, count, scale, offset);
        for (Index i = 0; i < count; ++i) pairs[r][i][0] = scale[i], pairs[r][i][1] = offset[i];
      }
    }
  }

  /// Byte of the block that holds chunk c, and of the chunk's codes inside it:
  /// the same in every row.
  [[gnu::always_inline]] Index block_at(Index c) const { return (has_plain_blocks ? c : c >> (block_shift - 5)) * block_bytes; }
  [[gnu::always_inline]] Index inside(Index c) const {
    if (has_plain_blocks) return codes_at;
    const Index position = c & ((Index{1} << (block_shift - 5)) - 1);
    return codes_at + (has_long_runs ? position / 2 * 32 : position * chunk_bytes);
  }
  /// Scale and offset of chunk c in the two lowest lanes.
  [[gnu::always_inline]] __m128 scale_pair(int r, Index c, Index block) const {
    if constexpr (M == Scaling::array) {
      return _mm_load_ss(reinterpret_cast<const float*>(scale_row[r] + (c * 32 >> group_shift) * 4));
    } else if constexpr (M == Scaling::half) {
      return _mm_and_ps(_mm_cvtph_ps(_mm_loadu_si32(row[r] + block + piece.blocks.scale_at)), offset_mask);
    } else {
      const Index g = (c * 32 >> group_shift) % window_groups;
      return _mm_castpd_ps(
          _mm_load_sd(reinterpret_cast<const double*>(&pairs[M == Scaling::window ? r : 0][M == Scaling::window ? g : 0])));
    }
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

/// Chunk c of each row, scaled: w[r][0] and w[r][1].
template <Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline void scaled_chunk(const RowGroup<L, M, Rows>& rows, Index c, __m512 table, __m512 (*w)[2]) {
  const Index block = rows.block_at(c), inside = rows.inside(c);
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    const std::byte* at = rows.row[r] + block + inside;
    if constexpr (M == Scaling::none) {
      load_dense<L>(at, rows.piece.length - c * 32, w[r][0], w[r][1]);
    } else {
      load_chunk<L>(at, c, table, w[r][0], w[r][1]);
      const __m128 pair = rows.scale_pair(r, c, block);
      const __m512 slope = _mm512_broadcastss_ps(pair);
      if constexpr (M == Scaling::array) {
        w[r][0] = _mm512_mul_ps(w[r][0], slope);
        w[r][1] = _mm512_mul_ps(w[r][1], slope);
      } else {
        const __m512 offset = _mm512_broadcastss_ps(_mm_movehdup_ps(pair));
        w[r][0] = _mm512_fmadd_ps(w[r][0], slope, offset);
        w[r][1] = _mm512_fmadd_ps(w[r][1], slope, offset);
      }
    }
  }
}

/// sum[r] += scale · (codes of chunk c of row r · x), rest[r] += {…, offset · Σ x}: one token scales sums, which is cheaper than scaling
/// weights.
template <Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline void add_chunk(const RowGroup<L, M, Rows>& rows, Index c, __m512 table, const float* x, float x_sum,
                                             __m512 (&sum)[Rows], __m128 (&rest)[Rows]) {
  const Index block = rows.block_at(c), inside = rows.inside(c);
  const __m512 x_first = _mm512_loadu_ps(x), x_second = _mm512_loadu_ps(x + 16);
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    __m512 first, second;
    load_chunk<L>(rows.row[r] + block + inside, c, table, first, second);
    const __m512 part = _mm512_fmadd_ps(second, x_second, _mm512_mul_ps(first, x_first));
    const __m128 pair = rows.scale_pair(r, c, block);
    sum[r] = _mm512_fmadd_ps(part, _mm512_broadcastss_ps(pair), sum[r]);
    if constexpr (M != Scaling::array) rest[r] = _mm_fmadd_ps(pair, _mm_set1_ps(x_sum), rest[r]);
  }
}

inline void store_sum(const FewTokens& p, Index row, Index token, float sum) {
  if (row >= p.rows || token >= p.tokens) return;
  float& y = p.y[token * p.ldy + row];
  y = p.accumulate ? y + p.piece->scale * sum : p.piece->scale * sum;
}

template <Layout L, Scaling M, int Rows, int Tokens>
void few_rows(const FewTokens& p, Index row) {
  RowGroup<L, M, Rows> rows(p, row);
  const __m512 table = _mm512_loadu_ps(p.piece->blocks.table.data());
  const Index width = p.chunks * 32;
  __m512 sum[Rows][Tokens];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) sum[r][t] = _mm512_setzero_ps();
  }
  for (Index begin = 0; begin < p.chunks; begin += rows.window()) {
    rows.read_ahead(begin);
    const Index end = p.chunks - begin < rows.window() ? p.chunks : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      rows.prefetch(c);
      __m512 w[Rows][2];
      scaled_chunk<L>(rows, c, table, w);
      LOWRANK_UNROLL
      for (int t = 0; t < Tokens; ++t) {
        const float* x = p.x + t * width + c * 32;
        const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
        LOWRANK_UNROLL
        for (int r = 0; r < Rows; ++r) sum[r][t] = _mm512_fmadd_ps(w[r][1], second, _mm512_fmadd_ps(w[r][0], first, sum[r][t]));
      }
    }
  }
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) store_sum(p, row + r, t, _mm512_reduce_add_ps(sum[r][t]));
  }
}

/// One token times quantized rows.
template <Layout L, Scaling M, int Rows>
void one_token(const FewTokens& p, Index row) {
  RowGroup<L, M, Rows> rows(p, row);
  const __m512 table = _mm512_loadu_ps(p.piece->blocks.table.data());
  __m512 sum[Rows];
  __m128 rest[Rows];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) sum[r] = _mm512_setzero_ps(), rest[r] = _mm_setzero_ps();
  for (Index begin = 0; begin < p.chunks; begin += rows.window()) {
    rows.read_ahead(begin);
    const Index end = p.chunks - begin < rows.window() ? p.chunks : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      rows.prefetch(c);
      add_chunk<L>(rows, c, table, p.x + c * 32, p.x_sum[c], sum, rest);
    }
  }
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) store_sum(p, row + r, 0, _mm512_reduce_add_ps(sum[r]) + _mm_cvtss_f32(_mm_movehdup_ps(rest[r])));
}

/// One token times four dense rows; short rows, such as an adapter's, cost little but their loads.
template <Layout L>
void one_dense_token(const FewTokens& p, Index row) {
  const Index size = L == Layout::fp32 ? 4 : 2, length = p.piece->length, pitch = p.piece->stride * size;
  const auto* data = static_cast<const std::byte*>(p.piece->data) + p.row * pitch;
  const std::byte* at[4];
  Floats sum[4];
  LOWRANK_UNROLL
  for (Index r = 0; r < 4; ++r) at[r] = data + (row + r < p.rows ? row + r : p.rows - 1) * pitch, sum[r] = Floats::all(0.0f);
  for (Index i = 0; i < length; i += 32) {
    const __m512 x_first = _mm512_loadu_ps(p.x + i), x_second = _mm512_loadu_ps(p.x + i + 16);
    LOWRANK_UNROLL
    for (Index r = 0; r < 4; ++r) {
      __m512 first, second;
      load_dense<L>(at[r] + i * size, length - i, first, second);
      sum[r].v = _mm512_fmadd_ps(second, x_second, _mm512_fmadd_ps(first, x_first, sum[r].v));
    }
  }
  alignas(16) float sums[4];
  store_sums(sum, sums);
  for (Index r = 0; r < 4; ++r) store_sum(p, row + r, 0, sums[r]);
}

template <Layout L, Scaling M>
void few_layout(const FewTokens& p) {
  if (p.tokens == 1)
    for (Index row = 0; row < p.rows; row += 4) {
      if constexpr (M == Scaling::none)
        one_dense_token<L>(p, row);
      else
        one_token<L, M, 4>(p, row);
    }
  else if (p.tokens <= 4)
    for (Index row = 0; row < p.rows; row += 2) few_rows<L, M, 2, 4>(p, row);
  else
    for (Index row = 0; row < p.rows; row += 2) few_rows<L, M, 2, 8>(p, row);
}

inline void few_tokens(const FewTokens& p) {
  const bool is_window = scaling_of(*p.piece) == Scaling::window;
  switch (layout_of(*p.piece)) {
    case Layout::pairs:
      return is_window ? few_layout<Layout::pairs, Scaling::window>(p) : few_layout<Layout::pairs, Scaling::array>(p);
    case Layout::halves:
      return is_window ? few_layout<Layout::halves, Scaling::window>(p) : few_layout<Layout::halves, Scaling::half>(p);
    case Layout::long_halves:
      return few_layout<Layout::long_halves, Scaling::window>(p);
    case Layout::bytes:
      return is_window ? few_layout<Layout::bytes, Scaling::window>(p) : few_layout<Layout::bytes, Scaling::half>(p);
    case Layout::fp32:
      return few_layout<Layout::fp32, Scaling::none>(p);
    case Layout::bf16:
      return few_layout<Layout::bf16, Scaling::none>(p);
    case Layout::half:
      return few_layout<Layout::half, Scaling::none>(p);
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
                                      .to_int8 = nullptr,
                                      .elementwise = elementwise};

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

#endif  // defined(__x86_64__)
