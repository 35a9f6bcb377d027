#pragma once

/// Few tokens with AVX2: rows of weights are read once, front to back, and met by all tokens while they are in registers.
///
/// Lanes run along the depth. The 32 codes of a chunk become floats by byte shuffles: one look-up a byte of the float, then
/// interleaving. For one token the sum of a chunk is scaled, for more the weights are.

#if defined(__x86_64__)

#include <bit>
#include <cstring>

#include <lowrank/kernels/target/avx2.hpp>
#include <lowrank/kernels/target/few.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels::avx2 {

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

using few::Layout, few::RowGroup, few::Scaling;

inline __m256i load_16_twice(const void* from) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(from))); }

/// Which bytes of their floats differ between the entries of a table; for bytes there is no table.
enum class Entries {
  floats,  ///< all four
  shorts   ///< the upper two: every entry is a bfloat16, as small whole numbers are
};

/// A table's entries for byte shuffles: plane k holds byte k of all 16, in both 128-bit lanes.
struct Planes {
  __m256i byte[4];
  bool are_short = true;

  explicit Planes(const std::array<float, 16>& table) {
    alignas(16) std::uint8_t bytes[4][16];
    for (std::size_t c = 0; c < 16; ++c) {
      const auto word = std::bit_cast<std::uint32_t>(table[c]);
      for (int k = 0; k < 4; ++k) bytes[k][c] = static_cast<std::uint8_t>(word >> 8 * k);
      are_short = are_short && (word & 0xffffu) == 0;
    }
    for (int k = 0; k < 4; ++k) byte[k] = load_16_twice(bytes[k]);
  }
};

/// How many bits each half of both lanes of a chunk's 16 bytes is moved down: elements 0 … 15 come first.
template <Layout L>
[[gnu::always_inline]] inline __m256i nibble_shifts() {
  return L == Layout::pairs ? _mm256_setr_epi32(4, 4, 0, 0, 4, 4, 0, 0) : _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4);
}

/// A chunk's codes, one a byte, in the order that makes the interleaving of look_up yield elements 0 … 7, 8 … 15, 16 … 23, 24 … 31:
/// the low lane has elements 0 … 3, 8 … 11, 16 … 19, 24 … 27, the high lane the others; for shorts 0 and 8 alternate, and so on.
template <Layout L, Entries E>
[[gnu::always_inline]] inline __m256i ordered_codes(const std::byte* at, Index chunk) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (L == Layout::long_halves) {
    const __m256i as_stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    __m256i bytes = _mm256_permutevar8x32_epi32(as_stored, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    if constexpr (E == Entries::shorts) {
      const __m128i alternating = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
      bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(alternating));
    }
    return _mm256_and_si256(_mm256_srl_epi32(bytes, _mm_cvtsi32_si128(chunk % 2 == 0 ? 0 : 4)), nibble);
  } else {
    const __m256i order = E == Entries::floats ? _mm256_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11,  //
                                                                  4, 5, 6, 7, 12, 13, 14, 15, 4, 5, 6, 7, 12, 13, 14, 15)
                                               : _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 0, 8, 1, 9, 2, 10, 3, 11,  //
                                                                  4, 12, 5, 13, 6, 14, 7, 15, 4, 12, 5, 13, 6, 14, 7, 15);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(load_16_twice(at), order), nibble_shifts<L>()), nibble);
  }
}

/// The 32 entries of ordered codes.
template <Entries E>
[[gnu::always_inline]] inline void look_up(const Planes& planes, __m256i codes, __m256 (&w)[4]) {
  const __m256i third = _mm256_shuffle_epi8(planes.byte[2], codes), fourth = _mm256_shuffle_epi8(planes.byte[3], codes);
  const __m256i upper[2] = {_mm256_unpacklo_epi8(third, fourth), _mm256_unpackhi_epi8(third, fourth)};
  if constexpr (E == Entries::shorts) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    LOWRANK_UNROLL
    for (int k = 0; k < 2; ++k) {
      w[2 * k] = _mm256_castsi256_ps(_mm256_slli_epi32(upper[k], 16));
      w[2 * k + 1] = _mm256_castsi256_ps(_mm256_and_si256(upper[k], mask));
    }
  } else {
    const __m256i first = _mm256_shuffle_epi8(planes.byte[0], codes), second = _mm256_shuffle_epi8(planes.byte[1], codes);
    const __m256i lower[2] = {_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second)};
    LOWRANK_UNROLL
    for (int k = 0; k < 2; ++k) {
      w[2 * k] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(lower[k], upper[k]));
      w[2 * k + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(lower[k], upper[k]));
    }
  }
}

