#pragma once

#include <memory>
#include <vector>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda {

LOWRANK_INLINE float* ParameterCopy::gradient() {
  if (!gradient_) {
    gradient_ = machine_->reserve(bytes());
    machine_->clear(gradient_.get(), bytes());
  }
  return reinterpret_cast<float*>(gradient_.get());
}

LOWRANK_INLINE ParameterCopy& on_device(DeviceSlot& slot, const float* value, Index size) {
  return slot.get<ParameterCopy>([&] { return std::make_unique<ParameterCopy>(Machine::current(), value, size); });
}

LOWRANK_INLINE DeviceActivation rms_norm_forward(const DeviceActivation& x, Parameter<float>& weight, float epsilon) {
  check<ShapeError>(weight.size() == x.rows(), "rms_norm", "x is [", x.rows(), ", ", x.cols(), "] but the weight has ", weight.size(),
                    " numbers; it needs one a row");
  DeviceActivation y(x.rows(), x.cols());
  x.machine().launch(
      RmsNormForward{x.data(), on_device(weight).value(), detail::narrow(x.rows()), detail::narrow(x.cols()), epsilon, y.data()});
  return y;
}

LOWRANK_INLINE DeviceActivation rms_norm_backward(const DeviceActivation& x, Parameter<float>& weight, float epsilon,
                                                  const DeviceActivation& g) {
  const int n = detail::narrow(x.rows()), tokens = detail::narrow(x.cols());
  DeviceActivation dx(x.rows(), x.cols()), rho(1, x.cols());
  ParameterCopy& w = on_device(weight);
  x.machine().launch(RmsNormBackward{x.data(), w.value(), g.data(), n, tokens, epsilon, dx.data(), rho.data()});
  if (weight.needs_grad()) x.machine().launch(RmsNormWeightGradient{x.data(), g.data(), rho.data(), n, tokens, w.gradient()});
  return dx;
}

LOWRANK_INLINE DeviceActivation swiglu_forward(const DeviceActivation& gate, const DeviceActivation& up) {
  lowrank::detail::check_same_shape("swiglu_forward", "gate", gate, "up", up);
  DeviceActivation y(gate.rows(), gate.cols());
  gate.machine().launch(SwigluForward{gate.data(), up.data(), gate.size(), y.data()});
  return y;
}

LOWRANK_INLINE DeviceSwigluGradients swiglu_backward(const DeviceActivation& gate, const DeviceActivation& up, const DeviceActivation& g) {
  lowrank::detail::check_same_shape("swiglu_backward", "gate", gate, "up", up);
  lowrank::detail::check_same_shape("swiglu_backward", "gate", gate, "g", g);
  DeviceSwigluGradients gradients{DeviceActivation(gate.rows(), gate.cols()), DeviceActivation(gate.rows(), gate.cols())};
  gate.machine().launch(SwigluBackward{gate.data(), up.data(), g.data(), gate.size(), gradients.dgate.data(), gradients.dup.data()});
  return gradients;
}

namespace detail {

/// cos and sin of a table, one after the other.
LOWRANK_INLINE const float* angles_on_device(const RopeTable<float>& table) {
  const auto make = [&] {
    const Index half = table.turned_pairs(), count = half * table.tokens();
    std::vector<float> both(table.cos(0), table.cos(0) + count);
    both.insert(both.end(), table.sin(0), table.sin(0) + count);
    return std::make_unique<ConstantCopy>(Machine::current(), both.data(), 2 * count);
  };
  return table.device().get<ConstantCopy>(make).data();
}

LOWRANK_INLINE DeviceActivation rotate(const char* operation, const DeviceActivation& x, const RopeTable<float>& table, float direction) {
  const Index half = table.turned_pairs(), heads = x.rows() / table.head_size();
  check<ValueError>(2 * half == table.head_size(), operation, 2 * half, " of ", table.head_size(),
                    " numbers of a head turn; a GPU turns all of them: run this model on the CPU");
  check<ShapeError>(heads * table.head_size() == x.rows() && x.cols() == table.tokens(), operation, "x is [", x.rows(), ", ", x.cols(),
                    "] but the table is for heads of ", table.head_size(), " numbers and ", table.tokens(), " tokens");
  DeviceActivation y(x.rows(), x.cols());
  if (x.size() == 0) return y;
  const float* const angles = angles_on_device(table);
  x.machine().launch(Rope{x.data(), angles, angles + half * table.tokens(), narrow(heads), narrow(half), narrow(x.cols()),
                          table.pairs() == RopePairs::interleaved, direction, y.data()});
  return y;
}

}  // namespace detail

LOWRANK_INLINE DeviceActivation rope_forward(const DeviceActivation& x, const RopeTable<float>& table) {
  return detail::rotate("rope_forward", x, table, 1);
}
LOWRANK_INLINE DeviceActivation rope_backward(const DeviceActivation& g, const RopeTable<float>& table) {
  return detail::rotate("rope_backward", g, table, -1);
}

