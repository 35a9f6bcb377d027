// Quantizing blocks of 32 numbers with half-precision scales, ggml's simple formats, with AVX2.

/// 32 numbers in registers.
struct Numbers {
  __m256 part[4];

  explicit Numbers(const float* x) {
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) part[k] = _mm256_loadu_ps(x + 8 * k);
  }
  /// Bit i: element i is `value`.
  std::uint32_t where(float value, __m256i kept) const {
    std::uint32_t bits = 0;
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) {
      const __m256 seen = _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(part[k]), kept));
      const __m256 is_value = _mm256_cmp_ps(seen, _mm256_set1_ps(value), _CMP_EQ_OQ);
      bits |= static_cast<std::uint32_t>(_mm256_movemask_ps(is_value)) << 8 * k;
    }
    return bits;
  }
  __m256 lowest() const { return _mm256_min_ps(_mm256_min_ps(part[0], part[1]), _mm256_min_ps(part[2], part[3])); }
  __m256 highest() const { return _mm256_max_ps(_mm256_max_ps(part[0], part[1]), _mm256_max_ps(part[2], part[3])); }
};

inline float lowest_of(__m256 eight) {
  __m128 four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_min_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_min_ss(four, _mm_shuffle_ps(four, four, 1)));
}
/// Minus the lowest of the negatives; signs change as integers.
inline float highest_of(__m256 eight) {
  const __m256i negative = _mm256_xor_si256(_mm256_castps_si256(eight), _mm256_set1_epi32(static_cast<int>(0x80000000u)));
  return -lowest_of(_mm256_castsi256_ps(negative));
}

/// Stores value in half precision; whether it fits.
inline bool store_half(float value, std::byte* to) {
  const auto bits = static_cast<std::uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT)));
  std::memcpy(to, &bits, 2);
  return (bits & 0x7c00) != 0x7c00;
}

/// A product as it is: as kernels' rounded(), for a vector.
inline __m256 rounded(__m256 product) {
  __asm__("" : "+x"(product));
  return product;
}

/// 32 integers of 16 bits at most as bytes, in order.
inline __m256i as_bytes(const __m256i* words, bool is_signed) {
  const __m256i first = _mm256_packs_epi32(words[0], words[1]), second = _mm256_packs_epi32(words[2], words[3]);
  const __m256i mixed = is_signed ? _mm256_packs_epi16(first, second) : _mm256_packus_epi16(first, second);
  return _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// Codes min(15, ⌊(x - low) · inverse + rounding⌋), number j in the low nibble of byte j, number j + 16 in the high one.
inline void store_halves(const Numbers& x, float low, float inverse, float rounding, std::byte* to) {
  __m256i code[4];
  LOWRANK_UNROLL
  for (int k = 0; k < 4; ++k) {
    const __m256 t = rounded(_mm256_mul_ps(_mm256_sub_ps(x.part[k], _mm256_set1_ps(low)), _mm256_set1_ps(inverse)));
    code[k] = _mm256_min_epi32(_mm256_cvttps_epi32(_mm256_add_ps(t, _mm256_set1_ps(rounding))), _mm256_set1_epi32(15));
  }
  const __m256i bytes = as_bytes(code, false);
  const __m128i pairs = _mm_or_si128(_mm256_castsi256_si128(bytes), _mm_slli_epi16(_mm256_extracti128_si256(bytes, 1), 4));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), pairs);
}

/// The extreme is the first number of the largest magnitude.
inline Index encode_extreme(const float* x, Index blocks, std::byte* to) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (Index b = 0; b < blocks; ++b, x += 32, to += 18) {
    const float largest = largest_magnitude(x, 32);
    if (!is_finite(largest)) return b;
    const Numbers numbers(x);
    const float scale = x[std::countr_zero(numbers.where(largest, magnitude))] / -8.0f;
    if (!store_half(scale, to)) return b;
    store_halves(numbers, 0, scalar::reciprocal(scale), 8.5f, to + 2);
  }
  return blocks;
}

/// Among equal zeros the first is the minimum and the last the maximum, as for std::minmax_element: it decides the signs that are stored.
inline Index encode_range(const float* x, Index blocks, std::byte* to) {
  const __m256i all = _mm256_set1_epi32(-1);
  for (Index b = 0; b < blocks; ++b, x += 32, to += 20) {
    if (!is_finite(largest_magnitude(x, 32))) return b;
    const Numbers numbers(x);
    const float low = x[std::countr_zero(numbers.where(lowest_of(numbers.lowest()), all))];
    const float high = x[31 - std::countl_zero(numbers.where(highest_of(numbers.highest()), all))];
    const float scale = (high - low) / 15.0f;
    if (!store_half(scale, to) || !store_half(low, to + 2)) return b;
    store_halves(numbers, low, scalar::reciprocal(scale), 0.5f, to + 4);
  }
  return blocks;
}

/// Rounds halves away from zero.
inline Index encode_bytes(const float* x, Index blocks, std::byte* to) {
  const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u)), one = _mm256_castps_si256(_mm256_set1_ps(1.0f));
  for (Index b = 0; b < blocks; ++b, x += 32, to += 34) {
    const float largest = largest_magnitude(x, 32), scale = largest / 127.0f;
    if (!is_finite(largest) || !store_half(scale, to)) return b;
    const __m256 inverse = _mm256_set1_ps(scalar::reciprocal(scale));
    const Numbers numbers(x);
    __m256i code[4];
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) {
      const __m256 t = rounded(_mm256_mul_ps(numbers.part[k], inverse)), whole = _mm256_round_ps(t, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
      const __m256 rest = _mm256_castsi256_ps(_mm256_andnot_si256(sign, _mm256_castps_si256(_mm256_sub_ps(t, whole))));
      const __m256i away = _mm256_castps_si256(_mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ));
      const __m256i step = _mm256_and_si256(away, _mm256_or_si256(_mm256_and_si256(_mm256_castps_si256(t), sign), one));
      code[k] = _mm256_cvttps_epi32(_mm256_add_ps(whole, _mm256_castsi256_ps(step)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2), as_bytes(code, true));
  }
  return blocks;
}
