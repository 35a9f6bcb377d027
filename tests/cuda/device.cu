#include "device.hpp"

#include <cmath>

#include <lowrank/cuda.hpp>
#if defined(LOWRANK_TEST_CUBLAS)
#include <lowrank/cuda/cublas.hpp>
#endif

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

#if defined(LOWRANK_TEST_CUBLAS)
using PathLauncher = cuda::BlasLauncher;
#else
using PathLauncher = cuda::Launcher;
#endif

bool has_path(cuda::ProductPath path, bool turned, int tokens, const cuda::DeviceTraits& device) {
  using Path = cuda::ProductPath;
  if (path == Path::few) return !turned && tokens <= 8;
  if (path == Path::slices) return device.has_blas;
  return device.has_wgmma || (path != Path::wgmma_64 && path != Path::wgmma_128);
}

/// Numbers as rows of bfloat16, in arrays of the session: two to a float.
cuda::BrainRows put_rows(Session& s, const Floats& numbers, int rows, int cols) {
  cuda::BrainRows brain;
  brain.cols = cols;
  brain.data = reinterpret_cast<bfloat16*>(s.make(static_cast<std::size_t>(rows * brain.stride() / 2)));
  brain.fill(s.launch, s.put(numbers), rows);
  return brain;
}

cuda::AttentionArrays put_attention(Session& s, const AttentionSizes& n, const Floats& q, const Floats& k, const Floats& v) {
  cuda::AttentionArrays a{s.put(q), s.put(k), s.put(v), n.heads, n.kv_heads, n.head_size, n.batch, n.queries, n.keys};
  a.y = s.make(q.size());
  a.log_sum_exp = s.make(static_cast<std::size_t>(n.heads) * static_cast<std::size_t>(n.batch * n.queries));
  return a;
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

Floats run_path(const cuda::PackedMatrix& base, cuda::ProductPath path, bool turned, const Floats& adapter, int rank, const Floats& x,
                const Floats& h, int tokens) {
  Session s;
  PathLauncher launch(s.stream);
  if (!has_path(path, turned, tokens, cuda::traits_of(launch))) return {};
  const cuda::DeviceMatrix matrix(base, s.stream);
  const int out = turned ? matrix.cols() : matrix.rows(), in = turned ? matrix.rows() : matrix.cols();
  cuda::Product p;
  p.base = matrix.view();
  p.x = put_rows(s, x, tokens, in).operand();
  p.h = put_rows(s, h, tokens, rank).operand();
  const cuda::BrainRows factor = turned ? put_rows(s, adapter, rank, out) : put_rows(s, adapter, out, rank);
  p.adapter = {factor.data, factor.stride(), rank, out};
  p.rows = out, p.tokens = tokens, p.ldy = out;
  p.y = s.make(static_cast<std::size_t>(out) * static_cast<std::size_t>(tokens));
  if (turned)
    cuda::multiply_by<true>(launch, path, p, {});
  else
    cuda::multiply_by<false>(launch, path, p, {});
  return s.get(p.y, static_cast<std::size_t>(out) * static_cast<std::size_t>(tokens));
}

AttentionResult run_attention(const AttentionSizes& n, const Floats& q, const Floats& k, const Floats& v, const Floats& g) {
  Session s;
  const std::size_t rows = static_cast<std::size_t>(n.heads) * static_cast<std::size_t>(n.batch * n.queries);
  cuda::AttentionArrays a = put_attention(s, n, q, k, v);
  a.g = s.put(g), a.delta = s.make(rows);
  a.dq = s.make(q.size()), a.dk = s.make(k.size()), a.dv = s.make(v.size());
  cuda::launch_attention(s.launch, a);
  cuda::launch_attention_backward(s.launch, a);
  return {s.get(a.y, q.size()), s.get(a.log_sum_exp, rows), s.get(a.dq, q.size()), s.get(a.dk, k.size()), s.get(a.dv, v.size())};
}

Floats run_attention_forward(const AttentionSizes& n, const Floats& q, const Floats& k, const Floats& v) {
  Session s;
  const cuda::AttentionArrays a = put_attention(s, n, q, k, v);
  constexpr std::size_t room = std::size_t{1} << 20;
  cuda::launch_attention(s.launch, a, {s.make(room), static_cast<Index>(room)});
  return s.get(a.y, q.size());
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
