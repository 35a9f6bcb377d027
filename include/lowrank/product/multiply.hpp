#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include <lowrank/kernels/driver/gemm.hpp>
#include <lowrank/ops/view.hpp>

/// All products of the library with a source: Y = W X, Y = Wᵀ G, and the outer product of a weight's gradient.
///
/// In float they are the packed kernels' products. In double, which checks gradients, a source is decoded a tile at a time and multiplied
/// by Eigen. No dense copy of a source ever exists, and the bits of a result do not depend on the number of threads.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline constexpr Index strip_rows = 32, tile_rows = 64, tile_depth = 1024;

template <class S>
using Strided = Eigen::Map<Activation<S>, 0, Eigen::OuterStride<>>;
template <class S>
using ConstStrided = Eigen::Map<const Activation<S>, 0, Eigen::OuterStride<>>;

/// C += scale · A B on the calling thread, C column-major.
///
/// Eigen starts threads of its own for large products outside a parallel region, and then blocks the sum differently. It does so only for
/// results that may exceed 32 rows, so C is written in strips that say in their type that they do not.
template <class S, class A, class B>
void add_product(Strided<S> c, const A& a, const B& b, S scale = S(1)) {
  using Strip = Eigen::Map<Eigen::Matrix<S, Dynamic, Dynamic, Eigen::ColMajor, strip_rows, Dynamic>, 0, Eigen::OuterStride<>>;
  if (c.size() == 0 || a.cols() == 0) return;
  for (Index i = 0; i < c.rows(); i += strip_rows) {
    const Index n = std::min(strip_rows, c.rows() - i);
    Strip strip(c.data() + i, n, c.cols(), Eigen::OuterStride<>(c.outerStride()));
    strip.noalias() += scale * a.middleRows(i, n) * b;
  }
}

/// C (+)= Aᵀ B, A B, and A Bᵀ of column-major matrices: in float the packed product, in double Eigen's.
template <class S>
void multiply_tn(Strided<S> c, ConstStrided<S> a, ConstStrided<S> b, bool accumulate, Compute compute) {
  if constexpr (std::is_same_v<S, float>) {
    const DenseSource<float> rows(a.data(), a.cols(), a.rows(), a.outerStride());
    kernels::multiply(rows, b.data(), b.outerStride(), b.cols(), c.data(), c.outerStride(), {.compute = compute, .accumulate = accumulate});
  } else {
    if (!accumulate) c.setZero();
    add_product<S>(c, a.transpose(), b);
  }
}
template <class S>
void multiply_nn(Strided<S> c, ConstStrided<S> a, ConstStrided<S> b, bool accumulate, Compute compute) {
  if constexpr (std::is_same_v<S, float>) {
    const DenseSource<float> columns(a.data(), a.cols(), a.rows(), a.outerStride());
    kernels::multiply(transposed(columns), b.data(), b.outerStride(), b.cols(), c.data(), c.outerStride(),
                      {.compute = compute, .accumulate = accumulate});
  } else {
    if (!accumulate) c.setZero();
    add_product<S>(c, a, b);
  }
}
template <class S>
void multiply_nt(Strided<S> c, ConstStrided<S> a, ConstStrided<S> b, bool accumulate, Compute compute) {
  if constexpr (std::is_same_v<S, float>) {
    const DenseSource<float> columns(a.data(), a.cols(), a.rows(), a.outerStride());
    const kernels::Columns turned{b.data(), b.outerStride(), b.cols(), true};
    kernels::multiply(transposed(columns), std::span(&turned, 1), b.rows(), c.data(), c.outerStride(),
                      {.compute = compute, .accumulate = accumulate});
  } else {
    if (!accumulate) c.setZero();
    add_product<S>(c, a, b.transpose());
  }
}

template <class W, class S>
inline constexpr bool is_dense_of = false;
template <class S>
inline constexpr bool is_dense_of<DenseSource<S>, S> = true;

template <class S>
void round_to_bfloat16(S* values, Index n) {
  for (Index i = 0; i < n; ++i) values[i] = static_cast<S>(static_cast<float>(BFloat16(static_cast<float>(values[i]))));
}

