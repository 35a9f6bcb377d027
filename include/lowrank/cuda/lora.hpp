#pragma once

/// Owners of device memory: a packed matrix, and a low-rank layer on it. For nvcc.

#include <lowrank/cuda/linear.hpp>
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

/// A low-rank layer Y = W X + s B (A X) in device memory: parameters, gradients, and what a pass of up to `tokens` tokens keeps.
///
///   DeviceLora layer(cuda::pack(q.source()), a, b, scale, tokens, launch);
///   layer.forward(launch, x, tokens, y);  layer.backward(launch, g, tokens, dx);  // adds into da(), db()
///
/// A [rank, in], B [out, rank] in host memory. Throws ShapeError, CudaError.
class DeviceLora {
 public:
  DeviceLora(const PackedMatrix& base, std::span<const float> a, std::span<const float> b, float scale, int tokens, Launcher& launch)
      : tokens_(tokens), base_(base, launch.stream()), a_(a, launch.stream()), b_(b, launch.stream()), da_(a.size()), db_(b.size()) {
    const int in = base_.cols(), out = base_.rows(), rank = in > 0 ? static_cast<int>(a.size()) / in : 0;
    check<ShapeError>(
        rank > 0 && a.size() == static_cast<std::size_t>(rank) * in && b.size() == static_cast<std::size_t>(rank) * out && tokens > 0,
        "device_lora", "A has ", a.size(), " numbers, B ", b.size(), ", the base is [", out, ", ", in, "], for ", tokens,
        " tokens; A must be [rank, in], B [out, rank], and tokens positive");
    const Index room = Index{4} * tokens * (in > out ? in : out);
    h_ = DeviceArray<float>(static_cast<std::size_t>(tokens) * rank);
    u_ = DeviceArray<float>(static_cast<std::size_t>(tokens) * rank);
    scratch_ = DeviceArray<float>(static_cast<std::size_t>(room));
    arrays_.base = base_.view();
    arrays_.rank = rank;
    arrays_.scale = scale;
    arrays_.a = a_.data(), arrays_.b = b_.data(), arrays_.da = da_.data(), arrays_.db = db_.data();
    arrays_.h = h_.data(), arrays_.u = u_.data();
    arrays_.scratch = {scratch_.data(), room};
    allocate(arrays_.a16, rank, in), allocate(arrays_.b16, out, rank);
    allocate(arrays_.x16, tokens, in), allocate(arrays_.h16, tokens, rank);
    allocate(arrays_.g16, tokens, out), allocate(arrays_.u16, tokens, rank);
    da_.clear(launch.stream());
    db_.clear(launch.stream());
    refresh_factors(launch, arrays_);
    launch.stream().synchronize();
  }
  DeviceLora(DeviceLora&&) = default;

  void forward(Launcher& launch, const float* x, int tokens, float* y) const {
    expect_room("device_lora: forward", tokens);
    lora_forward(launch, arrays_, x, tokens, y);
  }
  void backward(Launcher& launch, const float* g, int tokens, float* dx) const {
    expect_room("device_lora: backward", tokens);
    lora_backward(launch, arrays_, g, tokens, dx);
  }
  /// To be called when A or B has changed.
  void refresh(Launcher& launch) const { refresh_factors(launch, arrays_); }

  const DeviceArray<float>& a() const { return a_; }
  const DeviceArray<float>& b() const { return b_; }
  const DeviceArray<float>& da() const { return da_; }
  const DeviceArray<float>& db() const { return db_; }

 private:
  void expect_room(const char* operation, int tokens) const {
    check<ShapeError>(tokens <= tokens_, operation, tokens, " tokens, but the layer was made for ", tokens_);
  }
  void allocate(BrainRows& rows, int count, int cols) {
    rows.cols = cols;
    kept_.emplace_back(static_cast<std::size_t>(count * rows.stride() / 8));
    rows.data = reinterpret_cast<bfloat16*>(kept_.back().data());
  }

  int tokens_;
  DeviceMatrix base_;
  DeviceArray<float> a_, b_, da_, db_, h_, u_, scratch_;
  std::vector<DeviceArray<Word4>> kept_;
  LoraArrays arrays_;
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#endif
