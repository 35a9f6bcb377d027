// Holds the kernels against the CPU, on a real device; where there is none it says so and counts as skipped (exit 77).
// Their indices, masks and barriers are tested without a device in tests/unit/cuda.
#include <cmath>
#include <cstdio>

#include <lowrank/cuda/query.hpp>
#include <lowrank/lowrank.hpp>

#include "device.hpp"

using namespace lowrank;
using device::Floats;

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

template <class Matrix>
Floats numbers(const Matrix& m) {
  return {m.data(), m.data() + m.size()};
}

template <class Expected>
bool is_near(const Floats& y, const Expected& expected, double tolerance) {
  double worst = 0, largest = 0;
  if (static_cast<Index>(y.size()) != expected.size()) return false;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double e = static_cast<double>(expected.data()[i]);
    if (!std::isfinite(y[i])) return false;
    worst = std::max(worst, std::abs(static_cast<double>(y[i]) - e));
    largest = std::max(largest, std::abs(e));
  }
  return worst <= tolerance * largest;
}

/// The product of a low-rank layer on every kind of base, both ways, by the paths that are chosen for few tokens and many.
template <class Format>
void test_products(Index cols, Index rows, Index rank) {
  const auto q = quantize<Format>(Weight<float>(random_matrix(cols, rows, 1).transpose()));
  Weight<float> w(rows, cols);
  q.source().decode(0, rows, 0, cols, w.data(), cols);
  for (const bool turned : {false, true})
    for (const Index tokens : {1, 2, 3, 8, 40, 100, 600}) {
      const Index in = turned ? rows : cols, out = turned ? cols : rows;
      const auto x = random_matrix(in, tokens, 2), h = random_matrix(rank, tokens, 3);
      const Weight<float> factor = turned ? random_matrix(out, rank, 4).transpose() : random_matrix(rank, out, 4).transpose();
      const Activation<float> expected =
          turned ? Activation<float>(w.transpose() * x + factor.transpose() * h) : Activation<float>(w * x + factor * h);
      const auto result = device::run_product(cuda::pack(q.source()), turned, numbers(factor), static_cast<int>(rank), numbers(x),
                                              numbers(h), static_cast<int>(tokens));
      expect(is_near(result.y, expected, 0x1p-6),
             concat("low-rank layer on ", Format::name, turned ? ", turned, " : ", ", tokens, " tokens"));
      expect(result.repeats, "the same bits again");
    }
}

/// Every path of a product, both ways, with an adapter: ragged, and more tiles of the depth than stages.
template <class Format>
void test_paths(Index rows, Index cols, Index rank) {
  using Path = cuda::ProductPath;
  constexpr std::pair<Path, const char*> paths[] = {{Path::few, "few tokens"},
                                                    {Path::small, "mma.sync, 64 x 16"},
                                                    {Path::medium, "mma.sync, 128 x 64"},
                                                    {Path::large, "mma.sync, 128 x 128"},
                                                    {Path::wgmma_64, "wgmma, 64"},
                                                    {Path::wgmma_128, "wgmma, 128"},
                                                    {Path::slices, "slices"}};
  const auto q = quantize<Format>(Weight<float>(random_matrix(cols, rows, 1).transpose()));
  Weight<float> w(rows, cols);
  q.source().decode(0, rows, 0, cols, w.data(), cols);
  const auto packed = cuda::pack(q.source());
  for (const bool turned : {false, true})
    for (const Index tokens : {3, 300}) {
      const Index in = turned ? rows : cols, out = turned ? cols : rows;
      const auto x = random_matrix(in, tokens, 2), h = random_matrix(rank, tokens, 3);
      const Weight<float> factor = turned ? random_matrix(out, rank, 4).transpose() : random_matrix(rank, out, 4).transpose();
      const Activation<float> expected =
          turned ? Activation<float>(w.transpose() * x + factor.transpose() * h) : Activation<float>(w * x + factor * h);
      for (const auto& [path, name] : paths) {
        const auto y = device::run_path(packed, path, turned, numbers(factor), static_cast<int>(rank), numbers(x), numbers(h),
                                        static_cast<int>(tokens));
        const std::string what = concat("product on ", Format::name, turned ? ", turned, " : ", ", tokens, " tokens: ", name);
        if (y.empty())
          std::printf("not here: %s\n", what.c_str());
        else
          expect(is_near(y, expected, 0x1p-6), what);
      }
    }
}