namespace detail {

LOWRANK_INLINE AttentionArrays attention_arrays(const char* operation, const DeviceActivation& q, const DeviceActivation& k,
                                                const DeviceActivation& v, const AttentionShape& shape) {
  const Index heads = shape.heads, kv_heads = shape.kv_heads, size = shape.head_size, batch = shape.batch.count();
  check<ValueError>(shape.window == 0 && shape.scale == 0 && shape.cap == 0, operation, "window = ", shape.window,
                    ", scale = ", shape.scale, ", cap = ", shape.cap,
                    "; a GPU's attention has none of the three: run this model on the CPU");
  const bool is_even = batch > 0 && (shape.batch.are_equal() ? q.cols() % batch == 0 && k.cols() % batch == 0 : k.cols() == q.cols());
  check<ShapeError>(heads > 0 && kv_heads > 0 && size > 0 && is_even && q.rows() == heads * size && k.rows() == kv_heads * size &&
                        v.rows() == k.rows() && v.cols() == k.cols() && k.cols() >= q.cols(),
                    operation, "q is [", q.rows(), ", ", q.cols(), "], k [", k.rows(), ", ", k.cols(), "], v [", v.rows(), ", ", v.cols(),
                    "] for ", heads, " heads on ", kv_heads, " of ", size, " numbers and ", batch, " sequences; q is [heads · head_size, ",
                    "tokens], k and v [kv_heads · head_size, keys]");
  AttentionArrays a;
  a.q = q.data(), a.k = k.data(), a.v = v.data();
  a.heads = narrow(heads), a.kv_heads = narrow(kv_heads), a.head_size = narrow(size), a.batch = narrow(batch);
  a.queries = narrow(q.cols() / batch), a.keys = narrow(k.cols() / batch);
  return a;
}

/// Calls launch with all sequences where they are equally long, else with each.
template <class Launch>
void for_equal_lengths(const char* operation, const AttentionArrays& all, const AttentionShape& shape, Index tokens, const Launch& launch) {
  if (shape.batch.are_equal()) return launch(all);
  const auto move = [](auto*& array, Index by) { array = array == nullptr ? nullptr : array + by; };
  AttentionArrays a = all;
  a.batch = 1;
  for (const Index length : shape.batch.lengths(operation, tokens)) {
    a.queries = a.keys = narrow(length);
    launch(a);
    const Index queries = length * shape.heads * shape.head_size, keys = length * shape.kv_heads * shape.head_size;
    move(a.q, queries), move(a.y, queries), move(a.g, queries), move(a.dq, queries);
    move(a.k, keys), move(a.v, keys), move(a.dk, keys), move(a.dv, keys);
    move(a.log_sum_exp, length * shape.heads), move(a.delta, length * shape.heads);
  }
}

}  // namespace detail

LOWRANK_INLINE DeviceAttentionForward attention_forward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                                        const AttentionShape& shape, Compute) {
  AttentionArrays a = detail::attention_arrays("attention_forward", q, k, v, shape);
  DeviceAttentionForward result{DeviceActivation(q.rows(), q.cols()), DeviceActivation(shape.heads, q.cols())};
  a.y = result.y.data(), a.log_sum_exp = result.log_sum_exp.data();
  detail::for_equal_lengths("attention_forward", a, shape, q.cols(),
                            [&](const AttentionArrays& part) { launch_attention(q.machine(), part, q.machine().scratch()); });
  return result;
}

LOWRANK_INLINE DeviceAttentionGradients attention_backward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                                           const DeviceActivation& y, const DeviceActivation& log_sum_exp,
                                                           const DeviceActivation& g, const AttentionShape& shape, Compute) {
  AttentionArrays a = detail::attention_arrays("attention_backward", q, k, v, shape);
  DeviceAttentionGradients gradients{DeviceActivation(q.rows(), q.cols()), DeviceActivation(k.rows(), k.cols()),
                                     DeviceActivation(v.rows(), v.cols())};
  DeviceActivation delta(shape.heads, q.cols());
  a.y = const_cast<float*>(y.data()), a.log_sum_exp = const_cast<float*>(log_sum_exp.data());  // read only
  a.g = g.data(), a.delta = delta.data();
  a.dq = gradients.dq.data(), a.dk = gradients.dk.data(), a.dv = gradients.dv.data();
  detail::for_equal_lengths("attention_backward", a, shape, q.cols(),
                            [&](const AttentionArrays& part) { launch_attention_backward(q.machine(), part); });
  return gradients;
}

}  // namespace cuda

LOWRANK_INLINE Var<float, Cuda> rms_norm(const Var<float, Cuda>& x, Parameter<float>& weight, float epsilon) {
  const Kept<float, Cuda> kept = x.kept();
  const auto backward = [kept, w = Handle(weight), epsilon](auto& flow) {
    flow.add(0, cuda::rms_norm_backward(*kept.get(), *w, epsilon, flow.gradient()));
  };
  return record(cuda::rms_norm_forward(x.value(), weight, epsilon), {x}, backward, weight.needs_grad())
      .restored_by([kept, w = Handle(weight), epsilon] { return cuda::rms_norm_forward(*kept.get(), *w, epsilon); });
}

}  // namespace lowrank::inline LOWRANK_ABI
