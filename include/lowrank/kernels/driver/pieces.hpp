#pragma once

/// A composed source, taken apart: rectangles of one stored matrix each. The driver is thus no template, and is compiled once.

#include <array>
#include <concepts>
#include <type_traits>

#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/kernels/format/weight_view.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// A rectangle of the product's left factor: rows [row, row + rows), depth [depth, depth + length), times `scale`.
///
/// Element (i, k) of it is element (i, k) of the stored matrix, or (k, i) when `transposed`.
struct Piece {
  enum class Kind : unsigned char { fp32, bf16, half, blocks, other };
  using Decode = void (*)(const void* source, Index row, Index count, Index col, Index length, float* out, Index stride);

  Index row, depth, rows, length;
  float scale;
  bool transposed;
  Kind kind;
  const void* data;  ///< element (0, 0) of a dense matrix; the source itself for `other`
  Index stride;      ///< of a dense matrix's rows, in elements
  BlockSource blocks;
  Decode decode;
};

/// The rectangles of a source, of which none overlap; what they leave out is zero.
class Pieces {
 public:
  static constexpr Index capacity = 16;

  template <Source S>
  explicit Pieces(const S& source) : rows_(source.rows()), depth_(source.cols()) {
    place(source, Frame{0, 0, false, 1.0f});
  }

  /// A factor of zeros [rows, depth], for add().
  Pieces(Index rows, Index depth) : rows_(rows), depth_(depth) {}
  /// Puts factor · source where its element (0, 0) lies at (row, depth). Parts must not overlap. The source must outlive this.
  template <Source S>
  void add(const S& source, Index row, Index depth, float factor = 1) {
    place(source, Frame{row, depth, false, factor});
  }
  /// The same for sourceᵀ. add(transposed(source)) would see a temporary copy of the source.
  template <Source S>
  void add_transposed(const S& source, Index row, Index depth, float factor = 1) {
    place(source, Frame{row, depth, true, factor});
  }

  Index rows() const { return rows_; }
  Index depth() const { return depth_; }
  const Piece* begin() const { return pieces_.data(); }
  const Piece* end() const { return pieces_.data() + count_; }
  Index size() const { return count_; }

 private:
  /// Where a source's element (0, 0) lies in the product, and how it is turned and scaled.
  struct Frame {
    Index row, depth;
    bool transposed;
    float scale;

    /// The frame of a part that lies `rows` further down and `cols` further right within the same source.
    Frame shifted(Index rows, Index cols) const {
      return transposed ? Frame{row + cols, depth + rows, true, scale} : Frame{row + rows, depth + cols, false, scale};
    }
  };

  template <Source S>
  void place(const Transposed<S>& s, Frame frame) {
    frame.transposed = !frame.transposed;
    place(s.source, frame);
  }
  template <Source S>
  void place(const Scaled<S>& s, Frame frame) {
    frame.scale *= static_cast<float>(s.factor);
    place(s.source, frame);
  }
  template <Source Left, Source Right>
  void place(const ConcatDepth<Left, Right>& s, Frame frame) {
    place(s.left, frame);
    place(s.right, frame.shifted(0, s.left.cols()));
  }
  template <Source Top, Source Bottom>
  void place(const ConcatRows<Top, Bottom>& s, Frame frame) {
    place(s.top, frame);
    place(s.bottom, frame.shifted(s.top.rows(), 0));
  }
  void place(const DenseSource<float>& s, Frame frame) { place_dense(s, frame, Piece::Kind::fp32); }
  void place(const DenseSource<bfloat16>& s, Frame frame) { place_dense(s, frame, Piece::Kind::bf16); }
  void place(const DenseSource<half>& s, Frame frame) { place_dense(s, frame, Piece::Kind::half); }
  void place(const WeightView& s, Frame frame) {
    switch (s.kind()) {
      case WeightView::Kind::fp32:
        return place(s.dense<float>(), frame);
      case WeightView::Kind::bf16:
        return place(s.dense<bfloat16>(), frame);
      case WeightView::Kind::half:
        return place(s.dense<half>(), frame);
      case WeightView::Kind::blocks:
        return place(s.blocks(), frame);
      case WeightView::Kind::fp64:
        return place_other(s, frame);
      case WeightView::Kind::other: {
        Piece& piece = append(s.rows(), s.cols(), frame);
        piece.kind = Piece::Kind::other;
        piece.data = s.data();
        piece.decode = s.decoder();
      }
    }
  }
  void place(const BlockSource& s, Frame frame) {
    Piece& piece = append(s.rows(), s.cols(), frame);
    piece.kind = Piece::Kind::blocks;
    piece.blocks = s;
  }
  template <Source S>
  void place(const S& s, Frame frame) {
    if constexpr (requires {
                    { s.source() } -> Source;
                  }) {
      place(s.source(), frame);  // points into s, which outlives the call
    } else if constexpr (requires { s.view(); }) {
      place(s.view(), frame);
    } else {
      place_other(s, frame);
    }
  }
  template <Source S>
  void place_other(const S& s, Frame frame) {
    Piece& piece = append(s.rows(), s.cols(), frame);
    piece.kind = Piece::Kind::other;
    piece.data = &s;
    piece.decode = [](const void* source, Index row, Index count, Index col, Index length, float* out, Index stride) {
      static_cast<const S*>(source)->decode(row, count, col, length, out, stride);
    };
  }

  template <class Element>
  void place_dense(const DenseSource<Element>& s, Frame frame, Piece::Kind kind) {
    Piece& piece = append(s.rows(), s.cols(), frame);
    piece.kind = kind;
    piece.data = s.data();
    piece.stride = s.stride();
  }

  Piece& append(Index rows, Index cols, Frame frame) {
    check<ShapeError>(count_ < capacity, "multiply", "the source has more than ", capacity, " parts; multiply some of them apart");
    Piece& piece = pieces_[static_cast<std::size_t>(count_++)];
    piece.row = frame.row;
    piece.depth = frame.depth;
    piece.rows = frame.transposed ? cols : rows;
    piece.length = frame.transposed ? rows : cols;
    piece.scale = frame.scale;
    piece.transposed = frame.transposed;
    return piece;
  }

  std::array<Piece, capacity> pieces_;  // left as they are until they are used
  Index count_ = 0;
  Index rows_, depth_;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
