// Few tokens with AVX2: how codes become floats, and what else few.inl asks for. The 32 codes of a chunk become floats by byte shuffles:
// one look-up a byte of the float, then interleaving.

using few::Layout, few::RowGroup, few::Scaling;

using Operand = float;
inline constexpr int chunk_vectors = 4, wide_rows = 1;
inline constexpr bool copies_tokens = true;
inline const float* tokens_of(const FewTokens& p) { return p.x; }

inline __m256i load_16_twice(const void* from) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(from))); }

/// A table's entries for byte shuffles: byte k holds byte k of all 16, in both 128-bit lanes. Those of ggml's formats are bfloat16, as
/// small whole numbers are, and have the upper two bytes alone.
template <bool IsShort>
struct Bytes {
  static constexpr bool is_short = IsShort;
  __m256i byte[4];

  explicit Bytes(const std::array<float, 16>& table) {
    alignas(16) std::uint8_t bytes[16];
    for (int k = IsShort ? 2 : 0; k < 4; ++k) {
      for (std::size_t c = 0; c < 16; ++c) bytes[c] = static_cast<std::uint8_t>(bit_cast<std::uint32_t>(table[c]) >> 8 * k);
      byte[k] = load_16_twice(bytes);
    }
  }
};

/// How many bits each half of both lanes of a chunk's 16 bytes is moved down: elements 0 … 15 come first.
template <Layout L>
[[gnu::always_inline]] inline __m256i nibble_shifts() {
  return L == Layout::pairs ? _mm256_setr_epi32(4, 4, 0, 0, 4, 4, 0, 0) : _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4);
}

/// A chunk's codes, one a byte, in the order that makes the interleaving of look_up yield elements 0 … 7, 8 … 15, 16 … 23, 24 … 31:
/// the low lane has elements 0 … 3, 8 … 11, 16 … 19, 24 … 27, the high lane the others; for shorts 0 and 8 alternate, and so on.
template <Layout L, bool IsShort>
[[gnu::always_inline]] inline __m256i ordered_codes(const std::byte* at, Index chunk) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (L == Layout::long_halves) {
    const __m256i as_stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    __m256i bytes = _mm256_permutevar8x32_epi32(as_stored, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    if constexpr (IsShort) {
      const __m128i alternating = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
      bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(alternating));
    }
    return _mm256_and_si256(_mm256_srl_epi32(bytes, _mm_cvtsi32_si128(chunk % 2 == 0 ? 0 : 4)), nibble);
  } else {
    const __m256i order = !IsShort ? _mm256_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11,  //
                                                      4, 5, 6, 7, 12, 13, 14, 15, 4, 5, 6, 7, 12, 13, 14, 15)
                                   : _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 0, 8, 1, 9, 2, 10, 3, 11,  //
                                                      4, 12, 5, 13, 6, 14, 7, 15, 4, 12, 5, 13, 6, 14, 7, 15);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(load_16_twice(at), order), nibble_shifts<L>()), nibble);
  }
}

/// The 32 entries of ordered codes.
template <bool IsShort>
[[gnu::always_inline]] inline void look_up(const Bytes<IsShort>& table, __m256i codes, Floats (&w)[4]) {
  const __m256i third = _mm256_shuffle_epi8(table.byte[2], codes), fourth = _mm256_shuffle_epi8(table.byte[3], codes);
  const __m256i upper[2] = {_mm256_unpacklo_epi8(third, fourth), _mm256_unpackhi_epi8(third, fourth)};
  if constexpr (IsShort) {
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    LOWRANK_UNROLL
    for (int k = 0; k < 2; ++k) {
      w[2 * k].v = _mm256_castsi256_ps(_mm256_slli_epi32(upper[k], 16));
      w[2 * k + 1].v = _mm256_castsi256_ps(_mm256_and_si256(upper[k], mask));
    }
  } else {
    const __m256i first = _mm256_shuffle_epi8(table.byte[0], codes), second = _mm256_shuffle_epi8(table.byte[1], codes);
    const __m256i lower[2] = {_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second)};
    LOWRANK_UNROLL
    for (int k = 0; k < 2; ++k) {
      w[2 * k].v = _mm256_castsi256_ps(_mm256_unpacklo_epi16(lower[k], upper[k]));
      w[2 * k + 1].v = _mm256_castsi256_ps(_mm256_unpackhi_epi16(lower[k], upper[k]));
    }
  }
}

/// A chunk of blocks, before scaling.
template <Layout L, class Table>
[[gnu::always_inline]] inline void load_chunk(const std::byte* at, Index chunk, const Table& table, Floats (&w)[4]) {
  if constexpr (L == Layout::bytes) {
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k)
      w[k].v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 8 * k))));
  } else {
    look_up(table, ordered_codes<L, Table::is_short>(at, chunk), w);
  }
}

/// A chunk of dense elements.
template <Layout L>
[[gnu::always_inline]] inline void load_dense(const std::byte* at, Floats (&w)[4]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) {
    if constexpr (L == Layout::fp32) {
      w[k].v = _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32 * k)));
    } else {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16 * k));
      if constexpr (L == Layout::half)
        w[k].v = _mm256_cvtph_ps(bits);
      else
        w[k].v = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
  }
}

