// Few tokens with Advanced SIMD: rows of weights are read once, front to back, four to eight side by side.
//
// Lanes are rows: the codes of four rows are transposed as bytes, which costs little, and then a vector of scales serves all four, tokens
// are taken by lane, and no sum has to be added across lanes at the end. In 8 bits lanes run along the depth.

using few::Layout;

/// Scales and offsets of four rows, read ahead.
struct ScaleWindow {
  static constexpr Index groups = 64;
  float scale[groups][4], offset[groups][4];

  /// Scales of chunks first, first + 1, … of rows that begin inside groups.
  void read_chunks(const BlockSource& s, const Index* row, Index first, Index count) {
    for (int r = 0; r < 4; ++r) {
      const Index begin = row[r] * s.pitch / 32 + first, group = begin * 32 / s.group;
      float scales[groups], offsets[groups];
      s.read_scales(s, group, (begin + count - 1) * 32 / s.group - group + 1, scales, offsets);
      for (Index c = 0; c < count; ++c) {
        const Index g = (begin + c) * 32 / s.group - group;
        scale[c][r] = scales[g], offset[c][r] = offsets[g];
      }
    }
  }

  /// Groups first, first + 1, … of each row, up to its end.
  void read(const BlockSource& s, const Index* row, Index first) {
    const Index of_row = s.pitch / s.group, left = of_row - first, count = left < groups ? left : groups;
    if (s.read_scales == HalfScales::read && s.group == s.block) {
      const std::byte* at[4];
      for (int r = 0; r < 4; ++r) at[r] = s.block_of((row[r] * of_row + first) * s.group);
      for (Index g = 0; g < count; ++g) {
        vst1q_f32(scale[g], Scales::load_halves(at, s.scale_at));
        vst1q_f32(offset[g], s.offset_at < 0 ? vdupq_n_f32(0) : Scales::load_halves(at, s.offset_at));
        for (int r = 0; r < 4; ++r) at[r] += s.block_bytes;
      }
      return;
    }
    for (int r = 0; r < 4; ++r) {
      float scales[groups], offsets[groups];
      s.read_scales(s, row[r] * of_row + first, count, scales, offsets);
      for (Index g = 0; g < count; ++g) scale[g][r] = scales[g], offset[g][r] = offsets[g];
    }
  }
};
struct NoScales {};

/// Four rows of a piece; rows past the last repeat it.
template <Layout L>
struct FourRows {
  static constexpr bool is_dense = few::is_dense(L);
  static constexpr Index element_bytes = few::element_bytes(L);  ///< of a dense row
  static constexpr Index chunk_bytes = is_dense ? 32 * element_bytes : L == Layout::bytes ? 32 : 16;

  const WeightView& weight;
  Index index[4];
  const std::byte* row[4];
  Index block_shift = 0, group_shift = 0;
  Index chunks = 0;  ///< of rows that begin inside groups: each has a scale in the window
  std::conditional_t<is_dense, NoScales, ScaleWindow> ahead;
  Index short_chunk = -1;  ///< the chunk in which a dense row ends, copied to `last` and filled up with zeros
  alignas(16) std::byte last[is_dense ? 4 : 1][is_dense ? chunk_bytes : 1];

  FourRows(const FewTokens& p, Index begin, Index stretch) : weight(*p.weight) {
    const BlockSource& s = weight.blocks();
    for (Index r = 0; r < 4; ++r) {
      index[r] = p.row + (begin + r * stretch < p.rows ? begin + r * stretch : p.rows - 1);
      if constexpr (is_dense)
        row[r] = static_cast<const std::byte*>(weight.data()) + index[r] * weight.stride() * element_bytes;
      else
        row[r] = L == Layout::pairs ? s.data + index[r] * s.pitch / 32 * 16 : s.data + index[r] * s.row_bytes();
    }
    if constexpr (is_dense) {
      if (weight.cols() % 32 == 0) return;
      short_chunk = weight.cols() / 32;
      for (int r = 0; r < 4; ++r) {
        std::memset(last[r], 0, chunk_bytes);
        std::memcpy(last[r], row[r] + short_chunk * chunk_bytes, static_cast<std::size_t>(weight.cols() % 32 * element_bytes));
      }
    } else {
      if (L == Layout::pairs && !s.rows_hold_whole_groups()) chunks = p.chunks;
      group_shift = chunks > 0 ? 5 : std::countr_zero(static_cast<std::size_t>(s.group));
      block_shift = std::countr_zero(static_cast<std::size_t>(s.block));
    }
  }

  /// Chunks whose scales are at hand after read_ahead.
  Index window() const { return is_dense ? Index{1} << 40 : ScaleWindow::groups << group_shift >> 5; }
  void read_ahead(Index chunk) {
    if constexpr (!is_dense) {
      if (chunks > 0)
        ahead.read_chunks(weight.blocks(), index, chunk, chunks - chunk < ScaleWindow::groups ? chunks - chunk : ScaleWindow::groups);
      else
        ahead.read(weight.blocks(), index, chunk * 32 >> group_shift);
    }
  }
  float32x4_t slope(Index chunk) const { return vld1q_f32(ahead.scale[group(chunk)]); }
  float32x4_t offset(Index chunk) const { return vld1q_f32(ahead.offset[group(chunk)]); }