/// Reads windows of a source as row-major numbers: a dense source of the same scalar in place, any other decoded into a buffer.
template <class S, Source W>
class TileReader {
 public:
  using Tile = Eigen::Map<const Weight<S>, 0, Eigen::OuterStride<>>;

  TileReader(const W& source, Compute compute) : source_(source), compute_(compute) {}

  /// Rows [row, row + count), columns [col, col + length), valid until the next read.
  Tile read(Index row, Index count, Index col, Index length) {
    if constexpr (is_dense_of<W, S>) {
      if (compute_ == Compute::fp32) {
        return Tile(source_.data() + row * source_.stride() + col, count, length, Eigen::OuterStride<>(source_.stride()));
      }
    }
    if (buffer_.size() < count * length) buffer_.resize(count * length);
    source_.decode(row, count, col, length, buffer_.data(), length);
    if (compute_ == Compute::bf16) round_to_bfloat16(buffer_.data(), count * length);
    return Tile(buffer_.data(), count, length, Eigen::OuterStride<>(length));
  }

 private:
  const W& source_;
  Compute compute_;
  Column<S> buffer_;
};

/// Calls body(tile begin, tile size, first token, tokens) for the pieces of a result [rows, tokens].
///
/// Few rows are cut finely along the tokens, so that a low-rank factor gives work to all threads; for many rows a decoded tile serves more
/// tokens.
template <class Body>
void for_each_piece(Index rows, Index tokens, const Body& body) {
  const Index token_block = rows > 4 * tile_rows ? 256 : 64;
  const Index tiles = ceil_div(rows, tile_rows), blocks = ceil_div(tokens, token_block);
  parallel_for(tiles * blocks, [&](Index piece) {
    const Index row = piece % tiles * tile_rows, token = piece / tiles * token_block;
    body(row, std::min(tile_rows, rows - row), token, std::min(token_block, tokens - token));
  });
}

template <class S>
void check_compute(const char* operation, Compute compute) {
  check<ValueError>(compute != Compute::int8 || std::is_same_v<S, float>, operation,
                    "Compute::int8 is for inference in float only; pass Compute::fp32 or Compute::bf16");
}
inline void check_gradient_compute(const char* operation, Compute compute) {
  check<ValueError>(compute != Compute::int8, operation,
                    "Compute::int8 is for inference: its rounding has no gradient; train with set_compute(Compute::bf16) or fp32");
}

/// Y (+)= source X in float.
template <Source W>
void packed_product(ActivationRef<float> y, const W& source, const ActivationView<float>& x, Compute compute, bool accumulate) {
  kernels::multiply(source, x.data(), x.outerStride(), x.cols(), y.data(), y.outerStride(), {.compute = compute, .accumulate = accumulate});
}

/// Y += scale · W X for X as it is.
template <class S, Source W>
void add_source_product(ActivationRef<S> y, const W& source, const ActivationView<S>& x, S scale, Compute compute) {
  for_each_piece(y.rows(), y.cols(), [&](Index row, Index count, Index token, Index tokens) {
    TileReader<S, W> tiles(source, compute);
    for (Index k = 0; k < x.rows(); k += tile_depth) {
      const Index depth = std::min(tile_depth, x.rows() - k);
      add_product<S>({&y(row, token), count, tokens, Eigen::OuterStride<>(y.outerStride())}, tiles.read(row, count, k, depth),
                     x.block(k, token, depth, tokens), scale);  // [count, depth] · [depth, tokens]
    }
  });
}

/// Y += scale · Wᵀ G for G as it is.
template <class S, Source W>
void add_transposed_product(ActivationRef<S> y, const W& source, const ActivationView<S>& g, S scale, Compute compute) {
  for_each_piece(y.rows(), y.cols(), [&](Index col, Index count, Index token, Index tokens) {
    TileReader<S, W> tiles(source, compute);
    for (Index k = 0; k < g.rows(); k += tile_depth) {
      const Index depth = std::min(tile_depth, g.rows() - k);
      add_product<S>({&y(col, token), count, tokens, Eigen::OuterStride<>(y.outerStride())}, tiles.read(k, depth, col, count).transpose(),
                     g.block(k, token, depth, tokens), scale);  // [count, depth] · [depth, tokens]
    }
  });
}

