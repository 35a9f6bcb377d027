// Five to eight tokens times rows of blocks with bfmmla: rows are decoded along the depth, no byte is transposed, and two rows side by side
// are an operand.

inline void to_bfloat16(const float* from, Index count, std::uint16_t* out) {
  for (Index i = 0; i < count; i += 8) vst1q_u16(out + i, narrow(vld1q_f32(from + i), vld1q_f32(from + i + 4)));
}

/// Half a chunk of four rows, scaled: w[q] has elements 4 q … 4 q + 3 of rows 0 and 1, then of rows 2 and 3.
template <Layout L>
[[gnu::always_inline]] inline void load_half(const FourRows<L>& rows, Index c, bool is_second, const std::byte* const* at,
                                             const Table& table, uint16x8_t (&w)[4][2]) {
  const float32x4_t slope = rows.slope(c), offset = rows.offset(c);
  float slopes[4], offsets[4];
  vst1q_f32(slopes, slope);
  vst1q_f32(offsets, offset);
  LOWRANK_UNROLL
  for (int pair = 0; pair < 2; ++pair) {
    float32x4_t numbers[2][4];
    LOWRANK_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int r = 2 * pair + i;
      const uint8x16_t codes = load_codes<L>(at[r], c, is_second);
      L == Layout::bytes ? widen_bytes(codes, numbers[i]) : table.look_up(codes, numbers[i]);
      LOWRANK_UNROLL
      for (int q = 0; q < 4; ++q) numbers[i][q] = vfmaq_n_f32(vdupq_n_f32(offsets[r]), numbers[i][q], slopes[r]);
    }
    LOWRANK_UNROLL
    for (int q = 0; q < 4; ++q) w[q][pair] = narrow(numbers[0][q], numbers[1][q]);
  }
}

/// sum[t] += half a chunk of four rows times tokens 2 t and 2 t + 1.
template <Layout L>
[[gnu::always_inline]] inline void add_half_chunk(const FourRows<L>& rows, Index c, bool is_second, const std::byte* const* at,
                                                  const Table& table, const std::uint16_t* x, Index width, float32x4_t (&sum)[4][2]) {
  uint16x8_t w[4][2];
  load_half<L>(rows, c, is_second, at, table, w);
  LOWRANK_UNROLL
  for (int t = 0; t < 4; ++t, x += 2 * width) {
    LOWRANK_UNROLL
    for (int q = 0; q < 4; ++q) {
      const uint16x8_t tokens = vcombine_u16(vld1_u16(x + 4 * q), vld1_u16(x + width + 4 * q));
      sum[t][0] = add_block(sum[t][0], tokens, w[q][0]);
      sum[t][1] = add_block(sum[t][1], tokens, w[q][1]);
    }
  }
}

template <Layout L>
void eight_tokens(const FewTokens& p, Index group) {
  const few::SideBySide<4> sides(p);
  const Index row = sides.first(group), stretch = sides.stretch;
  FourRows<L> rows(p, row, stretch);
  const Table table(p.weight->blocks().table.data());
  const Index width = p.chunks * 32;
  float32x4_t sum[4][2];  // of two tokens: 2 x 2 blocks of rows 0 and 1, and of rows 2 and 3
  LOWRANK_UNROLL
  for (int t = 0; t < 8; ++t) sum[t / 2][t % 2] = vdupq_n_f32(0);
  for (Index begin = 0; begin < p.chunks; begin += rows.window()) {
    rows.read_ahead(begin);
    const Index end = p.chunks - begin < rows.window() ? p.chunks : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      const std::byte* at[4];
      rows.find(c, at);
      add_half_chunk<L>(rows, c, false, at, table, p.brain + c * 32, width, sum);
      add_half_chunk<L>(rows, c, true, at, table, p.brain + c * 32 + 16, width, sum);
    }
  }
  LOWRANK_UNROLL
  for (int t = 0; t < 4; ++t) {
    turn(sum[t]);
    store_sums(p, row, stretch, 2 * t, sum[t][0]);
    store_sums(p, row, stretch, 2 * t + 1, sum[t][1]);
  }
}

/// Up to four tokens are bound by decoding, so the float kernel serves them, without any rounding; and dense parts, such as an adapter's.
inline void few_tokens_bf16(const FewTokens& p) {
  if (p.tokens <= 4) return neon::few_tokens(p);
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return all_groups<4>(p, eight_tokens<Layout::pairs>);
    case Layout::halves:
      return all_groups<4>(p, eight_tokens<Layout::halves>);
    case Layout::long_halves:
      return all_groups<4>(p, eight_tokens<Layout::long_halves>);
    case Layout::bytes:
      return all_groups<4>(p, eight_tokens<Layout::bytes>);
    default:
      return neon::few_tokens(p);
  }
}