/// A chunk of blocks, before scaling.
template <Layout L, Entries E>
[[gnu::always_inline]] inline void load_chunk(const std::byte* at, Index chunk, const Planes& planes, __m256 (&w)[4]) {
  if constexpr (L == Layout::bytes) {
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k)
      w[k] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 8 * k))));
  } else {
    look_up<E>(planes, ordered_codes<L, E>(at, chunk), w);
  }
}

/// A chunk of dense elements.
template <Layout L>
[[gnu::always_inline]] inline void load_dense(const std::byte* at, __m256 (&w)[4]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) {
    if constexpr (L == Layout::fp32) {
      w[k] = _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32 * k)));
    } else {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * k));
      if constexpr (L == Layout::half)
        w[k] = _mm256_cvtph_ps(bits);
      else
        w[k] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
  }
}

/// Its first count elements, then zeros.
template <Layout L>
[[gnu::always_inline]] inline void load_part(const std::byte* at, Index count, __m256 (&w)[4]) {
  if constexpr (L == Layout::fp32) {
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) w[k] = _mm256_maskload_ps(reinterpret_cast<const float*>(at) + 8 * k, first_words(count - 8 * k));
  } else {
    alignas(32) std::byte copy[64] = {};
    std::memcpy(copy, at, static_cast<std::size_t>(count * 2));
    load_dense<L>(copy, w);
  }
}

/// Scale of chunk c of row r in all lanes, and its offset in the odd ones at least.
template <Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline void load_scale(const RowGroup<L, M, Rows>& rows, int r, Index c, Index block, __m256& scale,
                                              __m256& offset) {
  const std::byte* at = rows.row[r] + block + rows.source.scale_at;
  if constexpr (M == Scaling::array) {
    scale = _mm256_set1_ps(ArrayScales::float_at(rows.scale_row[r], rows.group_of(c)));
  } else if constexpr (M == Scaling::half) {
    std::int16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    scale = _mm256_cvtph_ps(_mm_set1_epi16(bits));
  } else if constexpr (M == Scaling::half_offset) {
    std::int32_t bits;
    std::memcpy(&bits, at, sizeof bits);
    offset = _mm256_cvtph_ps(_mm_set1_epi32(bits));
    scale = _mm256_moveldup_ps(offset);
  } else {
    scale = _mm256_set1_ps(rows.scale[r][rows.group_of(c)]);
    if constexpr (few::has_offset(M)) offset = _mm256_set1_ps(rows.offset[r][rows.group_of(c)]);
  }
}

template <int Rows, int Tokens>
[[gnu::always_inline]] inline void clear(__m256 (&sum)[Rows][Tokens]) {
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) sum[r][t] = _mm256_setzero_ps();
  }
}

/// Adds unit times the sums of the lanes to the product.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_sums(const FewTokens& p, Index row, const __m256 (&sum)[Rows][Tokens], float unit) {
  constexpr int count = Rows * Tokens;
  alignas(16) float sums[count];
  LOWRANK_UNROLL
  for (int i = 0; i < count; i += 4)
    _mm_store_ps(sums + i, four_sums(sum[i / Tokens][i % Tokens], sum[(i + 1) / Tokens][(i + 1) % Tokens],
                                     sum[(i + 2) / Tokens][(i + 2) % Tokens], sum[(i + 3) / Tokens][(i + 3) % Tokens]));
  for (int i = 0; i < count; ++i) few::store_sum(p, row + i / Tokens, i % Tokens, unit * sums[i]);
}

/// sum[r][t] += w[r] · the chunk of token t; the chunks of all tokens lie side by side.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void add_products(const __m256 (&w)[Rows][4], const float* x, __m256 (&sum)[Rows][Tokens]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) {
      const __m256 activation = _mm256_loadu_ps(x + 32 * t + 8 * k);
      LOWRANK_UNROLL
      for (int r = 0; r < Rows; ++r) sum[r][t] = _mm256_fmadd_ps(w[r][k], activation, sum[r][t]);
    }
  }
}

