// Few tokens: rows of weights are read once, front to back, and met by all tokens while they are in registers. Lanes run along the depth;
// rows go side by side, which shares the loads of the activations and gives the multiply-adds independent chains.
//
// A target includes this inside its namespace and region. It supplies Floats, and chunk_vectors, how many of them hold 32 elements;
// copies_tokens, whether a strip of the activations is copied together; wide_rows, how many rows meet eight tokens; Operand, an element of
// the activations, with tokens_of(p); add_products; for blocks a type of code table with load_chunk<L>(at, chunk, codes, w), Pair with
// load_pair, scale_of, offset_of and add_offset, and store_token; for dense rows load_dense, load_part and store_dense_token; lane_sums.

/// What rows of blocks are read with: how they lie, and the numbers of their codes.
template <class Codes>
struct BlockReader {
  few::BlockRows rows;
  Codes codes;
};
struct DenseReader {};

/// Chunks [begin, end) of the depth, and the activations there.
struct Strip {
  Index begin, end;
  const Operand* x;
};

/// From one token's chunk to the next token's, and from one chunk to the next.
inline Index token_stride(const FewTokens& p) { return copies_tokens ? 32 : 32 * p.chunks; }
template <int Tokens>
constexpr Index chunk_stride = copies_tokens ? 32 * Tokens : 32;

template <int Rows, int Tokens>
[[gnu::always_inline]] inline void clear(Floats (&sum)[Rows][Tokens]) {
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    LOWRANK_UNROLL
    for (int t = 0; t < Tokens; ++t) sum[r][t] = Floats::all(0.0f);
  }
}

/// Adds unit times the sums of vectors to the product.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_lanes(const FewTokens& p, Index group, const Floats (&sum)[Rows * Tokens], float unit) {
  alignas(16) float sums[Rows * Tokens];
  LOWRANK_UNROLL
  for (int i = 0; i < Rows * Tokens; i += 4) lane_sums(sum + i, unit, sums + i);
  store_sums<Rows, Tokens>(p, group, sums);
}
template <int Rows, int Tokens>
[[gnu::noinline]] void store_many_lanes(const FewTokens& p, Index group, const Floats (&sum)[Rows * Tokens], float unit) {
  store_lanes<Rows, Tokens>(p, group, sum, unit);
}

/// The same for what a loop has summed; of a copy, so that it stays in registers until then.
template <int Rows, int Tokens>
[[gnu::always_inline]] inline void store_all(const FewTokens& p, Index group, const Floats (&sum)[Rows][Tokens], float unit = 1) {
  Floats copy[Rows * Tokens];
  LOWRANK_UNROLL
  for (int i = 0; i < Rows * Tokens; ++i) copy[i] = sum[i / Tokens][i % Tokens];
  if constexpr (Rows * Tokens > 8)
    store_many_lanes<Rows, Tokens>(p, group, copy, unit);
  else
    store_lanes<Rows, Tokens>(p, group, copy, unit);
}

/// The k-th vector of a chunk of the only token.
template <Layout L>
[[gnu::always_inline]] inline Floats load_token(const FewTokens& p, Index chunk, int k) {
  if constexpr (L != Layout::pairs) return Floats::load(p.x + chunk * 32 + Floats::size * k, Whole{});
  constexpr int half = chunk_vectors / 2;
  return Floats::load((k < half ? p.x : p.x_odd) + chunk * 16 + Floats::size * (k % half), Whole{});
}

/// Four rows of blocks times one token: sums are scaled, which is cheaper than scaling weights; offsets meet the sums of activations.
template <Layout L, Scaling M, class Codes>
void one_token(const FewTokens& p, const Strip& strip, const BlockReader<Codes>& reader, Index group) {
  constexpr int Rows = 4;
  RowGroup<L, M, Rows> rows(reader.rows, p, group);
  Floats sum[Rows][1];
  Offsets rest[Rows] = {};
  clear(sum);
  for (Index begin = strip.begin; begin < strip.end; begin += rows.window()) {
    rows.read_ahead(begin, strip.end);
    const Index end = strip.end - begin < rows.window() ? strip.end : begin + rows.window();
    for (Index c = begin; c < end; ++c) {
      const Index at = rows.place_of(c);
      rows.prefetch(at);
      LOWRANK_UNROLL
      for (int r = 0; r < Rows; ++r) {
        Floats w[chunk_vectors];
        load_chunk<L>(rows.codes[r] + at, c, reader.codes, w);
        const auto pair = load_pair(rows, r, c, at);
        Floats part = w[0] * load_token<L>(p, c, 0);
        LOWRANK_UNROLL
        for (int k = 1; k < chunk_vectors; ++k) part = fma(w[k], load_token<L>(p, c, k), part);
        sum[r][0] = fma(part, scale_of(pair), sum[r][0]);
        if constexpr (few::has_offset(M)) add_offset<M>(pair, p.x_sum[c], rest[r]);  // a split token has no sums
      }
    }
  }
  store_token(p, group, sum, rest);
}

/// Chunk c of each row, scaled.
template <Layout L, Scaling M, class Codes, int Rows>
[[gnu::always_inline]] inline void scaled_chunk(const RowGroup<L, M, Rows>& rows, Index c, const Codes& codes,
                                                Floats (&w)[Rows][chunk_vectors]) {
  const Index at = rows.place_of(c);
  if constexpr (!copies_tokens) rows.prefetch(at);
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) {
    load_chunk<L>(rows.codes[r] + at, c, codes, w[r]);
    const auto pair = load_pair(rows, r, c, at);
    const Floats scale = scale_of(pair);
    LOWRANK_UNROLL
    for (int k = 0; k < chunk_vectors; ++k) w[r][k] = few::has_offset(M) ? fma(w[r][k], scale, offset_of(pair)) : w[r][k] * scale;
  }
}

