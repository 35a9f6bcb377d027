#include "device.hpp"

#include <cmath>

#include <lowrank/cuda.hpp>

using namespace lowrank;

namespace device {
namespace {

/// A stream, and arrays on the device that live as long as this.
struct Session {
  cuda::Stream stream;
  cuda::Launcher launch{stream};
  std::vector<cuda::DeviceArray<float>> arrays;

  float* put(const Floats& numbers) {
    arrays.emplace_back(std::span<const float>(numbers), stream);
    stream.synchronize();
    return arrays.back().data();
  }
  float* make(std::size_t size) {
    arrays.emplace_back(size);
    return arrays.back().data();
  }
  Floats get(const float* from, std::size_t size) {
    Floats numbers(size);
    cuda::expect_success(cudaMemcpyAsync(numbers.data(), from, size * sizeof(float), cudaMemcpyDeviceToHost, stream.get()), "get");
    stream.synchronize();
    return numbers;
  }
};

template <int Size>
void run_attention_kernels(cuda::Launcher& launch, const cuda::AttentionArrays& a) {
  launch(cuda::AttentionForwardKernel<Size>{a});
  launch(cuda::AttentionDelta{a});
  launch(cuda::AttentionBackwardKeys<Size>{a});
  launch(cuda::AttentionBackwardQueries<Size>{a});
}

}  // namespace

LayerResult run_layer(const cuda::PackedMatrix& base, const Floats& a, const Floats& b, float scale, const Floats& x, const Floats& g,
                      int tokens) {
  Session s;
  const cuda::DeviceLora layer(base, a, b, scale, tokens, s.launch);
  const float *const x_device = s.put(x), *const g_device = s.put(g);
  float *const y = s.make(g.size()), *const dx = s.make(x.size());
  layer.forward(s.launch, x_device, tokens, y);
  layer.backward(s.launch, g_device, tokens, dx);
  LayerResult result{s.get(y, g.size()), s.get(dx, x.size()), s.get(layer.da().data(), a.size()), s.get(layer.db().data(), b.size()),
                     false};
  layer.forward(s.launch, x_device, tokens, y);
  layer.backward(s.launch, g_device, tokens, dx);
  result.repeats = s.get(y, g.size()) == result.y && s.get(dx, x.size()) == result.dx;
  return result;
}

AttentionResult run_attention(const AttentionSizes& n, const Floats& q, const Floats& k, const Floats& v, const Floats& g) {
  Session s;
  const std::size_t rows = static_cast<std::size_t>(n.heads) * static_cast<std::size_t>(n.batch * n.queries);
  cuda::AttentionArrays a{s.put(q), s.put(k), s.put(v), n.heads, n.kv_heads, n.head_size, n.batch, n.queries, n.keys};
  a.y = s.make(q.size()), a.log_sum_exp = s.make(rows), a.g = s.put(g), a.delta = s.make(rows);
  a.dq = s.make(q.size()), a.dk = s.make(k.size()), a.dv = s.make(v.size());
  if (n.head_size <= 32)
    run_attention_kernels<32>(s.launch, a);
  else if (n.head_size <= 64)
    run_attention_kernels<64>(s.launch, a);
  else
    run_attention_kernels<128>(s.launch, a);
  return {s.get(a.y, q.size()), s.get(a.log_sum_exp, rows), s.get(a.dq, q.size()), s.get(a.dk, k.size()), s.get(a.dv, v.size())};
}

NormResult run_norm(const Floats& x, const Floats& weight, const Floats& g, int tokens, float epsilon) {
  Session s;
  const int n = static_cast<int>(weight.size());
  const float *const x_device = s.put(x), *const w = s.put(weight);
  float *const y = s.make(x.size()), *const dx = s.make(x.size());
  s.launch(cuda::RmsNormForward{x_device, w, n, tokens, epsilon, y, nullptr, 0});
  s.launch(cuda::RmsNormBackward{x_device, w, s.put(g), n, tokens, epsilon, dx, nullptr});
  return {s.get(y, x.size()), s.get(dx, x.size())};
}

SwigluResult run_swiglu(const Floats& gate, const Floats& up, const Floats& g) {
  Session s;
  const Index size = static_cast<Index>(gate.size());
  const float *const gate_device = s.put(gate), *const up_device = s.put(up);
  float *const y = s.make(gate.size()), *const dgate = s.make(gate.size()), *const dup = s.make(gate.size());
  s.launch(cuda::SwigluForward{gate_device, up_device, size, y});
  s.launch(cuda::SwigluBackward{gate_device, up_device, s.put(g), size, dgate, dup});
  return {s.get(y, gate.size()), s.get(dgate, gate.size()), s.get(dup, gate.size())};
}

LossResult run_cross_entropy(const Floats& logits, const std::vector<std::int32_t>& targets, float share) {
  Session s;
  const int count = static_cast<int>(targets.size());
  const cuda::DeviceArray<std::int32_t> ids(targets, s.stream);
  float *const work = s.put(logits), *const losses = s.make(targets.size());
  s.launch(cuda::CrossEntropySlice{work, ids.data(), static_cast<int>(logits.size()) / count, count, share, true, losses});
  return {s.get(losses, targets.size()), s.get(work, logits.size())};
}

FitResult fit(const cuda::PackedMatrix& base, const Floats& a, const Floats& b, const Floats& x, const Floats& target, int tokens,
              int steps) {
  Session s;
  const cuda::DeviceLora layer(base, a, b, 1.0f, tokens, s.launch);
  const float *const x_device = s.put(x), *const target_device = s.put(target);
  float *const y = s.make(target.size()), *const m = s.put(Floats(2 * (a.size() + b.size()))), *const clip = s.make(2);
  const Index na = static_cast<Index>(a.size()), nb = static_cast<Index>(b.size());
  std::vector<cuda::OptimizedTensor> tensors{{layer.a().data(), layer.da().data(), m, m + na, na, 0},
                                             {layer.b().data(), layer.db().data(), m + 2 * na, m + 2 * na + nb, nb, 0}};
  const int blocks = cuda::number_blocks(tensors.data(), 2);
  const cuda::DeviceArray<cuda::OptimizedTensor> list(tensors, s.stream);
  cuda::DeviceArray<cuda::AdamWNumbers> numbers(1);
  const cuda::DeviceArray<double> partials(static_cast<std::size_t>(blocks));
  const auto step = [&] {
    layer.refresh(s.launch);
    layer.forward(s.launch, x_device, tokens, y);
    s.launch(cuda::AddScaled{target_device, -1.0f, static_cast<Index>(target.size()), y});  // the gradient of ½ |Y − target|²
    layer.backward(s.launch, y, tokens, nullptr);
    s.launch(cuda::SquaredSums{list.data(), 2, blocks, partials.data()});
    s.launch(cuda::ClipFactor{partials.data(), blocks, 1000.0f, clip, clip + 1});
    s.launch(cuda::AdamWUpdate{list.data(), 2, blocks, numbers.data(), clip + 1});
  };
  const auto squares = [&] {
    float sum = 0;
    for (const float e : s.get(y, target.size())) sum += e * e;
    return sum;
  };
  FitResult result;
  cuda::StepGraph graph;
  for (int t = 1; t <= steps; ++t) {
    const float power1 = std::pow(0.9f, static_cast<float>(t)), power2 = std::pow(0.999f, static_cast<float>(t));
    const cuda::AdamWNumbers now{1.0f, 0.01f / (1 - power1), std::sqrt(1 - power2), 0.999f, 1e-8f, 0.1f, 0.001f};
    numbers.upload({&now, 1}, s.stream);
    s.stream.synchronize();
    if (t > 1) {
      graph.launch(s.stream);
      continue;
    }
    step();
    result.before = squares();
    graph.record(s.stream, step);
  }
  result.after = squares();
  return result;
}

}  // namespace device