  /// Where chunk c of each row lies.
  [[gnu::always_inline]] void find(Index c, const std::byte** at) const {
    if (c == short_chunk) {
      for (int r = 0; r < 4; ++r) at[r] = last[is_dense ? r : 0];
      return;
    }
    Index begin = c * chunk_bytes;
    if constexpr (!is_dense && L != Layout::pairs) {
      const Index in_block = c & ((Index{1} << (block_shift - 5)) - 1);
      const Index codes = L == Layout::long_halves ? in_block / 2 * 32 : in_block * chunk_bytes;
      begin = (c >> (block_shift - 5)) * weight.blocks().block_bytes + weight.blocks().codes_at + codes;
    }
    for (int r = 0; r < 4; ++r) at[r] = row[r] + begin;
  }

 private:
  Index group(Index chunk) const { return (chunk * 32 >> group_shift) % ScaleWindow::groups; }
};

/// 16 of a chunk's 32 codes; is_second: the other 16.
template <Layout L>
[[gnu::always_inline]] inline uint8x16_t load_codes(const std::byte* at, Index chunk, bool is_second) {
  if constexpr (L == Layout::pairs || L == Layout::halves)
    return (L == Layout::pairs) == is_second ? low_nibbles(load_bytes(at)) : high_nibbles(load_bytes(at));
  const uint8x16_t bytes = load_bytes(at + 16 * is_second);
  if constexpr (L == Layout::bytes) return bytes;
  return low_nibbles(vshlq_u8(bytes, vdupq_n_s8(chunk % 2 == 0 ? 0 : -4)));
}

/// Elements 4 q … 4 q + 3 of a dense chunk as vectors of four rows.
template <Layout L>
[[gnu::always_inline]] inline void load_dense(const std::byte* const* at, int q, float32x4_t* w) {
  LOWRANK_UNROLL
  for (int r = 0; r < 4; ++r) {
    const std::byte* from = at[r] + 4 * q * FourRows<L>::element_bytes;
    if constexpr (L == Layout::fp32) {
      w[r] = vld1q_f32(reinterpret_cast<const float*>(from));
    } else {
      const uint16x4_t bits = vld1_u16(reinterpret_cast<const std::uint16_t*>(from));
      w[r] = L == Layout::half ? vcvt_f32_f16(vreinterpret_f16_u16(bits)) : vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(bits), 16));
    }
  }
  transpose(w);
}

/// sum[t] += w · x[t] over four elements of the depth.
template <int Tokens>
[[gnu::always_inline]] inline void add_quad(float32x4_t* sum, const float32x4_t* w, const float* x, Index width) {
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t) {
    const float32x4_t four = vld1q_f32(x + t * width);
    sum[t] = vfmaq_laneq_f32(sum[t], w[0], four, 0);
    sum[t] = vfmaq_laneq_f32(sum[t], w[1], four, 1);
    sum[t] = vfmaq_laneq_f32(sum[t], w[2], four, 2);
    sum[t] = vfmaq_laneq_f32(sum[t], w[3], four, 3);
  }
}

/// sum[t] += half a chunk of four rows times x[t]; the weights are scaled unless the sum will be.
template <Layout L, bool ScaleLast, int Tokens>
[[gnu::always_inline]] inline void add_half(const FourRows<L>& rows, Index c, bool is_second, const std::byte* const* at,
                                            const Table& table, const float* x, Index width, float32x4_t* sum) {
  uint8x16_t codes[4];
  if constexpr (!FourRows<L>::is_dense) {
    transpose_bytes(load_codes<L>(at[0], c, is_second), load_codes<L>(at[1], c, is_second), load_codes<L>(at[2], c, is_second),
                    load_codes<L>(at[3], c, is_second), codes);
  }
  LOWRANK_UNROLL
  for (int q = 0; q < 4; ++q) {
    float32x4_t w[4];
    if constexpr (FourRows<L>::is_dense) {
      load_dense<L>(at, is_second ? q + 4 : q, w);
    } else {
      if constexpr (L == Layout::bytes)
        widen_bytes(codes[q], w);
      else
        table.look_up(codes[q], w);
      if constexpr (!ScaleLast) {
        const float32x4_t slope = rows.slope(c), offset = rows.offset(c);
        LOWRANK_UNROLL
        for (int i = 0; i < 4; ++i) w[i] = vfmaq_f32(offset, w[i], slope);
      }
    }
    add_quad<Tokens>(sum, w, x + 4 * q, width);
  }
}

