// Element-wise loops with AVX-512: 16 floats a vector.

inline __mmask16 first_lanes(Index count) { return static_cast<__mmask16>(count >= 16 ? 0xffffu : (1u << count) - 1u); }

struct Floats {
  static constexpr Index size = 16;
  __m512 v;

  static Floats all(float x) { return {_mm512_set1_ps(x)}; }
  static Floats load(const float* from, Whole, float = 0) { return {_mm512_loadu_ps(from)}; }
  static Floats load(const float* from, First part, float fill = 0) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(part.count), from)};
  }
  static Floats of_upper(__m256i words) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16))}; }
  static Floats load(const BFloat16* from, Whole) { return of_upper(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
  static Floats load(const BFloat16* from, First part) { return of_upper(_mm256_maskz_loadu_epi16(first_lanes(part.count), from)); }
  void store(float* to, Whole) const { _mm512_storeu_ps(to, v); }
  void store(float* to, First part) const { _mm512_mask_storeu_ps(to, first_lanes(part.count), v); }
  __m512i upper() const { return _mm512_srli_epi32(_mm512_castps_si512(v), 16); }
  void store_upper(std::uint16_t* to, Whole) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(upper())); }
  void store_upper(std::uint16_t* to, First part) const { _mm512_mask_cvtepi32_storeu_epi16(to, first_lanes(part.count), upper()); }
};
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats largest(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats smallest(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Floats sqrt(Floats a) { return {_mm512_sqrt_ps(a.v)}; }
inline Floats round(Floats a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats times_power(Floats x, Floats n) { return {_mm512_scalef_ps(x.v, n.v)}; }
inline float sum_of(Floats a) { return _mm512_reduce_add_ps(a.v); }
/// The sums of four vectors; of one vector in the same order.
inline __m256 halves_sum(__m512 a) { return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
inline __m128 four_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(halves_sum(a), halves_sum(b)), _mm256_hadd_ps(halves_sum(c), halves_sum(d)));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
inline void store_sums(const Floats* a, float* out) { _mm_storeu_ps(out, four_sums(a[0].v, a[1].v, a[2].v, a[3].v)); }
inline void store_sums(Floats a, float* out) { *out = _mm_cvtss_f32(four_sums(a.v, a.v, a.v, a.v)); }
inline float largest_of(Floats a) { return _mm512_reduce_max_ps(a.v); }
inline Floats twice(const float* from) {
  return {_mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                _mm512_castps256_ps512(_mm256_loadu_ps(from)))};
}
inline Floats swapped(Floats a) { return {_mm512_permute_ps(a.v, 0xB1)}; }
inline Floats alternating(float first, float second) {
  return {_mm512_mask_blend_ps(0xAAAA, _mm512_set1_ps(first), _mm512_set1_ps(second))};
}
