// How few tokens end, with the including target's instructions.

/// y (+)= factor · sum for a group of rows, the sum of row r and token t at [r · Tokens + t].
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_sums(const FewTokens& p, Index group, const float (&sum)[Rows * Tokens]) {
  const few::SideBySide<Rows> sides(p);
  const float factor = p.factor;
  const Index ldy = p.ldy, first = sides.first(group), step = sides.stretch, token_count = p.tokens, end = p.rows - first;
  const bool accumulate = p.accumulate;
  float* y = p.y + first;
  for (Index t = 0; t < Tokens && t < token_count; ++t, y += ldy)
    for (Index r = 0; r < Rows && r * step < end; ++r) {
      const float x = sum[r * Tokens + t];
      y[r * step] = accumulate ? y[r * step] + rounded(factor * x) : factor * x;
    }
}