/// Its first count elements, then zeros.
template <Layout L>
[[gnu::always_inline]] inline void load_part(const std::byte* at, Index count, Floats (&w)[4]) {
  if constexpr (L == Layout::fp32) {
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) w[k].v = _mm256_maskload_ps(reinterpret_cast<const float*>(at) + 8 * k, first_words(count - 8 * k));
  } else {
    alignas(32) std::byte copy[64] = {};
    std::memcpy(copy, at, static_cast<std::size_t>(count * 2));
    load_dense<L>(copy, w);
  }
}

/// A chunk's scale in all lanes, and its offset in the odd ones at least, if it has one.
struct Pair {
  __m256 scale, offset;
};
[[gnu::always_inline]] inline Floats scale_of(Pair pair) { return {pair.scale}; }
[[gnu::always_inline]] inline Floats offset_of(Pair pair) { return {_mm256_movehdup_ps(pair.offset)}; }

template <Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline Pair load_pair(const RowGroup<L, M, Rows>& rows, int r, Index c, Index place) {
  [[maybe_unused]] const std::byte* in_block = rows.codes[r] + place + rows.all.scale_from_codes;
  __m256 scale, offset;
  if constexpr (few::has_floats(M)) {
    const std::byte* at = rows.scale_of(r, c);
    scale = offset = _mm256_set1_ps(ArrayScales::float_at(at, 0));
    if constexpr (few::has_offset(M)) offset = _mm256_set1_ps(ArrayScales::float_at(at, rows.window_groups));
  } else if constexpr (M == Scaling::half) {
    std::int16_t bits;
    std::memcpy(&bits, in_block, sizeof bits);
    scale = offset = _mm256_cvtph_ps(_mm_set1_epi16(bits));
  } else {
    std::int32_t bits;
    std::memcpy(&bits, in_block, sizeof bits);
    offset = _mm256_cvtph_ps(_mm_set1_epi32(bits));
    scale = _mm256_moveldup_ps(offset);
  }
  return {scale, offset};
}

/// In the odd lanes, offset · Σ x of one row.
using Offsets = __m256;
template <Scaling M>
[[gnu::always_inline]] inline void add_offset(Pair pair, float x_sum, Offsets& rest) {
  if constexpr (few::has_offset(M)) rest = _mm256_fmadd_ps(pair.offset, _mm256_set1_ps(x_sum), rest);
}

/// sum[r][t] += w[r] · the chunk of token t.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void add_products(const Floats (&w)[Rows][4], const float* x, Index stride, Floats (&sum)[Rows][Tokens]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) {
      const __m256 activation = _mm256_loadu_ps(x + stride * t + 8 * k);
      LOWRANK_UNROLL
      for (int r = 0; r < Rows; ++r) sum[r][t].v = _mm256_fmadd_ps(w[r][k].v, activation, sum[r][t].v);
    }
  }
}

#include <lowrank/kernels/target/store_sums.inl>

/// unit times the sums of the lanes of four vectors.
inline void lane_sums(const Floats* sum, float unit, float* out) {
  _mm_store_ps(out, _mm_mul_ps(_mm_set1_ps(unit), four_sums(sum[0].v, sum[1].v, sum[2].v, sum[3].v)));
}
inline void store_dense_token(const FewTokens& p, Index group, const Floats (&sum)[4][1]) {
  alignas(16) float sums[4];
  _mm_store_ps(sums, four_sums(sum[0][0].v, sum[1][0].v, sum[2][0].v, sum[3][0].v));
  store_sums<4, 1>(p, group, sums);
}
[[gnu::always_inline]] inline void store_token(const FewTokens& p, Index group, const Floats (&sum)[4][1], const Offsets (&rest)[4]) {
  const __m256 second_lane = _mm256_castsi256_ps(_mm256_setr_epi32(0, -1, 0, 0, 0, 0, 0, 0));
  Floats all[4][1];
  LOWRANK_UNROLL
  for (int r = 0; r < 4; ++r) all[r][0].v = _mm256_add_ps(sum[r][0].v, _mm256_and_ps(rest[r], second_lane));
  store_dense_token(p, group, all);
}

#include <lowrank/kernels/target/few.inl>

inline void few_tokens(const FewTokens& p) {
  const BlockSource& s = p.weight->blocks();
  const Scaling scaling = few::scaling_of(s);
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return few_blocks<Layout::pairs, Scaling::floats>(p, Bytes<false>(s.table));
    case Layout::halves:
      if (scaling == Scaling::half) return few_blocks<Layout::halves, Scaling::half>(p, Bytes<true>(s.table));
      if (scaling == Scaling::half_offset) return few_blocks<Layout::halves, Scaling::half_offset>(p, Bytes<true>(s.table));
      return few_blocks<Layout::halves, Scaling::floats_offset>(p, Bytes<true>(s.table));
    case Layout::long_halves:
      return few_blocks<Layout::long_halves, Scaling::floats_offset>(p, Bytes<true>(s.table));
    case Layout::bytes:
      return few_blocks<Layout::bytes, Scaling::half>(p, Bytes<true>(s.table));
    case Layout::fp32:
      return few_dense<Layout::fp32>(p);
    case Layout::bf16:
      return few_dense<Layout::bf16>(p);
    case Layout::half:
      return few_dense<Layout::half>(p);
  }
}
