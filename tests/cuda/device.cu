#include "device.hpp"

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

namespace {

/// The product's factors on the device, A x in the rows of x, as a layer has them, so that slices take them together.
struct OnDevice {
  cuda::DeviceMatrix matrix;
  cuda::Product product;

  OnDevice(Session& s, const cuda::PackedMatrix& base, bool turned, const Floats& adapter, int rank, const Floats& x, const Floats& h,
           int tokens)
      : matrix(base, s.stream) {
    const int out = turned ? matrix.cols() : matrix.rows(), in = turned ? matrix.rows() : matrix.cols();
    cuda::BrainRows front{nullptr, in, static_cast<int>(round_up(rank, cuda::chunk_size))};
    front.data = reinterpret_cast<bfloat16*>(s.make(static_cast<std::size_t>(tokens * front.stride() / 2)));
    const cuda::BrainRows back{front.data + round_up(in, cuda::chunk_size), rank, static_cast<int>(round_up(in, cuda::chunk_size))};
    front.fill(s.launch, s.put(x), tokens);
    back.fill(s.launch, s.put(h), tokens);
    const cuda::BrainRows factor = turned ? put_rows(s, adapter, rank, out) : put_rows(s, adapter, out, rank);
    product.base = matrix.view();
    product.x = front.operand();
    product.h = back.operand();
    product.adapter = {factor.data, factor.stride(), rank, out};
    product.rows = out, product.tokens = tokens, product.ldy = out;
    product.y = s.make(size());
  }
  std::size_t size() const { return static_cast<std::size_t>(product.rows) * static_cast<std::size_t>(product.tokens); }
};

}  // namespace

ProductResult run_product(const cuda::PackedMatrix& base, bool turned, const Floats& adapter, int rank, const Floats& x, const Floats& h,
                          int tokens) {
  Session s;
  PathLauncher launch(s.stream);
  const OnDevice on(s, base, turned, adapter, rank, x, h, tokens);
  constexpr std::size_t room = std::size_t{1} << 22;
  const cuda::Scratch scratch{s.make(room), static_cast<Index>(room)};
  const auto run = [&] {
    turned ? cuda::multiply<true>(launch, on.product, scratch) : cuda::multiply<false>(launch, on.product, scratch);
    return s.get(on.product.y, on.size());
  };
  ProductResult result{run(), false};
  result.repeats = run() == result.y;
  return result;
}

Floats run_path(const cuda::PackedMatrix& base, cuda::ProductPath path, bool turned, const Floats& adapter, int rank, const Floats& x,
                const Floats& h, int tokens) {
  Session s;
  PathLauncher launch(s.stream);
  if (!has_path(path, turned, tokens, cuda::traits_of(launch))) return {};
  const OnDevice on(s, base, turned, adapter, rank, x, h, tokens);
  turned ? cuda::multiply_by<true>(launch, path, on.product, {}) : cuda::multiply_by<false>(launch, path, on.product, {});
  return s.get(on.product.y, on.size());
}

Floats run_outer(const Floats& left, const Floats& right, int rows, int cols, int tokens, float scale) {
  Session s;
  PathLauncher launch(s.stream);
  cuda::OuterProduct outer;
  outer.left = put_rows(s, left, tokens, rows).operand(), outer.right = put_rows(s, right, tokens, cols).operand();
  outer.tokens = tokens, outer.scale = scale;
  outer.c = s.put(Floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols), 1.0f));
  cuda::add_outer(launch, outer, {});
  return s.get(outer.c, static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols));
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

}  // namespace device
