// Element-wise loops with AVX2 and FMA: 8 floats a vector.

struct Floats {
  static constexpr Index size = 8;
  __m256 v;

  static Floats all(float x) { return {_mm256_set1_ps(x)}; }
  static __m256i mask(Index count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Floats load(const float* from, Whole, float = 0) { return {_mm256_loadu_ps(from)}; }
  static Floats load(const float* from, First part, float fill = 0) {
    const __m256i m = mask(part.count);
    return {_mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(from, m), _mm256_castsi256_ps(m))};
  }
  static Floats load(const BFloat16* from, Whole) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16))};
  }
  static Floats load(const BFloat16* from, First part) {
    BFloat16 numbers[8] = {};
    for (Index i = 0; i < part.count; ++i) numbers[i] = from[i];
    return load(numbers, Whole{});
  }
  void store(float* to, Whole) const { _mm256_storeu_ps(to, v); }
  void store(float* to, First part) const { _mm256_maskstore_ps(to, mask(part.count), v); }
  __m128i upper() const {
    const __m256i words = _mm256_srli_epi32(_mm256_castps_si256(v), 16);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0xD8));
  }
  void store_upper(std::uint16_t* to, Whole) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), upper()); }
  void store_upper(std::uint16_t* to, First part) const {
    alignas(16) std::uint16_t words[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(words), upper());
    for (Index i = 0; i < part.count; ++i) to[i] = words[i];
  }
};
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats largest(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats smallest(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Floats sqrt(Floats a) { return {_mm256_sqrt_ps(a.v)}; }
inline Floats round(Floats a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Floats times_power(Floats x, Floats n) {
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(x.v, _mm256_castsi256_ps(power))};
}
inline float sum_of(Floats a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/// The sums of four vectors; of one vector in the same order.
inline __m128 four_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
inline void store_sums(const Floats* a, float* out) { _mm_storeu_ps(out, four_sums(a[0].v, a[1].v, a[2].v, a[3].v)); }
inline void store_sums(Floats a, float* out) { *out = _mm_cvtss_f32(four_sums(a.v, a.v, a.v, a.v)); }
inline float largest_of(Floats a) {
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, a.v);
  float most = lanes[0];
  for (int i = 1; i < 8; ++i) most = most > lanes[i] ? most : lanes[i];
  return most;
}
inline Floats twice(const float* from) {
  return {_mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))};
}
inline Floats swapped(Floats a) { return {_mm256_permute_ps(a.v, 0xB1)}; }
inline Floats alternating(float first, float second) {
  return {_mm256_setr_ps(first, second, first, second, first, second, first, second)};
}
