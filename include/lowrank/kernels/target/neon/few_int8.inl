// Few tokens with Advanced SIMD and activations in 8 bits. Lanes run along the depth; the sums of four rows meet before they are scaled.
// The including target supplies dot(w, q), four sums of 8 products each.

/// 16 of a chunk's 32 weights in 8 bits.
template <Layout L>
[[gnu::always_inline]] inline int8x16_t load_weights(const std::byte* at, Index chunk, bool is_second, int8x16_t table) {
  const uint8x16_t codes = load_codes<L>(at, chunk, is_second);
  return L == Layout::bytes ? vreinterpretq_s8_u8(codes) : vqtbl1q_s8(table, codes);
}

/// With w = slope code + offset and x = d q: Σ w x = slope d Σ code q + offset d Σ q, the last sum known beforehand.
template <Layout L, int Tokens>
[[gnu::always_inline]] inline void add_chunk_int8(const FewTokens& p, const FourRows<L>& rows, Index c, const few::SignedTable& table,
                                                  float32x4_t* sum) {
  const std::byte* at[4];
  rows.find(c, at);
  int8x16_t w[4][2];
  LOWRANK_UNROLL
  for (int r = 0; r < 4; ++r) {
    w[r][0] = load_weights<L>(at[r], c, false, vld1q_s8(table.entry));
    w[r][1] = load_weights<L>(at[r], c, true, vld1q_s8(table.entry));
  }
  const float32x4_t slope = vmulq_n_f32(rows.slope(c), table.unit), offset = rows.offset(c);
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t) {
    const Index chunk = t * p.chunks + c;
    const std::int8_t* q = p.q + chunk * 32;
    const int32x4_t low = vpaddq_s32(dot(w[0], q), dot(w[1], q)), high = vpaddq_s32(dot(w[2], q), dot(w[3], q));
    sum[t] = vfmaq_f32(sum[t], vcvtq_f32_s32(vpaddq_s32(low, high)), vmulq_n_f32(slope, p.q_scale[chunk]));
    sum[t] = vfmaq_n_f32(sum[t], offset, p.q_sum[chunk]);
  }
}

template <Layout L, int Tokens>
void few_rows_int8(const FewTokens& p, const few::SignedTable& table, Index group) {
  const few::SideBySide<4> sides(p);
  const Index row = sides.first(group);
  FourRows<L> rows(p, row, sides.stretch);
  float32x4_t sum[Tokens];
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t) sum[t] = vdupq_n_f32(0);
  for (Index begin = 0; begin < p.chunks; begin += rows.window()) {
    rows.read_ahead(begin);
    const Index end = p.chunks - begin < rows.window() ? p.chunks : begin + rows.window();
    for (Index c = begin; c < end; ++c) add_chunk_int8<L, Tokens>(p, rows, c, table, sum);
  }
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t) store_sums(p, row, sides.stretch, t, sum[t]);
}

template <Layout L>
void few_layout_int8(const FewTokens& p) {
  const few::SignedTable table(p.weight->blocks());
  const few::SideBySide<4> sides(p);
  const Index groups = sides.groups();
  for (Index group = 0; group < groups; ++group) {
    const FewTokens& tokens = sides.tokens_of(group);
    if (p.tokens == 1)
      few_rows_int8<L, 1>(tokens, table, group);
    else if (p.tokens <= 4)
      few_rows_int8<L, 4>(tokens, table, group);
    else
      few_rows_int8<L, 8>(tokens, table, group);
  }
}

/// Dense parts, such as an adapter's, stay in float.
inline void few_tokens_int8(const FewTokens& p) {
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return few_layout_int8<Layout::pairs>(p);
    case Layout::halves:
      return few_layout_int8<Layout::halves>(p);
    case Layout::long_halves:
      return few_layout_int8<Layout::long_halves>(p);
    case Layout::bytes:
      return few_layout_int8<Layout::bytes>(p);
    default:
      return neon::few_tokens(p);
  }
}
