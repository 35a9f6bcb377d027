// Few tokens with AVX-512, in float.

using Operand = float;
inline const float* tokens_of(const FewTokens& p) { return p.x; }

/// sum[r][t] += w[r] · the chunk of token t.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void add_products(const Floats (&w)[Rows][2], const float* x, Index stride, Floats (&sum)[Rows][Tokens]) {
  LOWRANK_UNROLL
  for (int t = 0; t < Tokens; ++t, x += stride) {
    __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
    // Loaded once for all rows, from an address that moves: GCC would make them operands in memory, and keep a register for each token.
    __asm__("" : "+v"(first), "+v"(second), "+r"(x));
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) sum[r][t].v = _mm512_fmadd_ps(w[r][1].v, second, _mm512_fmadd_ps(w[r][0].v, first, sum[r][t].v));
  }
}

#include <lowrank/kernels/target/few.inl>

#include <lowrank/kernels/target/avx512/short_rows.inl>

inline void few_tokens(const FewTokens& p) {
  const CodeTable table{_mm512_loadu_ps(p.weight->blocks().table.data())};
  const bool has_floats = few::has_floats(few::scaling_of(p.weight->blocks()));
  switch (few::layout_of(*p.weight)) {
    case Layout::pairs:
      return few_blocks<Layout::pairs, Scaling::floats>(p, table);
    case Layout::halves:
      if (has_floats) return few_blocks<Layout::halves, Scaling::floats_offset>(p, table);
      return few_blocks<Layout::halves, Scaling::half_offset>(p, table);
    case Layout::long_halves:
      return few_blocks<Layout::long_halves, Scaling::floats_offset>(p, table);
    case Layout::bytes:
      return few_blocks<Layout::bytes, Scaling::half_offset>(p, table);
    case Layout::fp32:
      return dense_tokens<Layout::fp32>(p);
    case Layout::bf16:
      return dense_tokens<Layout::bf16>(p);
    case Layout::half:
      return dense_tokens<Layout::half>(p);
  }
}