template <class S>
Activation<S> rounded(const ActivationView<S>& x) {
  Activation<S> copy = x;
  round_to_bfloat16(copy.data(), copy.size());
  return copy;
}

}  // namespace detail

/// Y += scale · W X. W [out, in] any source, X [in, T], Y [out, T].
///
/// Cost: 2 out in T FLOPs; W is decoded once every 256 tokens. Throws ShapeError, ValueError for Compute::int8 in double.
template <Source W, MatrixLike Y, class S = ScalarOf<Y>>
void accumulate_product(Y& y, const W& source, const ActivationView<S>& x, std::type_identity_t<S> scale = S(1),
                        Compute compute = Compute::fp32) {
  check<ShapeError>(source.cols() == x.rows() && y.rows() == source.rows() && y.cols() == x.cols(), "multiply", "source is [",
                    source.rows(), ", ", source.cols(), "], x is [", x.rows(), ", ", x.cols(), "], y is [", y.rows(), ", ", y.cols(),
                    "]; source is [out, in], x must be [in, tokens] and y [out, tokens]");
  detail::check_compute<S>("multiply", compute);
  if (y.size() == 0) return;
  if constexpr (std::is_same_v<S, float>) {
    detail::packed_product(y, scaled(source, static_cast<double>(scale)), x, compute, true);
  } else {
    if (compute == Compute::bf16) return detail::add_source_product<S>(y, source, detail::rounded<S>(x), scale, compute);
    detail::add_source_product<S>(y, source, x, scale, compute);
  }
}

/// Y += scale · Wᵀ G. W [out, in] any source, G [out, T], Y [in, T].
///
/// Cost: 2 out in T FLOPs; W is decoded once every 256 tokens. Throws ShapeError, ValueError for Compute::int8.
template <Source W, MatrixLike Y, class S = ScalarOf<Y>>
void accumulate_transposed_product(Y& y, const W& source, const ActivationView<S>& g, std::type_identity_t<S> scale = S(1),
                                   Compute compute = Compute::fp32) {
  check<ShapeError>(source.rows() == g.rows() && y.rows() == source.cols() && y.cols() == g.cols(), "multiply_transposed", "source is [",
                    source.rows(), ", ", source.cols(), "], g is [", g.rows(), ", ", g.cols(), "], y is [", y.rows(), ", ", y.cols(),
                    "]; source is [out, in], g must be [out, tokens] and y [in, tokens]");
  detail::check_gradient_compute("multiply_transposed", compute);
  if (y.size() == 0) return;
  if constexpr (std::is_same_v<S, float>) {
    detail::packed_product(y, scaled(transposed(source), static_cast<double>(scale)), g, compute, true);
  } else {
    if (compute == Compute::bf16) return detail::add_transposed_product<S>(y, source, detail::rounded<S>(g), scale, compute);
    detail::add_transposed_product<S>(y, source, g, scale, compute);
  }
}

/// W X. W [out, in] any source, X [in, T]; gives [out, T].
template <Source W, MatrixLike X, class S = ScalarOf<X>>
Activation<S> multiply(const W& source, const X& x, Compute compute = Compute::fp32) {
  if constexpr (std::is_same_v<S, float>) {
    check<ShapeError>(source.cols() == x.rows(), "multiply", "source is [", source.rows(), ", ", source.cols(), "], x is [", x.rows(), ", ",
                      x.cols(), "]; source is [out, in], x must be [in, tokens]");
    Activation<S> y(source.rows(), x.cols());
    detail::packed_product(y, source, x, compute, false);
    return y;
  } else {
    Activation<S> y = Activation<S>::Zero(source.rows(), x.cols());
    accumulate_product(y, source, x, S(1), compute);
    return y;
  }
}

/// Wᵀ G. W [out, in] any source, G [out, T]; gives [in, T].
template <Source W, MatrixLike X, class S = ScalarOf<X>>
Activation<S> multiply_transposed(const W& source, const X& g, Compute compute = Compute::fp32) {
  if constexpr (std::is_same_v<S, float>) {
    check<ShapeError>(source.rows() == g.rows(), "multiply_transposed", "source is [", source.rows(), ", ", source.cols(), "], g is [",
                      g.rows(), ", ", g.cols(), "]; source is [out, in], g must be [out, tokens]");
    detail::check_gradient_compute("multiply_transposed", compute);
    Activation<S> y(source.cols(), g.cols());
    detail::packed_product(y, transposed(source), g, compute, false);
    return y;
  } else {
    Activation<S> y = Activation<S>::Zero(source.cols(), g.cols());
    accumulate_transposed_product(y, source, g, S(1), compute);
    return y;
  }
}

