// Element-wise loops with NEON: 4 floats a vector.

struct Floats {
  static constexpr Index size = 4;
  float32x4_t v;

  static Floats all(float x) { return {vdupq_n_f32(x)}; }
  static Floats load(const float* from, Whole, float = 0) { return {vld1q_f32(from)}; }
  static Floats load(const float* from, First part, float fill = 0) {
    if (part.count >= 4) return {vld1q_f32(from)};
    float lanes[4] = {fill, fill, fill, fill};
    for (Index i = 0; i < part.count; ++i) lanes[i] = from[i];
    return {vld1q_f32(lanes)};
  }
  static Floats load(const BFloat16* from, Whole) {
    return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(from)), 16))};
  }
  static Floats load(const BFloat16* from, First part) {
    if (part.count >= 4) return load(from, Whole{});
    BFloat16 numbers[4] = {};
    for (Index i = 0; i < part.count; ++i) numbers[i] = from[i];
    return load(numbers, Whole{});
  }
  void store(float* to, Whole) const { vst1q_f32(to, v); }
  void store(float* to, First part) const {
    if (part.count >= 4) return vst1q_f32(to, v);
    float lanes[4];
    vst1q_f32(lanes, v);
    for (Index i = 0; i < part.count; ++i) to[i] = lanes[i];
  }
  uint16x4_t upper() const { return vshrn_n_u32(vreinterpretq_u32_f32(v), 16); }
  void store_upper(std::uint16_t* to, Whole) const { vst1_u16(to, upper()); }
  void store_upper(std::uint16_t* to, First part) const {
    std::uint16_t lanes[4];
    vst1_u16(lanes, upper());
    for (Index i = 0; i < part.count; ++i) to[i] = lanes[i];
  }
};
inline Floats operator+(Floats a, Floats b) { return {vaddq_f32(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {vsubq_f32(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {vmulq_f32(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {vdivq_f32(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Floats largest(Floats a, Floats b) { return {vmaxq_f32(a.v, b.v)}; }
inline Floats smallest(Floats a, Floats b) { return {vminq_f32(a.v, b.v)}; }
inline Floats sqrt(Floats a) { return {vsqrtq_f32(a.v)}; }
inline Floats round(Floats a) { return {vrndnq_f32(a.v)}; }
inline Floats times_power(Floats x, Floats n) {
  const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127)), 23);
  return {vmulq_f32(x.v, vreinterpretq_f32_s32(power))};
}
inline float sum_of(Floats a) { return vaddvq_f32(a.v); }
inline void store_sums(const Floats* a, float* out) { vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v))); }
inline void store_sums(Floats a, float* out) { *out = vaddvq_f32(a.v); }
inline float largest_of(Floats a) { return vmaxvq_f32(a.v); }
inline Floats twice(const float* from) {
  const float32x2_t two = vld1_f32(from);
  return {vcombine_f32(vdup_lane_f32(two, 0), vdup_lane_f32(two, 1))};
}
inline Floats swapped(Floats a) { return {vrev64q_f32(a.v)}; }
inline Floats alternating(float first, float second) {
  const float lanes[4] = {first, second, first, second};
  return {vld1q_f32(lanes)};
}
