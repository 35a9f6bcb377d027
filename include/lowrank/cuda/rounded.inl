#pragma once

#include <lowrank/cuda/kernels/list.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

LOWRANK_INLINE Rounded::Rounded(Machine& machine, const float* x, Index count, Index cols, float factor, Index room)
    : stride_(round_up(cols, chunk_size) + room), count_(detail::narrow(count)), cols_(detail::narrow(cols)) {
  memory_ = machine.reserve(static_cast<std::size_t>(count * stride_) * sizeof(BFloat16));
  data_ = reinterpret_cast<BFloat16*>(memory_.get());
  if (count > 0 && cols > 0) machine.launch(ToBfloat16{x, cols, count_, cols_, factor, data_, stride_});
}

LOWRANK_INLINE Rounded::Rounded(const Rounded& front, Index at, const DeviceActivation& x)
    : memory_(front.memory_),
      data_(front.data_ + round_up(front.cols_, chunk_size) + at),
      stride_(front.stride_),
      count_(front.count_),
      cols_(detail::narrow(x.rows())) {
  if (x.size() > 0) x.machine().launch(ToBfloat16{x.data(), cols_, count_, cols_, 1, data_, stride_});
}

LOWRANK_INLINE ChunkedView Rounded::view() const {
  ChunkedView v;
  v.codes = reinterpret_cast<const Word4*>(data_);
  v.rows = count_;
  v.cols = cols_;
  v.chunks = static_cast<int>(stride_ / chunk_size);
  v.bits = 16;
  return v;
}

LOWRANK_INLINE Product product_of(const ChunkedView& w, bool transposed, const Rounded& x, Index tokens, float* y, const Rounded* factor,
                                  const Rounded* h) {
  Product p;
  p.base = w;
  p.x = x.operand();
  p.rows = transposed ? w.cols : w.rows;
  p.tokens = detail::narrow(tokens);
  p.y = y;
  p.ldy = p.rows;
  if (factor) p.h = h->operand(), p.update = factor->update(transposed);
  return p;
}

LOWRANK_INLINE void product_into(Machine& machine, const ChunkedView& w, bool transposed, const Rounded& x, Index tokens, float* y,
                                 const Rounded* factor, const Rounded* h, const float* bias, bool accumulate) {
  Product p = product_of(w, transposed, x, tokens, y, factor, h);
  p.bias = bias;
  p.accumulate = accumulate;
  multiply(machine, p, transposed, machine.scratch());
}

LOWRANK_INLINE DeviceActivation product(Machine& machine, const ChunkedView& w, bool transposed, const Rounded& x, Index tokens,
                                        const Rounded* factor, const Rounded* h, const float* bias) {
  DeviceActivation y(transposed ? w.cols : w.rows, tokens);
  product_into(machine, w, transposed, x, tokens, y.data(), factor, h, bias);
  return y;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
