#pragma once

/// A composed source, taken apart: rectangles of one stored matrix each. The driver is thus no template, and is compiled once.

#include <cstddef>
#include <new>

#include <lowrank/kernels/format/weight_view.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// A weight and its place in the product's left factor: rows [row, row + rows), depth [depth, depth + length), times `scale`.
///
/// Element (i, k) there is element (i, k) of the weight, or (k, i) when `transposed`.
struct Piece {
  Index row, depth, rows, length;
  float scale;
  bool transposed;
  WeightView weight;
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
  const Piece* begin() const { return std::launder(reinterpret_cast<const Piece*>(memory_)); }
  const Piece* end() const { return begin() + count_; }
  Index size() const { return count_; }

 private:
  /// Where a source's element (0, 0) lies in the product, and how it is transposed and scaled.
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
  template <Source S>
  void place(const S& s, Frame frame) {
    if constexpr (requires {
                    { s.source() } -> Source;
                  })
      place(s.source(), frame);  // points into s, which outlives the call
    else
      append(WeightView(s), frame);
  }

  void append(const WeightView& weight, Frame frame) {
    check<ShapeError>(count_ < capacity, "multiply", "the source has more than ", capacity, " parts; multiply some of them apart");
    const Index rows = frame.transposed ? weight.cols() : weight.rows(), length = frame.transposed ? weight.rows() : weight.cols();
    new (memory_ + static_cast<std::size_t>(count_++) * sizeof(Piece))
        Piece{frame.row, frame.depth, rows, length, frame.scale, frame.transposed, weight};
  }

  alignas(Piece) std::byte memory_[capacity * sizeof(Piece)];  // as it is until pieces are placed
  Index count_ = 0;
  Index rows_, depth_;
};

static_assert(std::is_trivially_copyable_v<Piece>);

}  // namespace lowrank::inline LOWRANK_ABI::kernels
