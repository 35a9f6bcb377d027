// Chunks of 32 elements with AVX-512: how codes become floats, where their scales are, how sums leave the registers; see target/few.inl.
// A table is one register.

using few::Layout, few::RowGroup, few::Scaling;

inline constexpr int chunk_vectors = 2, wide_rows = 2;
inline constexpr bool copies_tokens = false;

struct CodeTable {
  __m512 v;
};

/// A chunk of blocks, before scaling.
template <Layout L>
[[gnu::always_inline]] inline void load_chunk(const std::byte* at, Index chunk, CodeTable table, Floats (&w)[2]) {
  const auto* bytes = reinterpret_cast<const __m128i*>(at);
  if constexpr (L == Layout::pairs || L == Layout::halves) {
    const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes));
    const __m512 low = _mm512_permutexvar_ps(codes, table.v), high = _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table.v);
    w[0].v = L == Layout::pairs ? high : low;
    w[1].v = L == Layout::pairs ? low : high;
  } else if constexpr (L == Layout::long_halves) {
    const __m128i shift = _mm_cvtsi32_si128(chunk % 2 == 0 ? 0 : 4);
    w[0].v = _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes)), shift), table.v);
    w[1].v = _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes + 1)), shift), table.v);
  } else if constexpr (L == Layout::bytes) {
    w[0].v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes)));
    w[1].v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes + 1)));
  }
}

/// 16 elements of 16 bits.
template <Layout L>
[[gnu::always_inline]] inline Floats widened(__m256i bits) {
  if constexpr (L == Layout::half) return {_mm512_cvtph_ps(bits)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}

/// A chunk of dense elements, or its first count, then zeros.
template <Layout L>
[[gnu::always_inline]] inline void load_dense(const std::byte* at, Floats (&w)[2]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 2; ++k) {
    if constexpr (L == Layout::fp32)
      w[k].v = _mm512_loadu_ps(at + 64 * k);
    else
      w[k] = widened<L>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32 * k)));
  }
}
template <Layout L>
[[gnu::always_inline]] inline void load_part(const std::byte* at, Index count, Floats (&w)[2]) {
  LOWRANK_UNROLL
  for (int k = 0; k < 2; ++k) {
    const __mmask16 mask = first_lanes(count > 16 * k ? count - 16 * k : 0);
    if constexpr (L == Layout::fp32)
      w[k].v = _mm512_maskz_loadu_ps(mask, at + 64 * k);
    else
      w[k] = widened<L>(_mm256_maskz_loadu_epi16(mask, at + 32 * k));
  }
}

/// Scale and offset of a chunk in the two lowest lanes.
struct Pair {
  __m128 v;
};
[[gnu::always_inline]] inline Floats scale_of(Pair pair) { return {_mm512_broadcastss_ps(pair.v)}; }
[[gnu::always_inline]] inline Floats offset_of(Pair pair) { return {_mm512_broadcastss_ps(_mm_movehdup_ps(pair.v))}; }

/// Scaling::half_offset serves formats without offsets too.
template <Layout L, Scaling M, int Rows>
[[gnu::always_inline]] inline Pair load_pair(const RowGroup<L, M, Rows>& rows, int r, Index c, Index place) {
  if constexpr (few::has_floats(M)) {
    const auto* at = reinterpret_cast<const float*>(rows.scale_of(r, c));
    const __m128 scale = _mm_load_ss(at);
    if constexpr (!few::has_offset(M)) return {scale};
    return {_mm_unpacklo_ps(scale, _mm_load_ss(at + rows.window_groups))};
  } else {
    const __m128 both = _mm_cvtph_ps(_mm_loadu_si32(rows.codes[r] + place + rows.all.scale_from_codes));
    return {_mm_and_ps(both, _mm_load_ps(reinterpret_cast<const float*>(rows.all.pair_mask)))};
  }
}

/// In the second lane, offset · Σ x of one row.
using Offsets = __m128;
template <Scaling M>
[[gnu::always_inline]] inline void add_offset(Pair pair, float x_sum, Offsets& rest) {
  if constexpr (few::has_offset(M)) rest = _mm_fmadd_ps(pair.v, _mm_set1_ps(x_sum), rest);
}

#include <lowrank/kernels/target/store_sums.inl>

/// The sums of four vectors, each in the order of sum_of; out = unit times them.
inline __m128 quarter_sums(__m256 a) { return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)); }
inline __m128 sums_of(__m128 a, __m128 b, __m128 c, __m128 d) {
  const __m128 ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a)), cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
  return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}
inline void lane_sums(const Floats* sum, float unit, float* out) {
  const __m128 sums = sums_of(quarter_sums(halves_sum(sum[0].v)), quarter_sums(halves_sum(sum[1].v)), quarter_sums(halves_sum(sum[2].v)),
                              quarter_sums(halves_sum(sum[3].v)));
  _mm_store_ps(out, _mm_mul_ps(_mm_set1_ps(unit), sums));
}
inline void store_dense_token(const FewTokens& p, Index group, const Floats (&sum)[4][1]) {
  alignas(16) float sums[4];
  _mm_store_ps(sums, four_sums(sum[0][0].v, sum[1][0].v, sum[2][0].v, sum[3][0].v));
  store_sums<4, 1>(p, group, sums);
}
inline void store_token(const FewTokens& p, Index group, const Floats (&sum)[4][1], const Offsets (&rest)[4]) {
  alignas(16) float sums[4];
  lane_sums(sum[0], 1, sums);
  LOWRANK_UNROLL
  for (int r = 0; r < 4; ++r) sums[r] += _mm_cvtss_f32(_mm_movehdup_ps(rest[r]));
  store_sums<4, 1>(p, group, sums);
}
