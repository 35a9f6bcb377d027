#pragma once

/// Activations and factors rounded to bfloat16, and products of them: what a layer on a GPU is made of.

#include <lowrank/cuda/array.hpp>
#include <lowrank/cuda/launch.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Rows of bfloat16 in a machine's memory: an Operand, an UpdateFactor, or the base of a product.
class Rounded {
 public:
  Rounded() = default;
  /// factor · x, `count` rows of `cols` numbers, with room for `room` more behind each.
  Rounded(Machine& machine, const float* x, Index count, Index cols, float factor = 1, Index room = 0);
  explicit Rounded(const DeviceActivation& x, Index room = 0) : Rounded(x.machine(), x.data(), x.cols(), x.rows(), 1, room) {}
  /// x in the rows of `front`, so many numbers into its room.
  Rounded(const Rounded& front, Index at, const DeviceActivation& x);

  /// Room that so many numbers take.
  static Index room_of(Index cols) { return round_up(cols, chunk_size); }

  Operand operand() const { return {data_, stride_, cols_}; }
  /// As a weight in chunks.
  ChunkedView view() const;
  /// The low-rank columns of a product: rows of s B, or of A for a transposed one.
  UpdateFactor update(bool is_transposed) const { return {data_, stride_, is_transposed ? count_ : cols_, is_transposed ? cols_ : count_}; }

 private:
  Memory memory_;
  BFloat16* data_ = nullptr;
  Index stride_ = 0;
  int count_ = 0, cols_ = 0;
};

/// y = W X, or transposed, plus the low-rank columns factor · h, if given; not yet launched.
Product product_of(const ChunkedView& w, bool transposed, const Rounded& x, Index tokens, float* y, const Rounded* factor = nullptr,
                   const Rounded* h = nullptr);
/// The same with a bias, if given, stored in y or added to it.
void product_into(Machine& machine, const ChunkedView& w, bool transposed, const Rounded& x, Index tokens, float* y,
                  const Rounded* factor = nullptr, const Rounded* h = nullptr, const float* bias = nullptr, bool accumulate = false);
/// The same as an array.
DeviceActivation product(Machine& machine, const ChunkedView& w, bool transposed, const Rounded& x, Index tokens,
                         const Rounded* factor = nullptr, const Rounded* h = nullptr, const float* bias = nullptr);

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/rounded.inl>
#endif
