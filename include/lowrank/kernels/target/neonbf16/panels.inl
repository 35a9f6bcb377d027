// bfloat16 with bfmmla, which adds to a 2 x 2 block of sums the products of 2 x 4 and 4 x 2 numbers.
//
// Panels: a grain is four neighbours of the depth, two words a lane. Of four lanes i … i + 3 the first two fill the vector at the first
// word's place, panel[2 g step + i] in grain g, the other two that at the second's, panel[(2 g + 1) step + i].

/// sum[2 i + j] + Σ a[4 i + k] b[4 j + k], k < 4.
[[gnu::always_inline]] inline float32x4_t add_block(float32x4_t sum, uint16x8_t a, uint16x8_t b) {
  __asm__("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(a), "w"(b));
  return sum;
}

/// Both rounded to bfloat16, side by side.
[[gnu::always_inline]] inline uint16x8_t narrow(float32x4_t first, float32x4_t second) {
  uint16x8_t both;
  __asm__("bfcvtn %0.4h, %1.4s\n\tbfcvtn2 %0.8h, %2.4s" : "=&w"(both) : "w"(first), "w"(second));
  return both;
}

/// Four rows of two tokens' sums to 2 x 2 blocks, or back.
[[gnu::always_inline]] inline void turn(float32x4_t* two) {
  const float64x2_t a = vreinterpretq_f64_f32(two[0]), b = vreinterpretq_f64_f32(two[1]);
  two[0] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
  two[1] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
}

/// A grain of four lanes.
[[gnu::always_inline]] inline void store_grain(const float32x4_t* lane, Word* panel, Index step) {
  vst1q_u32(panel, vreinterpretq_u32_u16(narrow(lane[0], lane[1])));
  vst1q_u32(panel + step, vreinterpretq_u32_u16(narrow(lane[2], lane[3])));
}

template <Index Lanes>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index lane = 0; lane < Lanes; lane += 4) {
    const float* row[4];
    for (Index i = 0; i < 4; ++i) row[i] = from + (lane + i < count ? lane + i : 0) * stride;  // a missing lane repeats lane 0
    for (Index k = 0; k < depth; k += 4) {
      float32x4_t four[4];
      LOWRANK_UNROLL
      for (int i = 0; i < 4; ++i) four[i] = vmulq_n_f32(Floats::load(row[i] + k, First{depth - k}).v, scale);
      store_grain(four, panel + k / 2 * step + lane, step);
    }
  }
}

template <Index Lanes>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  for (Index k = 0; k < depth; k += 4) {
    for (Index lane = 0; lane < Lanes; lane += 4) {
      float32x4_t four[4];
      for (Index i = 0; i < 4; ++i) {
        four[i] = vdupq_n_f32(0);
        if (k + i < depth) four[i] = vmulq_n_f32(Floats::load(from + (k + i) * stride + lane, First{count - lane}).v, scale);
      }
      transpose(four);
      store_grain(four, panel + k / 2 * step + lane, step);
    }
  }
}

inline void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  const Table table(s.table.data());
  const Index row_bytes = s.row_bytes();
  Scales scales;
  float slope[4], offset[4];
  for (Index k = 0; k < depth; k += 16) {
    if (k == 0 || (col + k) % s.group == 0) {
      scales.load(s, row, count, col + k);
      vst1q_f32(slope, vmulq_n_f32(scales.scale, scale));
      vst1q_f32(offset, vmulq_n_f32(scales.offset, scale));
    }
    const CodePlace place(s, row * s.pitch + col + k);
    float32x4_t numbers[4][4];  // of four rows
    LOWRANK_UNROLL
    for (Index r = 0; r < 4; ++r) {
      CodePlace at = place;
      at.bytes += (r < count ? r : 0) * row_bytes;
      numbers_of_16(s.order, at, table, numbers[r]);
      LOWRANK_UNROLL
      for (int q = 0; q < 4; ++q) numbers[r][q] = vfmaq_n_f32(vdupq_n_f32(offset[r]), numbers[r][q], slope[r]);
    }
    LOWRANK_UNROLL
    for (Index q = 0; q < 4; ++q) {
      const float32x4_t four[4] = {numbers[0][q], numbers[1][q], numbers[2][q], numbers[3][q]};
      store_grain(four, panel + (k / 2 + 2 * q) * step, step);
    }
  }
}

/// sum[j] += the products of one grain of four tokens with 4 · Vectors rows: of tokens 0 and 1, then of 2 and 3.
template <int Vectors>
[[gnu::always_inline]] inline void add_grain(const uint16x8_t (&row)[Vectors][2], const Word* b, float32x4_t (*sum)[Vectors][2]) {
  LOWRANK_UNROLL
  for (int j = 0; j < 2; ++j) {
    const uint16x8_t tokens = vreinterpretq_u16_u32(vld1q_u32(b + j * columns));
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      sum[j][v][0] = add_block(sum[j][v][0], tokens, row[v][0]);
      sum[j][v][1] = add_block(sum[j][v][1], tokens, row[v][1]);
    }
  }
}

/// As multiply.inl: 4 · Vectors rows, Columns tokens.
template <int Vectors, int Columns>
void multiply_tile(Index words, Index, Index rows, Index column_count, const Word* a, const Word* b, const float* from, Index from_stride,
                   float* c, Index ldc) {
  constexpr Index step = Vectors * lanes;
  float32x4_t sum[Columns / 2][Vectors][2];
  LOWRANK_UNROLL
  for (int j = 0; j < Columns / 2 * Vectors; ++j) {
    float32x4_t* two = sum[j / Vectors][j % Vectors];
    for (int i = 0; i < 2; ++i) {
      const Index token = j / Vectors * 2 + i, row = j % Vectors * lanes;
      two[i] = vdupq_n_f32(0);
      if (from != nullptr && token < column_count) two[i] = Floats::load(from + token * from_stride + row, First{rows - row}).v;
    }
    turn(two);
  }
  for (Index k = 0; k < words; k += 2, a += 2 * step, b += 2 * columns) {
    uint16x8_t row[Vectors][2];
    LOWRANK_UNROLL
    for (int v = 0; v < 2 * Vectors; ++v) row[v / 2][v % 2] = vreinterpretq_u16_u32(vld1q_u32(a + v % 2 * step + v / 2 * lanes));
    LOWRANK_UNROLL
    for (int j = 0; j < Columns; j += 4) add_grain<Vectors>(row, b + j, sum + j / 2);
  }
  LOWRANK_UNROLL
  for (int j = 0; j < Columns / 2 * Vectors; ++j) {
    float32x4_t* two = sum[j / Vectors][j % Vectors];
    turn(two);
    for (int i = 0; i < 2; ++i) {
      const Index token = j / Vectors * 2 + i, row = j % Vectors * lanes;
      if (token < column_count) Floats{two[i]}.store(c + token * ldc + row, First{rows - row});
    }
  }
}

inline void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, const float* from,
                     Index from_stride, float* c, Index ldc) {
  static constexpr PanelKernels::Multiply tiles[vectors][columns / 4] = {{multiply_tile<1, 4>, multiply_tile<1, 8>, multiply_tile<1, 12>},
                                                                         {multiply_tile<2, 4>, multiply_tile<2, 8>, multiply_tile<2, 12>}};
  tiles[vector_count - 1][(column_count - 1) / 4](words, vector_count, rows, column_count, a, b, from, from_stride, c, ldc);
}