/// Rows of blocks times several tokens, which share the scaled weights.
template <Layout L, Scaling M, class Codes, int Rows, int Tokens>
void few_rows(const FewTokens& p, const Strip& strip, const BlockReader<Codes>& reader, Index group) {
  RowGroup<L, M, Rows> rows(reader.rows, p, group);
  Floats sum[Rows][Tokens];
  clear(sum);
  const Operand* x = strip.x;
  for (Index begin = strip.begin; begin < strip.end; begin += rows.window()) {
    rows.read_ahead(begin, strip.end);
    const Index end = strip.end - begin < rows.window() ? strip.end : begin + rows.window();
    for (Index c = begin; c < end; ++c, x += chunk_stride<Tokens>) {
      Floats w[Rows][chunk_vectors];
      scaled_chunk(rows, c, reader.codes, w);
      add_products(w, x, token_stride(p), sum);
    }
  }
  store_all(p, group, sum);
}

/// Dense rows over one strip; the last chunk may be short.
template <Layout L, int Rows, int Tokens>
void dense_rows(const FewTokens& p, const Strip& strip, const DenseReader&, Index group) {
  constexpr Index size = few::element_bytes(L);
  const Index length = p.weight->cols(), full = length / 32, pitch = p.weight->stride() * size;
  const auto* data = static_cast<const std::byte*>(p.weight->data()) + p.row * pitch;
  const std::byte* at[Rows];
  LOWRANK_UNROLL
  for (int r = 0; r < Rows; ++r) at[r] = data + (group * Rows + r < p.rows ? group * Rows + r : p.rows - 1) * pitch;
  const Index ahead = (group + 1) * Rows < p.rows ? Rows * pitch : 0;  // rows are short, and prefetching ends with each
  Floats sum[Rows][Tokens], w[Rows][chunk_vectors];
  clear(sum);
  const Operand* x = strip.x;
  for (Index c = strip.begin; c < strip.end && c < full; ++c, x += chunk_stride<Tokens>) {
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) {
      load_dense<L>(at[r] + c * 32 * size, w[r]);
      if constexpr (Tokens == 1) __builtin_prefetch(at[r] + ahead + c * 32 * size);
    }
    add_products(w, x, token_stride(p), sum);
  }
  if (full < strip.end) {
    LOWRANK_UNROLL
    for (int r = 0; r < Rows; ++r) load_part<L>(at[r] + full * 32 * size, length % 32, w[r]);
    add_products(w, x, token_stride(p), sum);
  }
  if constexpr (Tokens == 1)
    store_dense_token(p, group, sum);
  else
    store_all(p, group, sum);
}

/// All rows, Rows side by side. Where several tokens are met strip by strip, a copy of a strip's activations, 16 KiB, stays in the
/// first-level cache from row to row.
template <int Rows, int Tokens, class Reader>
void all_rows(const FewTokens& p, const Reader& reader, void (*few)(const FewTokens&, const Strip&, const Reader&, Index)) {
  const few::SideBySide<Rows> sides(p);
  const Index groups = sides.groups();
  if constexpr (!copies_tokens || Tokens == 1) {
    for (Index group = 0; group < groups; ++group) {
      const FewTokens& tokens = sides.tokens_of(group);
      few(tokens, {0, tokens.chunks, tokens_of(tokens)}, reader, group);
    }
  } else {
    constexpr Index length = 128 / Tokens;
    alignas(32) Operand copy[4096];
    for (Index phase = 0; phase < p.phases; ++phase) {
      FewTokens part = sides.tokens_of(phase);
      Strip strip{0, 0, copy};
      for (; strip.begin < part.chunks; strip.begin = strip.end, part.accumulate = true) {
        strip.end = part.chunks - strip.begin < length ? part.chunks : strip.begin + length;
        for (Index c = 0; c < strip.end - strip.begin; ++c)
          for (Index t = 0; t < Tokens; ++t)
            std::memcpy(copy + (c * Tokens + t) * 32, part.x + (t * part.chunks + strip.begin + c) * 32, 32 * sizeof(Operand));
        for (Index group = phase; group < groups; group += p.phases) few(part, strip, reader, group);
      }
    }
  }
}

template <Layout L, Scaling M, class Codes>
void few_blocks(const FewTokens& p, const Codes& codes) {
  const BlockReader<Codes> reader{few::BlockRows(p), codes};
  if (p.tokens == 1) return all_rows<4, 1>(p, reader, one_token<L, M, Codes>);
  if (p.tokens <= 4) return all_rows<2, 4>(p, reader, few_rows<L, M, Codes, 2, 4>);
  all_rows<wide_rows, 8>(p, reader, few_rows<L, M, Codes, wide_rows, 8>);
}

template <Layout L>
void few_dense(const FewTokens& p) {
  if (p.tokens == 1) return all_rows<4, 1>(p, DenseReader{}, dense_rows<L, 4, 1>);
  if (p.tokens <= 4) return all_rows<2, 4>(p, DenseReader{}, dense_rows<L, 2, 4>);
  all_rows<wide_rows, 8>(p, DenseReader{}, dense_rows<L, wide_rows, 8>);
}