void test_outer(Index tokens) {
  const auto left = random_matrix(20, tokens, 1), right = random_matrix(330, tokens, 2);
  const Weight<float> expected = (0.5f * left * right.transpose()).array() + 1;
  const auto c = device::run_outer(numbers(left), numbers(right), 20, 330, static_cast<int>(tokens), 0.5f);
  expect(is_near(c, expected, 0x1p-6), concat("the gradient of a factor, ", tokens, " tokens"));
}

void test_decode(const AttentionShape& shape, Index keys) {
  const Index width = shape.heads * shape.head_size, kv_width = shape.kv_heads * shape.head_size;
  const auto q = random_matrix(width, shape.batch, 1, 3), k = random_matrix(kv_width, shape.batch * keys, 2),
             v = random_matrix(kv_width, shape.batch * keys, 3);
  const auto n = [](Index i) { return static_cast<int>(i); };
  const auto y = device::run_attention_forward({n(shape.heads), n(shape.kv_heads), n(shape.head_size), n(shape.batch), 1, n(keys)},
                                               numbers(q), numbers(k), numbers(v));
  expect(is_near(y, attention_forward(q, k, v, shape).y, 1e-4), concat("one query over ", keys, " keys, heads of ", shape.head_size));
}

void test_attention(const AttentionShape& shape, Index queries, Index keys) {
  const Index width = shape.heads * shape.head_size, kv_width = shape.kv_heads * shape.head_size, tokens = shape.batch * queries;
  const auto q = random_matrix(width, tokens, 1, 3), k = random_matrix(kv_width, shape.batch * keys, 2),
             v = random_matrix(kv_width, shape.batch * keys, 3), g = random_matrix(width, tokens, 4);
  const auto forward = attention_forward(q, k, v, shape, Compute::bf16);
  const auto backward = attention_backward(q, k, v, forward.y, forward.log_sum_exp, g, shape, Compute::bf16);
  const auto n = [](Index i) { return static_cast<int>(i); };
  const auto result = device::run_attention({n(shape.heads), n(shape.kv_heads), n(shape.head_size), n(shape.batch), n(queries), n(keys)},
                                            numbers(q), numbers(k), numbers(v), numbers(g));
  const bool near = is_near(result.y, forward.y, 0x1p-6) && is_near(result.log_sum_exp, forward.log_sum_exp, 0x1p-7) &&
                    is_near(result.dq, backward.dq, 0x1p-5) && is_near(result.dk, backward.dk, 0x1p-5) &&
                    is_near(result.dv, backward.dv, 0x1p-5);
  expect(near, concat("attention with heads of ", shape.head_size));
}

void test_elementwise() {
  const auto x = random_matrix(300, 17, 1), g = random_matrix(300, 17, 2);
  const Vector<float> w = random_matrix(300, 1, 3);
  const auto norm = device::run_norm(numbers(x), numbers(w), numbers(g), 17, 1e-5f);
  expect(is_near(norm.y, rms_norm_forward(x, w, 1e-5f), 1e-5), "RMSNorm");
  expect(is_near(norm.dx, rms_norm_backward(x, w, 1e-5f, g).dx, 1e-5), "RMSNorm's gradient");
  const auto swiglu = device::run_swiglu(numbers(x), numbers(g), numbers(x));
  const auto gradients = swiglu_backward(x, g, x);
  expect(is_near(swiglu.y, swiglu_forward(x, g), 1e-5), "SwiGLU");
  expect(is_near(swiglu.dgate, gradients.dgate, 1e-5) && is_near(swiglu.dup, gradients.dup, 1e-5), "SwiGLU's gradients");
  std::vector<std::int32_t> targets(17);
  for (std::size_t t = 0; t < 17; ++t) targets[t] = static_cast<std::int32_t>(13 * t);
  const auto loss = device::run_cross_entropy(numbers(x), targets, 1.0f / 17);
  expect(is_near(loss.losses, negative_log_likelihood(x, targets), 1e-5), "cross-entropy");
  expect(is_near(loss.gradient, cross_entropy_backward(x, targets), 1e-5), "cross-entropy's gradient");
}

}  // namespace

int main() {
  if (!cuda::is_available()) {
    std::printf("skipped: no NVIDIA GPU of compute capability 8.0 or more here\n");
    return 77;
  }
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
