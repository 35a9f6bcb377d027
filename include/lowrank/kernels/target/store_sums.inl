// How few tokens end, with the including target's instructions.

/// y (+)= factor · sum, the sum of row r and token t at [r · Tokens + t].
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_sums(const FewTokens& p, Index row, const float (&sum)[Rows * Tokens]) {
  const float factor = p.factor;
  const Index ldy = p.ldy, row_count = Rows < p.rows - row ? Rows : p.rows - row, token_count = p.tokens;
  const bool accumulate = p.accumulate;
  float* y = p.y + row;
  for (Index t = 0; t < Tokens && t < token_count; ++t, y += ldy)
    for (Index r = 0; r < Rows && r < row_count; ++r) {
      const float x = sum[r * Tokens + t];
      y[r] = accumulate ? y[r] + rounded(factor * x) : factor * x;
    }
}
