// Advanced SIMD, which every aarch64 processor has: 4 floats a vector, panels of 8 rows and 12 tokens (24 sums, 2 vectors of rows, 3 of
// tokens: 29 of the 32 registers).

inline constexpr Index lanes = 4, vectors = 2, columns = 12;
inline constexpr int tile_columns[] = {4, 8, 12};

template <bool Rounded>
inline void store(Word* to, float32x4_t x) {
  vst1q_u32(to, vreinterpretq_u32_f32(Rounded ? nearest_bfloat16({x}).v : x));
}

/// Transposes 4 x 4 floats in place.
inline void transpose(float32x4_t* r) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
  r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/// Four rows to four lanes of a panel.
template <bool Rounded>
inline void pack_four_rows(const float* const* row, Index depth, float scale, Word* panel, Index step) {
  Index k = 0;
  for (; k + 4 <= depth; k += 4) {
    float32x4_t r[4];
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) r[i] = vmulq_n_f32(vld1q_f32(row[i] + k), scale);
    transpose(r);
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) store<Rounded>(panel + (k + i) * step, r[i]);
  }
  for (; k < depth; ++k) {
    const float four[4] = {row[0][k], row[1][k], row[2][k], row[3][k]};
    store<Rounded>(panel + k * step, vmulq_n_f32(vld1q_f32(four), scale));
  }
}

template <Index Lanes, bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index lane = 0; lane < Lanes; lane += 4) {
    const float* row[4];
    for (Index i = 0; i < 4; ++i) row[i] = from + (lane + i < count ? lane + i : 0) * stride;  // a missing lane repeats lane 0
    pack_four_rows<Rounded>(row, depth, scale, panel + lane, step);
  }
}

template <Index Lanes, bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index k = 0; k < depth; ++k) {
    const float* row = from + k * stride;
    LOWRANK_UNROLL
    for (Index lane = 0; lane < Lanes; lane += 4) {
      const float32x4_t four = lane + 4 <= count ? vld1q_f32(row + lane) : Floats::load(row + lane, First{count - lane}).v;
      store<Rounded>(panel + k * step + lane, vmulq_n_f32(four, scale));
    }
  }
}

/// sum[j][v] += row vector v of a word times its token j; tokens are taken by lane.
template <int Vectors, int Columns>
[[gnu::always_inline]] inline void add_word(const Word* a, const Word* b, Floats (&sum)[Columns][Vectors]) {
  float32x4_t row[Vectors];
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) row[v] = vreinterpretq_f32_u32(vld1q_u32(a + v * lanes));
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; j += 4) {
    const float32x4_t four = vreinterpretq_f32_u32(vld1q_u32(b + j));
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      sum[j][v].v = vfmaq_laneq_f32(sum[j][v].v, row[v], four, 0);
      sum[j + 1][v].v = vfmaq_laneq_f32(sum[j + 1][v].v, row[v], four, 1);
      sum[j + 2][v].v = vfmaq_laneq_f32(sum[j + 2][v].v, row[v], four, 2);
      sum[j + 3][v].v = vfmaq_laneq_f32(sum[j + 3][v].v, row[v], four, 3);
    }
  }
}

inline void widen_bfloat16(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 8 <= length; j += 8) {
    const uint16x8_t eight = vld1q_u16(bits + j), zero = vdupq_n_u16(0);
    vst1q_f32(out + j, vreinterpretq_f32_u16(vzip1q_u16(zero, eight)));
    vst1q_f32(out + j + 4, vreinterpretq_f32_u16(vzip2q_u16(zero, eight)));
  }
  scalar::widen<BFloat16>(bits + j, length - j, out + j);
}

inline void widen_half(const void* from, Index length, float* out) {
  const auto* bits = static_cast<const std::uint16_t*>(from);
  Index j = 0;
  for (; j + 4 <= length; j += 4) vst1q_f32(out + j, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(bits + j))));
  scalar::widen<Half>(bits + j, length - j, out + j);
}
