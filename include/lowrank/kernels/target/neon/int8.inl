// Bytes with the base of aarch64: activations rounded to them, and their products.

inline void to_int8(const float* from, Index chunks, std::int8_t* q, float* scale, float* sum) {
  for (Index c = 0; c < chunks; ++c, from += 32, q += 32) {
    float32x4_t largest_of = vdupq_n_f32(0);
    for (int i = 0; i < 32; i += 4) largest_of = vmaxq_f32(largest_of, vabsq_f32(vld1q_f32(from + i)));
    const float largest = vmaxvq_f32(largest_of), inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int whole = 0;
    for (int i = 0; i < 32; i += 8) {
      const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from + i), inverse));
      const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(from + i + 4), inverse));
      const int8x8_t eight = vmax_s8(vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))), vdup_n_s8(-127));
      vst1_s8(q + i, eight);
      whole += vaddlv_s8(eight);
    }
    scale[c] = largest / 127.0f;
    sum[c] = scale[c] * static_cast<float>(whole);
  }
}

/// Sums of 8 neighbouring products each; two products fit in 16 bits, as |q| is at most 127.
[[gnu::always_inline]] inline int32x4_t dot(const int8x16_t* w, const std::int8_t* q) {
  const int8x16_t first = vld1q_s8(q), second = vld1q_s8(q + 16);
  const int16x8_t a = vmlal_high_s8(vmull_s8(vget_low_s8(w[0]), vget_low_s8(first)), w[0], first);
  const int16x8_t b = vmlal_high_s8(vmull_s8(vget_low_s8(w[1]), vget_low_s8(second)), w[1], second);
  return vpadalq_s16(vpaddlq_s16(a), b);
}
