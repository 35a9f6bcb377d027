// The micro-kernel of target.hpp, in terms of the including target's Floats, lanes, vectors, columns, tile_columns (how many tokens tiles
// have, ascending to `columns`) and add_word(a, b, sum), which adds the products of one word.

template <int Vectors, int Columns>
void multiply_tile(Index words, Index rows, Index column_count, const Word* a, const Word* b, const float* from, Index from_stride,
                   float* c, Index ldc) {
  const First last{rows - (Vectors - 1) * lanes};  // of the last vector
  Floats sum[Columns][Vectors];
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      sum[j][v] = Floats::all(0.0f);
      if (from == nullptr || j >= column_count) continue;
      const float* begin = from + j * from_stride + v * lanes;
      sum[j][v] = v < Vectors - 1 ? Floats::load(begin, Whole{}) : Floats::load(begin, last);
    }
  }
  for (Index k = 0; k < words; ++k, a += Vectors * lanes, b += columns) add_word(a, b, sum);
  __asm__("" : "+r"(c), "+r"(ldc));  // so that no address of the result is computed before the loop and kept
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j, c += ldc) {
    if (j >= column_count) break;
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) v < Vectors - 1 ? sum[j][v].store(c + v * lanes, Whole{}) : sum[j][v].store(c + v * lanes, last);
  }
}

template <int Vectors>
void multiply_columns(Index words, Index rows, Index column_count, const Word* a, const Word* b, const float* from, Index from_stride,
                      float* c, Index ldc) {
  if (column_count <= tile_columns[0])
    return multiply_tile<Vectors, tile_columns[0]>(words, rows, column_count, a, b, from, from_stride, c, ldc);
  if (column_count <= tile_columns[1])
    return multiply_tile<Vectors, tile_columns[1]>(words, rows, column_count, a, b, from, from_stride, c, ldc);
  multiply_tile<Vectors, tile_columns[2]>(words, rows, column_count, a, b, from, from_stride, c, ldc);
}

inline void multiply(Index words, Index vector_count, Index rows, Index column_count, const Word* a, const Word* b, const float* from,
                     Index from_stride, float* c, Index ldc) {
  if (vector_count == 1) return multiply_columns<1>(words, rows, column_count, a, b, from, from_stride, c, ldc);
  if (vector_count == 2) return multiply_columns<2>(words, rows, column_count, a, b, from, from_stride, c, ldc);
  multiply_columns<vectors>(words, rows, column_count, a, b, from, from_stride, c, ldc);
}
