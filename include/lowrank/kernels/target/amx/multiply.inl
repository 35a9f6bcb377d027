// The micro-kernel on tiles: up to 32 tokens times 32 rows in tiles 0 … 3; tiles 4 and 5 hold tokens, 6 and 7 rows.
//
//               rows: 6   7         A result is tokens × rows, so that its rows of 64 bytes lie in columns of Y.
//   tokens  4        0   1
//           5        2   3

/// tiles 0 … 3 = from, or 0.
template <class Tiles, int Halves, int Vectors>
[[gnu::always_inline]] inline void load_sums(const float* from, Index stride) {
  if (from == nullptr) {
    Tiles::template zero<0>();
    if constexpr (Vectors == 2) Tiles::template zero<1>();
    if constexpr (Halves == 2) Tiles::template zero<2>();
    if constexpr (Halves == 2 && Vectors == 2) Tiles::template zero<3>();
    return;
  }
  const Index bytes = stride * 4;
  Tiles::template load<0>(from, bytes);
  if constexpr (Vectors == 2) Tiles::template load<1>(from + 16, bytes);
  if constexpr (Halves == 2) Tiles::template load<2>(from + 16 * stride, bytes);
  if constexpr (Halves == 2 && Vectors == 2) Tiles::template load<3>(from + 16 * stride + 16, bytes);
}

template <class Tiles, int Halves, int Vectors>
[[gnu::always_inline]] inline void store_sums(float* to, Index stride) {
  const Index bytes = stride * 4;
  Tiles::template store<0>(to, bytes);
  if constexpr (Vectors == 2) Tiles::template store<1>(to + 16, bytes);
  if constexpr (Halves == 2) Tiles::template store<2>(to + 16 * stride, bytes);
  if constexpr (Halves == 2 && Vectors == 2) Tiles::template store<3>(to + 16 * stride + 16, bytes);
}

/// Whole tiles: 16 Halves tokens times 16 Vectors rows. The rows come from the second-level cache, two steps ahead.
template <class Tiles, int Halves, int Vectors>
void multiply_tiles(Index words, const Word* a, const Word* b, const float* from, Index from_stride, float* c, Index ldc) {
  constexpr Index row_words = Vectors * lanes, step = 16 * row_words;
  load_sums<Tiles, Halves, Vectors>(from, from_stride);
  for (Index k = 0; k < words; k += 16, a += step, b += 2 * tile_words) {
    Tiles::template load<4>(b, 64);
    Tiles::template load<6>(a, row_words * 4);
    if constexpr (Vectors == 2) Tiles::template load<7>(a + lanes, row_words * 4);
    if constexpr (Halves == 2) Tiles::template load<5>(b + tile_words, 64);
    LOWRANK_UNROLL
    for (Index line = 0; line < step; line += 16) _mm_prefetch(reinterpret_cast<const char*>(a + 2 * step + line), _MM_HINT_T0);
    Tiles::template add_bfloat16<0, 4, 6>();
    if constexpr (Vectors == 2) Tiles::template add_bfloat16<1, 4, 7>();
    if constexpr (Halves == 2) Tiles::template add_bfloat16<2, 5, 6>();
    if constexpr (Halves == 2 && Vectors == 2) Tiles::template add_bfloat16<3, 5, 7>();
  }
  store_sums<Tiles, Halves, Vectors>(c, ldc);
}

/// column_count columns of `rows` numbers each.
inline void copy_window(const float* from, Index from_stride, Index rows, Index column_count, float* to, Index stride) {
  for (Index j = 0; j < column_count; ++j, from += from_stride, to += stride)
    for (Index i = 0; i < rows; i += lanes) {
      const __mmask16 mask = first_lanes(rows - i < lanes ? rows - i : lanes);
      _mm512_mask_storeu_ps(to + i, mask, _mm512_maskz_loadu_ps(mask, from + i));
    }
}

/// A window that is smaller than its tiles passes through memory that is not.
template <class Tiles, int Halves, int Vectors>
void multiply_window(Index words, Index rows, Index column_count, const Word* a, const Word* b, const float* from, Index from_stride,
                     float* c, Index ldc) {
  constexpr Index height = Vectors * lanes;
  if (rows == height && column_count == Halves * 16) return multiply_tiles<Tiles, Halves, Vectors>(words, a, b, from, from_stride, c, ldc);
  alignas(64) float whole[Halves * 16 * height] = {};
  if (from != nullptr) copy_window(from, from_stride, rows, column_count, whole, height);
  multiply_tiles<Tiles, Halves, Vectors>(words, a, b, whole, height, whole, height);
  copy_window(whole, height, rows, column_count, c, ldc);
}

/// c = from + a · b; see PanelKernels::Multiply.
template <class Tiles>
void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, const float* from,
              Index from_stride, float* c, Index ldc) {
  const bool one_half = column_count <= 16;
  if (vector_count == 1)
    one_half ? multiply_window<Tiles, 1, 1>(words, rows, column_count, a, b, from, from_stride, c, ldc)
             : multiply_window<Tiles, 2, 1>(words, rows, column_count, a, b, from, from_stride, c, ldc);
  else
    one_half ? multiply_window<Tiles, 1, 2>(words, rows, column_count, a, b, from, from_stride, c, ldc)
             : multiply_window<Tiles, 2, 2>(words, rows, column_count, a, b, from, from_stride, c, ldc);
}

inline constexpr TileConfiguration all_tiles;

template <class Tiles>
void enter() {
  Tiles::configure(all_tiles);
}
template <class Tiles>
void leave() {
  Tiles::release();
}