/// Chunk c of all rows for one token: sum[r] += scale · (w[r] · x), and in the odd lanes rest[r] += offset · Σ x.
template <Entries E, Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline void add_chunk(const RowGroup<L, M, Rows>& rows, Index c, const Planes& planes, const float* x, float x_sum,
                                             __m256 (&sum)[Rows][1], __m256 (&rest)[Rows][1]) {
  const Index block = rows.block_at(c), inside = rows.inside(c);
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    __m256 w[4], scale, offset;
    load_chunk<L, E>(rows.row[r] + block + inside, c, planes, w);
    load_scale(rows, r, c, block, scale, offset);
    __m256 part = _mm256_mul_ps(w[0], _mm256_loadu_ps(x));
    LOWRANK_UNROLL
    for (int k = 1; k < 4; ++k) part = _mm256_fmadd_ps(w[k], _mm256_loadu_ps(x + 8 * k), part);
    sum[r][0] = _mm256_fmadd_ps(part, scale, sum[r][0]);
    if constexpr (few::has_offset(M)) rest[r][0] = _mm256_fmadd_ps(offset, _mm256_set1_ps(x_sum), rest[r][0]);
  }
}

/// Chunk c of all rows for several tokens, which share the scaled weights.
template <Entries E, Layout L, Scaling M, int Rows, int Tokens>
[[gnu::always_inline]] inline void add_scaled_chunk(const RowGroup<L, M, Rows>& rows, Index c, const Planes& planes, const float* x,
                                                    __m256 (&sum)[Rows][Tokens]) {
  const Index block = rows.block_at(c), inside = rows.inside(c);
  __m256 w[Rows][4];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    __m256 scale, offset;
    load_chunk<L, E>(rows.row[r] + block + inside, c, planes, w[r]);
    load_scale(rows, r, c, block, scale, offset);
    if constexpr (few::has_offset(M)) offset = _mm256_movehdup_ps(offset);
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) w[r][k] = few::has_offset(M) ? _mm256_fmadd_ps(w[r][k], scale, offset) : _mm256_mul_ps(w[r][k], scale);
  }
  add_products(w, x, sum);
}

/// Chunks [begin, end) of the depth, and the activations there: the chunks of all tokens side by side.
struct Strip {
  Index begin, end;
  const float* x;
};

/// Rows [row, row + Rows) times one token.
template <Layout L, Scaling M, Entries E, int Rows>
void one_token(const FewTokens& p, const Strip& strip, const Planes& planes, Index row) {
  RowGroup<L, M, Rows> rows(p, row);
  __m256 sum[Rows][1], rest[Rows][1];
  clear(sum);
  clear(rest);
  for (Index begin = strip.begin; begin < strip.end; begin += rows.window()) {
    rows.read_ahead(begin, strip.end);
    const Index end = strip.end - begin < rows.window() ? strip.end : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      rows.prefetch(c);
      add_chunk<E>(rows, c, planes, strip.x + c * 32, p.x_sum[c], sum, rest);
    }
  }
  const __m256 second_lane = _mm256_castsi256_ps(_mm256_setr_epi32(0, -1, 0, 0, 0, 0, 0, 0));
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) sum[r][0] = _mm256_add_ps(sum[r][0], _mm256_and_ps(rest[r][0], second_lane));
  store_sums(p, row, sum, 1.0f);
}

/// Rows [row, row + Rows) times several tokens over one strip.
template <Layout L, Scaling M, Entries E, int Rows, int Tokens>
void few_rows(const FewTokens& p, const Strip& strip, const Planes& planes, Index row) {
  RowGroup<L, M, Rows> rows(p, row);
  __m256 sum[Rows][Tokens];
  clear(sum);
  const float* x = strip.x;
  for (Index begin = strip.begin; begin < strip.end; begin += rows.window()) {
    rows.read_ahead(begin, strip.end);
    const Index end = strip.end - begin < rows.window() ? strip.end : begin + rows.window();
    for (Index c = begin; c < end; ++c, x += 32 * Tokens) add_scaled_chunk<E>(rows, c, planes, x, sum);
  }
  store_sums(p, row, sum, 1.0f);
}

/// Dense rows over one strip; the last chunk may be short.
template <Layout L, int Rows, int Tokens>
void dense_rows(const FewTokens& p, const Strip& strip, const Planes&, Index row) {
  constexpr Index size = L == Layout::fp32 ? 4 : 2;
  const Index full = p.piece->length / 32;
  const std::byte* at[Rows];
  for (int r = 0; r < Rows; ++r) {
    const Index i = p.row + (row + r < p.rows ? row + r : p.rows - 1);
    at[r] = static_cast<const std::byte*>(p.piece->data) + i * p.piece->stride * size;
  }
  __m256 sum[Rows][Tokens], w[Rows][4];
  clear(sum);
  const float* x = strip.x;
  for (Index c = strip.begin; c < strip.end && c < full; ++c, x += 32 * Tokens) {
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) load_dense<L>(at[r] + c * 32 * size, w[r]);
    add_products(w, x, sum);
  }
  if (full < strip.end) {
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) load_part<L>(at[r] + full * 32 * size, p.piece->length % 32, w[r]);
    add_products(w, x, sum);
  }
  store_sums(p, row, sum, 1.0f);
}

