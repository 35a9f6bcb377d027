#pragma once

/// A frozen matrix as the kernels of a GPU read it (cuda/kernels/chunks.hpp): made on the host, kept on a machine.

#include <cstdint>
#include <vector>

#include <lowrank/cuda/kernels/chunks.hpp>
#include <lowrank/cuda/machine.hpp>
#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/nn/any_linear.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Codes and scales in chunks, in host memory: what is copied to the device, array by array.
struct ChunkedMatrix {
  std::vector<Word4> codes;
  std::vector<float> scales, offsets, scale_map;
  std::vector<std::uint16_t> half_scales, half_offsets;
  std::vector<std::uint8_t> scale_codes;
  ChunkedView facts;  ///< without pointers

  /// The view of these very arrays.
  ChunkedView view() const;
  std::size_t bytes() const;
};

/// Numbers [rows, cols] of any weight as bfloat16, what tensor cores multiply; rows are padded with zeros to whole chunks. Throws
/// ShapeError for a matrix that a device does not hold.
ChunkedMatrix to_bfloat16_chunks(const WeightView& weight);

/// Codes and scales of a 4- or 8-bit matrix, with every number unchanged; other weights as bfloat16. So are those whose rows do not hold
/// whole chunks of 32 (bitsandbytes' blocks of a matrix with such columns): the products would round them to it anyway. Throws ShapeError.
ChunkedMatrix to_chunks(const WeightView& weight);

/// A chunked matrix in a machine's memory.
class DeviceWeight : public DeviceCopy {
 public:
  DeviceWeight(Machine& machine, const ChunkedMatrix& matrix);

  const ChunkedView& view() const { return view_; }

 private:
  std::vector<Memory> pieces_;
  ChunkedView view_;
};

/// The layer's weight on the machine in use, put there when it is asked for the first time.
const ChunkedView& on_device(const AnyLinear& layer);

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/weight.inl>
#endif