template <Layout L, bool ScaleLast, int Tokens>
[[gnu::always_inline]] inline void add_chunk(const FourRows<L>& rows, Index c, const Table& table, const float* x, const float* rest,
                                             Index width, float32x4_t* sum) {
  const std::byte* at[4];
  rows.find(c, at);
  if constexpr (Tokens == 1) {  // two chains of multiply-adds, for the latency
    float32x4_t part[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    add_half<L, ScaleLast, 1>(rows, c, false, at, table, x, width, &part[0]);
    add_half<L, ScaleLast, 1>(rows, c, true, at, table, rest, width, &part[1]);
    const float32x4_t both = vaddq_f32(part[0], part[1]);
    if constexpr (ScaleLast)
      sum[0] = vfmaq_f32(sum[0], both, rows.slope(c));
    else
      sum[0] = vaddq_f32(sum[0], both);
  } else {
    add_half<L, ScaleLast, Tokens>(rows, c, false, at, table, x, width, sum);
    add_half<L, ScaleLast, Tokens>(rows, c, true, at, table, rest, width, sum);
  }
}

/// y (+)= scale · sum for the four rows from `row` on, `stretch` apart, that there are.
inline void store_sums(const FewTokens& p, Index row, Index stretch, Index token, float32x4_t sum) {
  const Index count = p.rows - row;
  if (count <= 0 || token >= p.tokens) return;
  float* y = p.y + token * p.ldy + row;
  sum = vmulq_n_f32(sum, p.factor);
  if (stretch > 1) {
    float sums[4];
    vst1q_f32(sums, sum);
    for (Index r = 0; r < 4 && r * stretch < count; ++r) y[r * stretch] = p.accumulate ? y[r * stretch] + sums[r] : sums[r];
    return;
  }
  if (p.accumulate) sum = vaddq_f32(Floats::load(y, First{count}).v, sum);
  Floats{sum}.store(y, First{count});
}

/// 4 · Blocks rows; the second four only where there are so many.
template <Layout L, bool ScaleLast, int Tokens, int Blocks>
void few_rows(const FewTokens& p, Index group) {
  const few::SideBySide<4 * Blocks> sides(p);
  const Index row = sides.first(group), stretch = sides.stretch;
  FourRows<L> first(p, row, stretch), second(p, row + 4 * stretch, stretch);
  const bool is_wide = Blocks == 2 && row + 4 * stretch < p.rows;
  const Table table(p.weight->blocks().table.data());
  const Index width = p.chunks * 32;
  constexpr bool is_split = L == Layout::pairs && Tokens == 1;
  float32x4_t sum[Blocks][Tokens];
  LOWRANK_UNROLL
  for (int t = 0; t < Blocks * Tokens; ++t) sum[t / Tokens][t % Tokens] = vdupq_n_f32(0);
  for (Index begin = 0; begin < p.chunks; begin += first.window()) {
    first.read_ahead(begin);
    if (is_wide) second.read_ahead(begin);
    const Index end = p.chunks - begin < first.window() ? p.chunks : begin + first.window();
    for (Index c = begin; c < end; ++c) {
      const float* const x = p.x + c * (is_split ? 16 : 32);
      const float* const rest = is_split ? p.x_odd + c * 16 : x + 16;
      add_chunk<L, ScaleLast, Tokens>(first, c, table, x, rest, width, sum[0]);
      if constexpr (Blocks == 2)
        if (is_wide) add_chunk<L, ScaleLast, Tokens>(second, c, table, x, rest, width, sum[1]);
    }
  }
  LOWRANK_UNROLL
  for (int t = 0; t < Blocks * Tokens; ++t) store_sums(p, row + t / Tokens * 4 * stretch, stretch, t % Tokens, sum[t / Tokens][t % Tokens]);
}

/// All groups of so many rows.
template <int Rows>
void all_groups(const FewTokens& p, void (*few)(const FewTokens&, Index)) {
  const few::SideBySide<Rows> sides(p);
  const Index groups = sides.groups();
  for (Index group = 0; group < groups; ++group) few(sides.tokens_of(group), group);
}

template <Layout L, bool ScaleLast>
void few_layout(const FewTokens& p) {
  if (p.tokens == 1) return all_groups<8>(p, few_rows<L, ScaleLast, 1, 2>);
  if (p.tokens <= 4) return all_groups<8>(p, few_rows<L, false, 4, 2>);
  all_groups<4>(p, few_rows<L, false, 8, 1>);
}

/// Whether the format has no offsets: then one token's sums are scaled, which is cheaper than to scale the weights.
inline bool has_no_offsets(const BlockSource& s) {
  return s.read_scales == ArrayScales::read || s.read_scales == DoubleQuantizedScales::read ||
         (s.read_scales == HalfScales::read && s.offset_at < 0);
}

inline void few_tokens(const FewTokens& p) {
  const bool scale_last = has_no_offsets(p.weight->blocks());
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return scale_last ? few_layout<Layout::pairs, true>(p) : few_layout<Layout::pairs, false>(p);
    case Layout::halves:
      return scale_last ? few_layout<Layout::halves, true>(p) : few_layout<Layout::halves, false>(p);
    case Layout::long_halves:
      return few_layout<Layout::long_halves, false>(p);
    case Layout::bytes:
      return scale_last ? few_layout<Layout::bytes, true>(p) : few_layout<Layout::bytes, false>(p);
    case Layout::fp32:
      return few_layout<Layout::fp32, false>(p);
    case Layout::bf16:
      return few_layout<Layout::bf16, false>(p);
    case Layout::half:
      return few_layout<Layout::half, false>(p);
  }
}