/// All rows, Rows side by side. Several tokens are met strip by strip: a copy of a strip's activations, 16 KiB, stays in the first-level
/// cache from row to row.
template <int Rows, int Tokens>
void in_strips(const FewTokens& p, const Planes& planes, void (*few)(const FewTokens&, const Strip&, const Planes&, Index)) {
  constexpr Index length = 128 / Tokens;
  alignas(32) float copy[Tokens == 1 ? 1 : 4096];
  FewTokens part = p;
  Strip strip{0, p.chunks, p.x};
  for (; strip.begin < p.chunks; strip.begin = strip.end) {
    if constexpr (Tokens > 1) {
      strip.end = p.chunks - strip.begin < length ? p.chunks : strip.begin + length;
      strip.x = copy;
      for (Index c = 0; c < strip.end - strip.begin; ++c)
        for (Index t = 0; t < Tokens; ++t)
          std::memcpy(copy + (c * Tokens + t) * 32, p.x + (t * p.chunks + strip.begin + c) * 32, 32 * sizeof(float));
    }
    for (Index row = 0; row < p.rows; row += Rows) few(part, strip, planes, row);
    part.accumulate = true;
  }
}

template <Layout L, Scaling M, Entries E>
void few_blocks(const FewTokens& p, const Planes& planes) {
  if (p.tokens == 1) return in_strips<4, 1>(p, planes, one_token<L, M, E, 4>);
  if (p.tokens <= 4) return in_strips<2, 4>(p, planes, few_rows<L, M, E, 2, 4>);
  in_strips<1, 8>(p, planes, few_rows<L, M, E, 1, 8>);
}

template <Layout L>
void few_dense(const FewTokens& p, const Planes& planes) {
  if (p.tokens == 1) return in_strips<4, 1>(p, planes, dense_rows<L, 4, 1>);
  if (p.tokens <= 4) return in_strips<2, 4>(p, planes, dense_rows<L, 2, 4>);
  in_strips<1, 8>(p, planes, dense_rows<L, 1, 8>);
}

/// Layouts of ggml: the known formats have tables of small whole numbers; any other table takes the general way.
template <Layout L>
void few_halves(const FewTokens& p, const Planes& planes, Scaling scaling) {
  if (!planes.are_short) return few_blocks<L, Scaling::window_offset, Entries::floats>(p, planes);
  if constexpr (L == Layout::halves) {
    if (scaling == Scaling::half) return few_blocks<L, Scaling::half, Entries::shorts>(p, planes);
    if (scaling == Scaling::half_offset) return few_blocks<L, Scaling::half_offset, Entries::shorts>(p, planes);
  }
  few_blocks<L, Scaling::window_offset, Entries::shorts>(p, planes);
}

inline void few_tokens(const FewTokens& p) {
  const Planes planes(p.piece->blocks.table);
  const Scaling scaling = few::scaling_of(p.piece->blocks);
  switch (few::layout_of(*p.piece)) {
    case Layout::pairs:
      if (scaling == Scaling::array) return few_blocks<Layout::pairs, Scaling::array, Entries::floats>(p, planes);
      if (scaling == Scaling::window) return few_blocks<Layout::pairs, Scaling::window, Entries::floats>(p, planes);
      return few_blocks<Layout::pairs, Scaling::window_offset, Entries::floats>(p, planes);
    case Layout::halves:
      return few_halves<Layout::halves>(p, planes, scaling);
    case Layout::long_halves:
      return few_halves<Layout::long_halves>(p, planes, scaling);
    case Layout::bytes:
      if (scaling == Scaling::half) return few_blocks<Layout::bytes, Scaling::half, Entries::shorts>(p, planes);
      return few_blocks<Layout::bytes, Scaling::window_offset, Entries::shorts>(p, planes);
    case Layout::fp32:
      return few_dense<Layout::fp32>(p, planes);
    case Layout::bf16:
      return few_dense<Layout::bf16>(p, planes);
    case Layout::half:
      return few_dense<Layout::half>(p, planes);
  }
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

}  // namespace lowrank::inline LOWRANK_ABI::kernels::avx2

#endif  // defined(__x86_64__)
