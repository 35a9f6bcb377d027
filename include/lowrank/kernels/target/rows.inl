// Rows of float or bfloat16 times a few columns: the loops RowLoops of elementwise.hpp, in terms of the including target's Floats. No
// include guard: each target includes it once, inside its namespace and region.
//
// A row is read once for up to `side` columns. A number is one chain of multiply-adds, whatever is computed beside it.

/// Columns side by side: four rows of each, and what they are multiplied with, fit the registers.
inline constexpr Index side = Floats::size == 8 ? 3 : 4;

/// One step of four rows, or one, times columns: the vectors at a place along them.
template <Index Rows, Index Columns, class Element, class Part>
inline void add_products(const Element* rows, Index stride, const float* x, Index x_stride, Part part, Floats (&sum)[Columns][Rows]) {
  Floats column[Columns];
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) column[c] = Floats::load(x + c * x_stride, part);
  LOWRANK_UNROLL
  for (Index r = 0; r < Rows; ++r) {
    const Floats row = Floats::load(rows + r * stride, part);
    LOWRANK_UNROLL
    for (Index c = 0; c < Columns; ++c) sum[c][r] = fma(row, column[c], sum[c][r]);
  }
}
/// The sums over the lanes of four rows are taken together.
template <Index Rows, Index Columns, class Element>
inline void dots_of_rows(const Element* rows, Index stride, const float* x, Index n, float* out, Index out_stride) {
  Floats sum[Columns][Rows];
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    LOWRANK_UNROLL
    for (Index r = 0; r < Rows; ++r) sum[c][r] = Floats::all(0.0f);
  }
  Index i = 0;
  for (; i + Floats::size <= n; i += Floats::size) add_products(rows + i, stride, x + i, n, Whole{}, sum);
  if (i < n) add_products(rows + i, stride, x + i, n, First{n - i}, sum);
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    if constexpr (Rows == 4)
      store_sums(sum[c], out + c * out_stride);
    else
      store_sums(sum[c][0], out + c * out_stride);
  }
}
template <Index Columns, class Element>
void dots_beside(const Element* rows, Index stride, Index count, const float* x, Index n, float* out, Index out_stride) {
  Index j = 0;
  for (; j + 4 <= count; j += 4) dots_of_rows<4, Columns>(rows + j * stride, stride, x, n, out + j, out_stride);
  for (; j < count; ++j) dots_of_rows<1, Columns>(rows + j * stride, stride, x, n, out + j, out_stride);
}
template <class Element>
void dots_of_columns(const Element* rows, Index stride, Index count, const float* x, Index columns, Index n, float* out, Index out_stride) {
  for (Index turns = ceil_div(columns, side); turns > 0; --turns) {
    const Index width = ceil_div(columns, turns);
    const auto run = width == 1   ? dots_beside<1, Element>
                     : width == 2 ? dots_beside<2, Element>
                     : width == 3 ? dots_beside<3, Element>
                                  : dots_beside<side, Element>;
    run(rows, stride, count, x, n, out, out_stride);
    columns -= width, x += width * n, out += width * out_stride;
  }
}

/// Vectors side by side hide each other's latency.
template <Index Vectors, Index Columns, class Element, class Part>
void add_weighted_vectors(const Element* rows, Index stride, Index count, const float* weights, Index weight_stride, float* y,
                          Index y_stride, Part part) {
  Floats sum[Columns][Vectors];
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) sum[c][v] = Floats::load(y + c * y_stride + v * Floats::size, part);
  }
  for (Index j = 0; j < count; ++j, rows += stride) {
    Floats weight[Columns];
    LOWRANK_UNROLL
    for (Index c = 0; c < Columns; ++c) weight[c] = Floats::all(weights[c * weight_stride + j]);
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) {
      const Floats row = Floats::load(rows + v * Floats::size, part);
      LOWRANK_UNROLL
      for (Index c = 0; c < Columns; ++c) sum[c][v] = fma(row, weight[c], sum[c][v]);
    }
  }
  LOWRANK_UNROLL
  for (Index c = 0; c < Columns; ++c) {
    LOWRANK_UNROLL
    for (Index v = 0; v < Vectors; ++v) sum[c][v].store(y + c * y_stride + v * Floats::size, part);
  }
}
template <Index Columns, class Element>
void add_weighted_beside(const Element* rows, Index stride, Index count, const float* weights, Index weight_stride, Index n, float* y,
                         Index y_stride) {
  constexpr Index vectors = Floats::size == 8 && Columns > 1 ? 2 : 4, many = vectors * Floats::size;
  Index i = 0;
  for (; i + many <= n; i += many)
    add_weighted_vectors<vectors, Columns>(rows + i, stride, count, weights, weight_stride, y + i, y_stride, Whole{});
  for (; i + Floats::size <= n; i += Floats::size)
    add_weighted_vectors<1, Columns>(rows + i, stride, count, weights, weight_stride, y + i, y_stride, Whole{});
  if (i < n) add_weighted_vectors<1, Columns>(rows + i, stride, count, weights, weight_stride, y + i, y_stride, First{n - i});
}
template <class Element>
void add_weighted_rows_to_columns(const Element* rows, Index stride, Index count, const float* weights, Index weight_stride, Index columns,
                                  Index n, float* y) {
  for (Index turns = ceil_div(columns, side); turns > 0; --turns) {
    const Index width = ceil_div(columns, turns);
    const auto run = width == 1   ? add_weighted_beside<1, Element>
                     : width == 2 ? add_weighted_beside<2, Element>
                     : width == 3 ? add_weighted_beside<3, Element>
                                  : add_weighted_beside<side, Element>;
    run(rows, stride, count, weights, weight_stride, n, y, n);
    columns -= width, weights += width * weight_stride, y += width * n;
  }
}
