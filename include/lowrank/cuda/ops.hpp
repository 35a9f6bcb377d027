#pragma once

/// The pure operations of ops/ on a GPU, under their names: what the templates of autograd/functions.hpp find for Array<float, Cuda>.
/// Products round their factors to bfloat16 and sum in fp32, whatever Compute says; the rest is fp32.

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/cuda/array.hpp>
#include <lowrank/cuda/attention_launch.hpp>
#include <lowrank/ops/attention.hpp>
#include <lowrank/ops/rope.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Numbers of the host on the device: a frozen vector, or a table.
struct ConstantCopy : DeviceCopy {
  ConstantCopy(Machine& machine, const float* from, Index count)
      : memory(machine.reserve(static_cast<std::size_t>(count) * sizeof(float))) {
    machine.upload(from, memory.get(), static_cast<std::size_t>(count) * sizeof(float));
  }
  const float* data() const { return reinterpret_cast<const float*>(memory.get()); }

  Memory memory;
};

/// A parameter's numbers and its gradient on the device. The gradient begins with zeros.
struct ParameterCopy : DeviceCopy {
  ParameterCopy(Machine& machine, const float* from, Index count) : numbers(machine, from, count), size(count), machine_(&machine) {}

  const float* value() const { return numbers.data(); }
  float* mutable_value() { return reinterpret_cast<float*>(numbers.memory.get()); }
  float* gradient() {
    if (!gradient_) {
      gradient_ = machine_->reserve(bytes());
      machine_->clear(gradient_.get(), bytes());
    }
    return reinterpret_cast<float*>(gradient_.get());
  }
  std::size_t bytes() const { return static_cast<std::size_t>(size) * sizeof(float); }

  ConstantCopy numbers;
  Index size;

 private:
  Machine* machine_;
  Memory gradient_;
};

/// The parameter on the machine in use, copied there when it is asked for the first time.
inline ParameterCopy& on_device(DeviceSlot& slot, const float* value, Index size) {
  return slot.get<ParameterCopy>([&] { return std::make_unique<ParameterCopy>(Machine::current(), value, size); });
}
template <int Rows, int Cols>
ParameterCopy& on_device(Parameter<float, Rows, Cols>& parameter) {
  return on_device(parameter.device, parameter.value.data(), parameter.size());
}

namespace detail {

using lowrank::detail::check_same_shape;

inline int narrow(Index count) { return static_cast<int>(count); }

}  // namespace detail

/// y = w ∘ x / √(mean(x²) + ε) of each token.
inline DeviceActivation rms_norm_forward(const DeviceActivation& x, Parameter<float>& weight, float epsilon) {
  check<ShapeError>(weight.size() == x.rows(), "rms_norm", "x is [", x.rows(), ", ", x.cols(), "] but the weight has ", weight.size(),
                    " numbers; it needs one a row");
  DeviceActivation y(x.rows(), x.cols());
  x.machine().launch(RmsNormForward{x.data(), on_device(weight).value(), detail::narrow(x.rows()), detail::narrow(x.cols()), epsilon,
                                    y.data(), nullptr, 0});
  return y;
}

/// dX; the weight's gradient is added to it where the weight is trained.
inline DeviceActivation rms_norm_backward(const DeviceActivation& x, Parameter<float>& weight, float epsilon, const DeviceActivation& g) {
  const int n = detail::narrow(x.rows()), tokens = detail::narrow(x.cols());
  DeviceActivation dx(x.rows(), x.cols()), rho(1, x.cols());
  ParameterCopy& w = on_device(weight);
  x.machine().launch(RmsNormBackward{x.data(), w.value(), g.data(), n, tokens, epsilon, dx.data(), rho.data()});
  if (weight.needs_grad()) x.machine().launch(RmsNormWeightGradient{x.data(), g.data(), rho.data(), n, tokens, w.gradient()});
  return dx;
}

inline DeviceActivation swiglu_forward(const DeviceActivation& gate, const DeviceActivation& up) {
  detail::check_same_shape("swiglu_forward", "gate", gate, "up", up);
  DeviceActivation y(gate.rows(), gate.cols());
  gate.machine().launch(SwigluForward{gate.data(), up.data(), gate.size(), y.data()});
  return y;
}

struct DeviceSwigluGradients {
  DeviceActivation dgate, dup;
};
inline DeviceSwigluGradients swiglu_backward(const DeviceActivation& gate, const DeviceActivation& up, const DeviceActivation& g) {
  detail::check_same_shape("swiglu_backward", "gate", gate, "up", up);
  detail::check_same_shape("swiglu_backward", "gate", gate, "g", g);
  DeviceSwigluGradients gradients{DeviceActivation(gate.rows(), gate.cols()), DeviceActivation(gate.rows(), gate.cols())};
  gate.machine().launch(SwigluBackward{gate.data(), up.data(), g.data(), gate.size(), gradients.dgate.data(), gradients.dup.data()});
  return gradients;
}

