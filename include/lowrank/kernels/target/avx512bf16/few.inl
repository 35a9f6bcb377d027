// Few tokens with BF16 and VNNI instructions; how rows are read is that of avx512/few.inl.

inline void to_bfloat16(const float* from, Index count, std::uint16_t* out) {
  for (Index i = 0; i < count; i += 32)
    _mm512_storeu_si512(out + i, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i)));
}

inline void to_int8(const float* from, Index chunks, std::int8_t* q, float* scale, float* sum) {
  for (Index c = 0; c < chunks; ++c) {
    const __m512 first = _mm512_loadu_ps(from + 32 * c), second = _mm512_loadu_ps(from + 32 * c + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(first), _mm512_abs_ps(second)));
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(first, inverse)), b = _mm512_cvtps_epi32(_mm512_mul_ps(second, inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 32 * c), _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 32 * c + 16), _mm512_cvtsepi32_epi8(b));
    scale[c] = largest / 127.0f;
    sum[c] = scale[c] * static_cast<float>(_mm512_reduce_add_epi32(_mm512_add_epi32(a, b)));
  }
}

using Operand = std::uint16_t;
inline const std::uint16_t* tokens_of(const FewTokens& p) { return p.brain; }

template <int Rows, int Tokens>
[[gnu::always_inline]] inline void add_products(const Floats (&w)[Rows][2], const std::uint16_t* x, Index stride,
                                                Floats (&sum)[Rows][Tokens]) {
  __m512bh rounded[Rows];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) rounded[r] = _mm512_cvtne2ps_pbh(w[r][1].v, w[r][0].v);
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t) {
    const __m512bh token = (__m512bh)_mm512_loadu_si512(x + stride * t);
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) sum[r][t].v = _mm512_dpbf16_ps(sum[r][t].v, rounded[r], token);
  }
}

#include <lowrank/kernels/target/few.inl>

template <Layout L, Scaling M>
void eight_tokens(const FewTokens& p) {
  const BlockReader<CodeTable> reader{few::BlockRows(p), {_mm512_loadu_ps(p.weight->blocks().table.data())}};
  all_rows<2, 8>(p, reader, few_rows<L, M, CodeTable, 2, 8>);
}

/// Up to four tokens are bound by decoding, so the float kernel serves them, without any rounding.
inline void few_tokens(const FewTokens& p) {
  if (p.tokens <= 4) return avx512::few_tokens(p);
  const bool has_floats = few::has_floats(few::scaling_of(p.weight->blocks()));
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return eight_tokens<Layout::pairs, Scaling::floats>(p);
    case Layout::halves:
      return has_floats ? eight_tokens<Layout::halves, Scaling::floats_offset>(p) : eight_tokens<Layout::halves, Scaling::half_offset>(p);
    case Layout::long_halves:
      return eight_tokens<Layout::long_halves, Scaling::floats_offset>(p);
    case Layout::bytes:
      return eight_tokens<Layout::bytes, Scaling::half_offset>(p);
    case Layout::fp32:
      return all_rows<2, 8>(p, DenseReader{}, dense_rows<Layout::fp32, 2, 8>);
    case Layout::bf16:
      return all_rows<2, 8>(p, DenseReader{}, dense_rows<Layout::bf16, 2, 8>);
    case Layout::half:
      return all_rows<2, 8>(p, DenseReader{}, dense_rows<Layout::half, 2, 8>);
  }
}

/// A code table in unsigned bytes: table[c] = unit * (entry[c] + zero), exact where the entries are small whole numbers.
struct UnsignedTable {
  alignas(16) std::uint8_t entry[16] = {};
  float unit = 1, zero = -128;

  explicit UnsignedTable(const BlockSource& s) {
    if (s.order == CodeOrder::bytes) return;  // signed bytes, moved by 128
    float low = s.table[0], high = low;
    bool is_whole = true;
    for (float number : s.table) {
      low = number < low ? number : low;
      high = number > high ? number : high;
      is_whole = is_whole && number == std::floor(number);
    }
    if (is_whole && high - low <= 255) {
      zero = low;
    } else {
      const float largest = -low > high ? -low : high;
      unit = largest > 0 ? largest / 127 : 1;
    }
    for (int c = 0; c < 16; ++c) entry[c] = static_cast<std::uint8_t>(std::lrint(s.table[static_cast<std::size_t>(c)] / unit - zero));
  }
};

/// A chunk's codes as unsigned bytes.
template <Layout L>
[[gnu::always_inline]] inline __m256i load_bytes(const std::byte* at, Index chunk, __m256i table) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (L == Layout::pairs || L == Layout::halves) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), high = _mm_srli_epi16(both, 4);
    const __m256i codes = L == Layout::pairs ? _mm256_set_m128i(both, high) : _mm256_set_m128i(high, both);
    return _mm256_shuffle_epi8(table, _mm256_and_si256(codes, nibble));
  } else {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    if constexpr (L == Layout::bytes) return _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(chunk % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4), nibble));
  }
}