/// S X + R H in one pass: the product of [S | R] with [X ; H]. S [out, in], X [in, T], R [out, r], H [r, T]; gives [out, T].
///
/// With S = W, R = s B, H = A X it is a low-rank layer; with S = Wᵀ, R = Aᵀ the gradient of its input. Throws ShapeError.
template <Source Left, MatrixLike X, Source Right, class S = ScalarOf<X>>
Activation<S> multiply_sum(const Left& left, const X& x, const Right& right, const ActivationView<S>& h, Compute compute = Compute::fp32) {
  check<ShapeError>(left.rows() == right.rows() && left.cols() == x.rows() && right.cols() == h.rows() && x.cols() == h.cols(),
                    "multiply_sum", "the sources are [", left.rows(), ", ", left.cols(), "] and [", right.rows(), ", ", right.cols(),
                    "], x is [", x.rows(), ", ", x.cols(), "], h is [", h.rows(), ", ", h.cols(),
                    "]; sources must be [out, in] and [out, rank], x [in, tokens], h [rank, tokens]");
  if constexpr (std::is_same_v<S, float>) {
    const ActivationView<float>& first = x;
    const kernels::Columns parts[] = {{first.data(), first.outerStride(), first.rows()}, {h.data(), h.outerStride(), h.rows()}};
    Activation<float> y(left.rows(), x.cols());
    kernels::multiply(concat_depth(left, right), parts, x.cols(), y.data(), y.outerStride(), {.compute = compute});
    return y;
  } else {
    Activation<S> y = multiply(left, x, compute);
    accumulate_product(y, right, h, S(1), compute);
    return y;
  }
}

/// dW += scale · G Xᵀ: the gradient of a weight [out, in] from G [out, T] and X [in, T]. Throws ShapeError.
template <MatrixLike G, class S = ScalarOf<G>>
void accumulate_outer(WeightRef<S> dw, const G& gradient, const ActivationView<S>& x, std::type_identity_t<S> scale = S(1),
                      Compute compute = Compute::fp32) {
  const ActivationView<S> g(gradient);
  check<ShapeError>(dw.rows() == g.rows() && dw.cols() == x.rows() && g.cols() == x.cols(), "accumulate_outer", "dw is [", dw.rows(), ", ",
                    dw.cols(), "], g is [", g.rows(), ", ", g.cols(), "], x is [", x.rows(), ", ", x.cols(),
                    "]; dw must be [out, in], g [out, tokens] and x [in, tokens]");
  if constexpr (std::is_same_v<S, float>) {
    // dW is row-major, so its memory is dWᵀ column-major, and dWᵀ += X Gᵀ: the source X is the transpose of its bytes [T, in].
    const DenseSource<float> tokens(x.data(), x.cols(), x.rows(), x.outerStride());
    const kernels::Columns turned{g.data(), g.outerStride(), g.cols(), true};
    kernels::multiply(scaled(transposed(tokens), static_cast<double>(scale)), std::span(&turned, 1), dw.rows(), dw.data(), dw.outerStride(),
                      {.compute = compute, .accumulate = true});
  } else {
    const Index tile = 2 * detail::tile_rows;
    const Index row_tiles = ceil_div(dw.rows(), tile), col_tiles = ceil_div(dw.cols(), tile);
    parallel_for(row_tiles * col_tiles, [&](Index piece) {
      const Index row = piece / col_tiles * tile, col = piece % col_tiles * tile;
      const Index rows = std::min(tile, dw.rows() - row), cols = std::min(tile, dw.cols() - col);
      detail::add_product<S>({&dw(row, col), cols, rows, Eigen::OuterStride<>(dw.outerStride())}, x.middleRows(col, cols),
                             g.middleRows(row, rows).transpose(), scale);  // [cols, T] · [T, rows]
    });
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