namespace detail {

/// cos and sin of a table, one after the other.
inline const float* angles_on_device(const RopeTable<float>& table) {
  const auto make = [&] {
    const Index half = table.head_size() / 2, count = half * table.tokens();
    std::vector<float> both(table.cos(0), table.cos(0) + count);
    both.insert(both.end(), table.sin(0), table.sin(0) + count);
    return std::make_unique<ConstantCopy>(Machine::current(), both.data(), 2 * count);
  };
  return table.device().get<ConstantCopy>(make).data();
}

inline DeviceActivation rotate(const char* operation, const DeviceActivation& x, const RopeTable<float>& table, float direction) {
  const Index half = table.head_size() / 2, heads = x.rows() / table.head_size();
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

inline DeviceActivation rope_forward(const DeviceActivation& x, const RopeTable<float>& table) {
  return detail::rotate("rope_forward", x, table, 1);
}
inline DeviceActivation rope_backward(const DeviceActivation& g, const RopeTable<float>& table) {
  return detail::rotate("rope_backward", g, table, -1);
}

struct DeviceAttentionForward {
  DeviceActivation y, log_sum_exp;
};
struct DeviceAttentionGradients {
  DeviceActivation dq, dk, dv;
};

namespace detail {

inline AttentionArrays attention_arrays(const char* operation, const DeviceActivation& q, const DeviceActivation& k,
                                        const DeviceActivation& v, const AttentionShape& shape) {
  const auto [heads, kv_heads, size, batch] = shape;
  check<ShapeError>(heads > 0 && kv_heads > 0 && size > 0 && batch > 0 && q.rows() == heads * size && k.rows() == kv_heads * size &&
                        v.rows() == k.rows() && v.cols() == k.cols() && q.cols() % batch == 0 && k.cols() % batch == 0 &&
                        k.cols() >= q.cols(),
                    operation, "q is [", q.rows(), ", ", q.cols(), "], k [", k.rows(), ", ", k.cols(), "], v [", v.rows(), ", ", v.cols(),
                    "] for ", heads, " heads on ", kv_heads, " of ", size, " numbers and ", batch, " sequences; q is [heads · head_size, ",
                    "tokens], k and v [kv_heads · head_size, keys]");
  AttentionArrays a;
  a.q = q.data(), a.k = k.data(), a.v = v.data();
  a.heads = narrow(heads), a.kv_heads = narrow(kv_heads), a.head_size = narrow(size), a.batch = narrow(batch);
  a.queries = narrow(q.cols() / batch), a.keys = narrow(k.cols() / batch);
  return a;
}

}  // namespace detail

/// Causal attention; see attention_forward of ops/attention.hpp. Heads are even, at most 256 wide here and 128 in the backward pass. Throws
/// ShapeError.
inline DeviceAttentionForward attention_forward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                                const AttentionShape& shape, Compute = Compute::bf16) {
  AttentionArrays a = detail::attention_arrays("attention_forward", q, k, v, shape);
  DeviceAttentionForward result{DeviceActivation(q.rows(), q.cols()), DeviceActivation(shape.heads, q.cols())};
  a.y = result.y.data(), a.log_sum_exp = result.log_sum_exp.data();
  Launch launch(q.machine());
  launch_attention(launch, a, q.machine().scratch());
  return result;
}

inline DeviceAttentionGradients attention_backward(const DeviceActivation& q, const DeviceActivation& k, const DeviceActivation& v,
                                                   const DeviceActivation& y, const DeviceActivation& log_sum_exp,
                                                   const DeviceActivation& g, const AttentionShape& shape, Compute = Compute::bf16) {
  AttentionArrays a = detail::attention_arrays("attention_backward", q, k, v, shape);
  DeviceAttentionGradients gradients{DeviceActivation(q.rows(), q.cols()), DeviceActivation(k.rows(), k.cols()),
                                     DeviceActivation(v.rows(), v.cols())};
  DeviceActivation delta(shape.heads, q.cols());
  a.y = const_cast<float*>(y.data()), a.log_sum_exp = const_cast<float*>(log_sum_exp.data());  // read only
  a.g = g.data(), a.delta = delta.data();
  a.dq = gradients.dq.data(), a.dk = gradients.dk.data(), a.dv = gradients.dv.data();
  Launch launch(q.machine());
  launch_attention_backward(launch, a);
  return gradients;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
