// Decoding with AVX-512: a table is one register. Encoding is as fast with AVX2, whose comparisons need no mask registers.

/// Writes a vector; past the caches in sixteens of bytes, the alignment of fresh memory (whole lines are put together on the way).
inline void store(__m512i value, void* out, bool streams) {
  if (!streams) return _mm512_storeu_si512(out, value);
  auto* const to = static_cast<__m128i*>(out);
  _mm_stream_si128(to, _mm512_castsi512_si128(value));
  _mm_stream_si128(to + 1, _mm512_extracti32x4_epi32(value, 1));
  _mm_stream_si128(to + 2, _mm512_extracti32x4_epi32(value, 2));
  _mm_stream_si128(to + 3, _mm512_extracti32x4_epi32(value, 3));
}
inline void store(__m512 value, float* out, bool streams) { store(_mm512_castps_si512(value), static_cast<void*>(out), streams); }

/// Numbers i … i + 15 of a group of signed bytes.
inline __m512 scaled_bytes(const GroupCodes& group, Index i, __m512 slope, __m512 shift) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(group.codes + group.inside + i));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), slope, shift);
}

/// A group decoded to floats: its table is scaled once, then looked up.
struct FloatGroup {
  static void write(const BlockSource& s, const GroupCodes& group, float* out, bool streams) {
    const __m512 slope = _mm512_set1_ps(group.scale), shift = _mm512_set1_ps(group.offset);
    if (s.order == CodeOrder::bytes) {
      for (Index i = 0; i < group.count; i += 16) store(scaled_bytes(group, i, slope, shift), out + i, streams);
      return;
    }
    const __m512 values = _mm512_fmadd_ps(_mm512_loadu_ps(s.table.data()), slope, shift);
    for (Index i = 0; i < group.count; i += 32) {
      const __m256i codes = avx2::codes_32(s, group, i);
      store(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(codes)), values), out + i, streams);
      store(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(codes, 1)), values), out + i + 16, streams);
    }
  }
};

/// 16 floats rounded to bfloat16.
inline __m256i to_bfloat16(__m512 x) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(nearest_bfloat16({x}).v), 16)); }

/// A group decoded to bfloat16: the scaled table is rounded once, then looked up.
struct Bfloat16Group {
  static void write(const BlockSource& s, const GroupCodes& group, BFloat16* out, bool streams) {
    const __m512 slope = _mm512_set1_ps(group.scale), shift = _mm512_set1_ps(group.offset);
    if (s.order == CodeOrder::bytes) {
      for (Index i = 0; i < group.count; i += 32)
        store(join(to_bfloat16(scaled_bytes(group, i, slope, shift)), to_bfloat16(scaled_bytes(group, i + 16, slope, shift))), out + i,
              streams);
      return;
    }
    const __m256i rounded = to_bfloat16(_mm512_fmadd_ps(_mm512_loadu_ps(s.table.data()), slope, shift));
    const __m512i values = join(rounded, rounded);  // whatever bit 4 of a code is
    for (Index i = 0; i < group.count; i += 32)
      store(_mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(avx2::codes_32(s, group, i)), values), out + i, streams);
  }

 private:
  static __m512i join(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }
};
