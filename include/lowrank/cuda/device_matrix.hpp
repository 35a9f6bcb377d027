#pragma once

/// A packed matrix in device memory. For nvcc.

#include <lowrank/cuda/packed.hpp>
#include <lowrank/cuda/runtime.hpp>

#if defined(__CUDACC__)

namespace lowrank::inline LOWRANK_ABI::cuda {

/// A frozen matrix in device memory, in the bits it had (cuda/packed.hpp).
class DeviceMatrix {
 public:
  DeviceMatrix() = default;
  DeviceMatrix(const PackedMatrix& packed, const Stream& stream)
      : codes_(packed.codes, stream),
        scales_(packed.scales, stream),
        offsets_(packed.offsets, stream),
        scale_map_(packed.scale_map, stream),
        half_scales_(packed.half_scales, stream),
        half_offsets_(packed.half_offsets, stream),
        scale_codes_(packed.scale_codes, stream),
        view_(packed.facts) {
    stream.synchronize();  // the host's arrays may go now
    view_.codes = codes_.data();
    view_.scales = scales_.data();
    view_.offsets = offsets_.data();
    view_.scale_map = scale_map_.data();
    view_.half_scales = half_scales_.data();
    view_.half_offsets = half_offsets_.data();
    view_.scale_codes = scale_codes_.data();
  }

  int rows() const { return view_.rows; }
  int cols() const { return view_.cols; }
  const PackedView& view() const { return view_; }

 private:
  DeviceArray<Word4> codes_;
  DeviceArray<float> scales_, offsets_, scale_map_;
  DeviceArray<std::uint16_t> half_scales_, half_offsets_;
  DeviceArray<std::uint8_t> scale_codes_;
  PackedView view_;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
