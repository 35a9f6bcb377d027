// Holds the kernels against the CPU, on a real device; where there is none it says so and counts as skipped (exit 77).
// Their indices, masks and barriers are tested without a device in tests/unit/cuda.
#include <cmath>
#include <cstdio>

#include <lowrank/cuda.hpp>
#include <lowrank/cuda/kernels/outer.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/lowrank.hpp>

using namespace lowrank;
using cuda::DeviceActivation;
using Path = cuda::ProductPath;

namespace {

int failures = 0;

void expect(bool holds, const std::string& what) {
  std::printf("%s: %s\n", holds ? "passed" : "FAILED", what.c_str());
  failures += holds ? 0 : 1;
}

Activation<float> random_matrix(Index rows, Index cols, std::uint64_t stream, float scale = 1) {
  Random random(1, stream);
  Activation<float> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = scale * static_cast<float>(random.uniform(-1, 1));
  return m;
}

template <class Expected>
bool is_near(const Activation<float>& y, const Expected& expected, double tolerance) {
  double worst = 0, largest = 0;
  if (y.size() != expected.size()) return false;
  for (Index i = 0; i < y.size(); ++i) {
    const double e = static_cast<double>(expected.data()[i]);
    if (!std::isfinite(y.data()[i])) return false;
    worst = std::max(worst, std::abs(static_cast<double>(y.data()[i]) - e));
    largest = std::max(largest, std::abs(e));
  }
  return worst <= tolerance * largest;
}

/// W X + B H of a low-rank layer, or transposed Wᵀ X + Aᵀ H, on a device and on the CPU. A x lies in the rows of x, as a layer has it, so
/// that slices take them together.
struct LowRankProduct {
  cuda::DeviceWeight weight;
  cuda::Rounded x, h, factor;
  DeviceActivation y;
  Activation<float> expected;
  bool transposed;

