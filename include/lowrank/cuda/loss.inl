#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/cuda/weight.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda::detail {

/// Targets on the device, the sum of the losses, and the share of each counted token in the mean.
class LossSum {
 public:
  /// Throws ShapeError, ValueError.
  LossSum(Machine& machine, std::span<const std::int32_t> targets, Index tokens, Index vocabulary)
      : machine_(machine), vocabulary_(vocabulary), losses_(1, tokens) {
    const auto counted = lowrank::detail::counted_tokens("cross_entropy", targets, vocabulary, tokens).size();
    share_ = counted > 0 ? 1.0 / static_cast<double>(counted) : 0;
    targets_ = machine.uploaded(targets.data(), targets.size_bytes(), true);
    total_ = machine.reserve(sizeof(double));
    machine.clear(total_.get(), sizeof(double));
  }

  /// Adds the losses of the logits of tokens first …; leaves their gradient in the logits, if wanted.
  void add(DeviceActivation& logits, Index first, bool wants_gradient) {
    machine_.launch(CrossEntropySlice{logits.data(), reinterpret_cast<const std::int32_t*>(targets_.get()) + first, narrow(vocabulary_),
                                      narrow(logits.cols()), static_cast<float>(share_), wants_gradient, losses_.data() + first});
  }
  /// The mean, a [1, 1].
  DeviceActivation mean() {
    auto* const total = reinterpret_cast<double*>(total_.get());
    DeviceActivation loss(1, 1);
    machine_.launch(AddToTotal{losses_.data(), losses_.size(), total});
    machine_.launch(StoreShare{total, share_, loss.data()});
    return loss;
  }

 private:
  Machine& machine_;
  Index vocabulary_;
  double share_ = 0;
  Memory targets_, total_;
  DeviceActivation losses_;
};

/// G · dL/dloss, where the number lies on the device.
template <class Flow>
void pass_on(Flow& flow, DeviceActivation& gradient) {
  gradient.machine().launch(Scale{1, flow.gradient().data(), gradient.size(), gradient.data()});
  flow.add(0, std::move(gradient));
}

}  // namespace cuda::detail

LOWRANK_INLINE Var<float, Cuda> cross_entropy(const Var<float, Cuda>& logits, std::span<const std::int32_t> targets) {
  cuda::DeviceActivation gradient = logits.value();  // a copy: becomes the gradient
  cuda::detail::LossSum sum(gradient.machine(), targets, gradient.cols(), gradient.rows());
  sum.add(gradient, 0, logits.requires_grad());
  return record(sum.mean(), {logits}, [gradient = std::move(gradient)](auto& flow) mutable { cuda::detail::pass_on(flow, gradient); });
}

LOWRANK_INLINE Var<float, Cuda> linear_cross_entropy(AnyLinear& head, const Var<float, Cuda>& x, std::span<const std::int32_t> targets,
                                                     Index slice_numbers) {
  cuda::Machine& machine = x.value().machine();
  const cuda::ChunkedView& w = cuda::on_device(head);
  const Index tokens = x.cols(), slice = std::clamp<Index>(slice_numbers / std::max<Index>(1, w.rows), 1, std::max<Index>(1, tokens));
  cuda::detail::LossSum sum(machine, targets, tokens, w.rows);
  cuda::DeviceActivation dx(x.requires_grad() ? x.rows() : 0, tokens);
  for (Index first = 0; first < tokens; first += slice) {
    const Index count = std::min(slice, tokens - first);
    const cuda::Rounded part(machine, x.value().data() + first * x.rows(), count, x.rows());
    auto logits = cuda::product(machine, w, false, part, count);
    sum.add(logits, first, x.requires_grad());
    if (!x.requires_grad()) continue;
    cuda::product_into(machine, w, true, cuda::Rounded(logits), count, dx.data() + first * x.rows());  // Wᵀ G   [hidden, count]
  }
  return record(sum.mean(), {x}, [dx = std::move(dx)](auto& flow) mutable { cuda::detail::pass_on(flow, dx); });
}

}  // namespace lowrank::inline LOWRANK_ABI