/// Adds what few_rows_int8 has summed to the product.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_int8_sums(const FewTokens& p, const UnsignedTable& bytes, Index group,
                                                   const __m256 (&sum)[Rows * Tokens], const __m128 (&rest)[Rows * Tokens]) {
  alignas(16) float sums[Rows * Tokens];
  const __m128 unit = _mm_set1_ps(bytes.unit), zero = _mm_set1_ps(bytes.zero);
  LOWRANK_UNROLL
  for (int i = 0; i < Rows * Tokens; i += 4) {
    const __m128 whole = avx512::sums_of(avx512::quarter_sums(sum[i]), avx512::quarter_sums(sum[i + 1]), avx512::quarter_sums(sum[i + 2]),
                                         avx512::quarter_sums(sum[i + 3]));
    const __m128 ab = _mm_unpacklo_ps(rest[i], rest[i + 1]), cd = _mm_unpacklo_ps(rest[i + 2], rest[i + 3]);
    const __m128 slopes = _mm_movelh_ps(ab, cd), offsets = _mm_movehl_ps(cd, ab);
    _mm_store_ps(sums + i, _mm_fmadd_ps(unit, _mm_fmadd_ps(zero, slopes, whole), offsets));
  }
  store_sums<Rows, Tokens>(p, group, sums);
}

/// With w = slope unit (u + zero) + offset and x = d q: Σ w x = unit (Σ slope d u q + zero Σ slope d q) + Σ offset d q; the last two sums
/// need no code, only the sums of q, and are the lanes of `rest`.
template <Layout L, Scaling M, int Rows, int Tokens>
void few_rows_int8(const FewTokens& p, const BlockReader<UnsignedTable>& reader, Index group) {
  const UnsignedTable& bytes = reader.codes;
  RowGroup<L, M, Rows> rows(reader.rows, p, group);
  const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes.entry)));
  const Index width = p.chunks * 32;
  __m256 sum[Rows][Tokens];
  __m128 rest[Rows][Tokens];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) sum[r][t] = _mm256_setzero_ps(), rest[r][t] = _mm_setzero_ps();
  }
  for (Index begin = 0; begin < p.chunks; begin += rows.window()) {
    rows.read_ahead(begin, p.chunks);
    const Index end = p.chunks - begin < rows.window() ? p.chunks : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      const Index at = rows.place_of(c);
      rows.prefetch(at);
      LOWRANK_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const __m256i codes = load_bytes<L>(rows.codes[r] + at, c, table);
        const __m128 pair = load_pair(rows, r, c, at).v;
        LOWRANK_UNROLL
        for (int t = 0; t < Tokens; ++t) {
          const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p.q + t * width + c * 32));
          const __m256 dot = _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, q));
          const __m128 slope = _mm_mul_ss(pair, _mm_load_ss(p.q_scale + t * p.chunks + c));
          sum[r][t] = _mm256_fmadd_ps(dot, _mm256_broadcastss_ps(slope), sum[r][t]);
          rest[r][t] = _mm_fmadd_ps(pair, _mm_set1_ps(p.q_sum[t * p.chunks + c]), rest[r][t]);
        }
      }
    }
  }
  __m256 sums[Rows * Tokens];
  __m128 rests[Rows * Tokens];
  LOWRANK_UNROLL
  for (int i = 0; i < Rows * Tokens; ++i) sums[i] = sum[i / Tokens][i % Tokens], rests[i] = rest[i / Tokens][i % Tokens];
  store_int8_sums<Rows, Tokens>(p, bytes, group, sums, rests);
}

template <Layout L, Scaling M, int Rows, int Tokens>
void all_rows_int8(const FewTokens& p) {
  const BlockReader<UnsignedTable> reader{few::BlockRows(p), UnsignedTable(p.weight->blocks())};
  const few::SideBySide<Rows> sides(p);
  const Index groups = sides.groups();
  for (Index group = 0; group < groups; ++group) few_rows_int8<L, M, Rows, Tokens>(sides.tokens_of(group), reader, group);
}

template <Layout L, Scaling M>
void few_layout_int8(const FewTokens& p) {
  if (p.tokens == 1) return all_rows_int8<L, M, 4, 1>(p);
  if (p.tokens <= 4) return all_rows_int8<L, M, 2, 4>(p);
  all_rows_int8<L, M, 1, 8>(p);
}

/// Dense parts, such as an adapter's, stay in float.
inline void few_tokens_int8(const FewTokens& p) {
  const bool has_floats = few::has_floats(few::scaling_of(p.weight->blocks()));
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return few_layout_int8<Layout::pairs, Scaling::floats>(p);
    case Layout::halves:
      return has_floats ? few_layout_int8<Layout::halves, Scaling::floats_offset>(p)
                        : few_layout_int8<Layout::halves, Scaling::half_offset>(p);
    case Layout::long_halves:
      return few_layout_int8<Layout::long_halves, Scaling::floats_offset>(p);
    case Layout::bytes:
      return few_layout_int8<Layout::bytes, Scaling::half_offset>(p);
    default:
      return avx512::few_tokens(p);
  }
}