  template <class Quantized>
  LowRankProduct(const Quantized& q, bool is_transposed, Index tokens, Index rank)
      : weight(cuda::Machine::current(), cuda::to_chunks(q.source())), transposed(is_transposed) {
    const Index rows = q.rows(), cols = q.cols(), in = transposed ? rows : cols, out = transposed ? cols : rows;
    Weight<float> w(rows, cols);
    q.source().decode(0, rows, 0, cols, w.data(), cols);
    const auto host_x = random_matrix(in, tokens, 2), host_h = random_matrix(rank, tokens, 3);
    const Weight<float> host_factor = transposed ? random_matrix(out, rank, 4).transpose() : random_matrix(rank, out, 4).transpose();
    expected = transposed ? Activation<float>(w.transpose() * host_x + host_factor.transpose() * host_h)
                          : Activation<float>(w * host_x + host_factor * host_h);
    x = cuda::Rounded(DeviceActivation(host_x), cuda::Rounded::room_of(rank));
    h = cuda::Rounded(x, 0, DeviceActivation(host_h));
    factor = cuda::Rounded(DeviceActivation(Activation<float>(host_factor.transpose())));  // its columns are the factor's rows
    y = DeviceActivation(out, tokens);
  }
  cuda::Product product() { return product_of(weight.view(), transposed, x, y.cols(), y.data(), &factor, &h); }
};

template <class Format>
auto random_base(Index rows, Index cols) {
  return quantize<Format>(Weight<float>(random_matrix(cols, rows, 1).transpose()));
}

/// The product of a low-rank layer on every kind of base, both ways, by the paths that are chosen for few tokens and many.
template <class Format>
void test_products(Index cols, Index rows, Index rank) {
  const auto q = random_base<Format>(rows, cols);
  cuda::Machine& gpu = cuda::Machine::current();
  for (const bool transposed : {false, true})
    for (const Index tokens : {1, 2, 3, 8, 40, 100, 600}) {
      LowRankProduct p(q, transposed, tokens, rank);
      multiply(gpu, p.product(), transposed, gpu.scratch());
      const auto first = to_host(p.y);
      multiply(gpu, p.product(), transposed, gpu.scratch());
      expect(is_near(first, p.expected, 0x1p-6),
             concat("low-rank layer on ", Format::name, transposed ? ", transposed, " : ", ", tokens, " tokens"));
      expect(to_host(p.y) == first, "the same bits again");
    }
}

bool has_path(Path path, bool transposed, Index tokens, const cuda::DeviceTraits& device) {
  if (path == Path::few) return !transposed && tokens <= 8;
  if (path == Path::slices) return device.has_blas;
  return device.has_wgmma || (path != Path::wgmma_64 && path != Path::wgmma_128);
}

/// Every path of a product, both ways, with an update: ragged, and more tiles of the depth than stages.
template <class Format>
void test_paths(Index rows, Index cols, Index rank) {
  constexpr std::pair<Path, const char*> paths[] = {{Path::few, "few tokens"},
                                                    {Path::small, "mma.sync, 64 x 16"},
                                                    {Path::medium, "mma.sync, 128 x 64"},
                                                    {Path::large, "mma.sync, 128 x 128"},
                                                    {Path::wgmma_64, "wgmma, 64"},
                                                    {Path::wgmma_128, "wgmma, 128"},
                                                    {Path::slices, "slices"}};
  const auto q = random_base<Format>(rows, cols);
  cuda::Machine& gpu = cuda::Machine::current();
  for (const bool transposed : {false, true})
    for (const Index tokens : {3, 300}) {
      LowRankProduct p(q, transposed, tokens, rank);
      for (const auto& [path, name] : paths) {
        const std::string what = concat("product on ", Format::name, transposed ? ", transposed, " : ", ", tokens, " tokens: ", name);
        if (!has_path(path, transposed, tokens, gpu.traits())) {
          std::printf("not here: %s\n", what.c_str());
          continue;
        }
        multiply_by(gpu, path, p.product(), transposed, {});
        expect(is_near(to_host(p.y), p.expected, 0x1p-6), what);
      }
    }
}

void test_outer(Index tokens) {
  const auto left = random_matrix(20, tokens, 1), right = random_matrix(330, tokens, 2);
  const Activation<float> expected = (0.5f * right * left.transpose()).array() + 1;  // [cols, rows] is C row-major
  const cuda::Rounded left16{DeviceActivation(left)}, right16{DeviceActivation(right)};
  auto c = DeviceActivation::Ones(330, 20);
  cuda::OuterProduct outer;
  outer.left = left16.operand(), outer.right = right16.operand();
  outer.tokens = static_cast<int>(tokens), outer.scale = 0.5f, outer.c = c.data();
  add_outer(c.machine(), outer, {});
  expect(is_near(to_host(c), expected, 0x1p-6), concat("the gradient of a factor, ", tokens, " tokens"));
}

void test_decode(const AttentionShape& shape, Index keys) {
  const Index width = shape.heads * shape.head_size, kv_width = shape.kv_heads * shape.head_size;
  const auto q = random_matrix(width, shape.batch.count(), 1, 3), k = random_matrix(kv_width, shape.batch.count() * keys, 2),
             v = random_matrix(kv_width, shape.batch.count() * keys, 3);
  const auto y = attention_forward(DeviceActivation(q), DeviceActivation(k), DeviceActivation(v), shape).y;
  expect(is_near(to_host(y), attention_forward(q, k, v, shape).y, 1e-4),
         concat("one query over ", keys, " keys, heads of ", shape.head_size));
}

void test_attention(const AttentionShape& shape, Index queries, Index keys) {
  const Index width = shape.heads * shape.head_size, kv_width = shape.kv_heads * shape.head_size, tokens = shape.batch.count() * queries;
  const auto q = random_matrix(width, tokens, 1, 3), k = random_matrix(kv_width, shape.batch.count() * keys, 2),
             v = random_matrix(kv_width, shape.batch.count() * keys, 3), g = random_matrix(width, tokens, 4);
  const auto forward = attention_forward(q, k, v, shape, Compute::bf16);
  const auto backward = attention_backward(q, k, v, forward.y, forward.log_sum_exp, g, shape, Compute::bf16);
  const DeviceActivation dq(q), dk(k), dv(v);
  const auto y = attention_forward(dq, dk, dv, shape);
  const auto gradients = attention_backward(dq, dk, dv, y.y, y.log_sum_exp, DeviceActivation(g), shape);
  const bool near = is_near(to_host(y.y), forward.y, 0x1p-6) && is_near(to_host(y.log_sum_exp), forward.log_sum_exp, 0x1p-7) &&
                    is_near(to_host(gradients.dq), backward.dq, 0x1p-5) && is_near(to_host(gradients.dk), backward.dk, 0x1p-5) &&
                    is_near(to_host(gradients.dv), backward.dv, 0x1p-5);
  expect(near, concat("attention with heads of ", shape.head_size));
}

void test_elementwise() {
  const auto x = random_matrix(300, 17, 1), g = random_matrix(300, 17, 2);
  Parameter<float> w;
  w.value = random_matrix(300, 1, 3);
  const Column<float> weight = w.value;
  const DeviceActivation dx(x), dg(g);
  expect(is_near(to_host(cuda::rms_norm_forward(dx, w, 1e-5f)), rms_norm_forward(x, weight, 1e-5f), 1e-5), "RMSNorm");
  expect(is_near(to_host(cuda::rms_norm_backward(dx, w, 1e-5f, dg)), rms_norm_backward(x, weight, 1e-5f, g).dx, 1e-5),
         "RMSNorm's gradient");
  const auto expected = swiglu_backward(x, g, x);
  const auto gradients = swiglu_backward(dx, dg, dx);
  expect(is_near(to_host(swiglu_forward(dx, dg)), swiglu_forward(x, g), 1e-5), "SwiGLU");
  expect(is_near(to_host(gradients.dgate), expected.dgate, 1e-5) && is_near(to_host(gradients.dup), expected.dup, 1e-5),
         "SwiGLU's gradients");
  std::vector<std::int32_t> targets(17);
  for (std::size_t t = 0; t < 17; ++t) targets[t] = static_cast<std::int32_t>(13 * t);
  Tape<float, Cuda> tape;
  const auto logits = tape.variable(dx);
  const auto loss = cross_entropy(logits, targets);
  tape.backward(loss);
  expect(std::abs(loss.item() - negative_log_likelihood(x, targets).mean()) < 1e-4f, "cross-entropy");
  expect(is_near(to_host(tape.gradient(logits)), cross_entropy_backward(x, targets), 1e-5), "cross-entropy's gradient");
}

}  // namespace

int main() {
  if (!cuda::is_available()) {
    std::printf("skipped: no NVIDIA GPU of compute capability 8.0 or more here\n");
    return 77;
  }
  const cuda::Use use(cuda::open_gpu());
  test_products<Nf4<64>>(576, 320, 8);
  test_products<Nf4<64, DoubleQuant>>(576, 320, 20);
  test_products<Fp4<64>>(128, 70, 8);
  test_products<Q4_0>(576, 320, 8);
  test_products<Q4_1>(96, 130, 8);
  test_products<Q8_0>(576, 320, 8);
  test_products<Nf4<64>>(40, 40, 8);  // rows that hold no whole chunks: bfloat16
  test_paths<Nf4<64>>(330, 576, 16);
  test_paths<Q8_0>(330, 576, 8);
  test_outer(40);
  test_outer(300);
  test_decode({8, 2, 128, 2}, 3000);
  test_decode({5, 1, 256, 1}, 700);
  test_attention({4, 2, 32, 2}, 65, 70);
  test_attention({3, 1, 64, 1}, 130, 130);
  test_attention({2, 2, 128, 1}, 70, 100);
  test_elementwise();
  std::printf("%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
