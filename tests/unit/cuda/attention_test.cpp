#include <lowrank/cuda/kernels/attention_backward.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/ops/attention.hpp>

#include <support/model_gpu.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

Activation<float> rounded_matrix(Index rows, Index cols, std::uint64_t stream, float scale = 1) {
  Activation<float> m(rows, cols);
  const auto numbers = random_numbers(rows * cols, stream, -scale, scale);
  for (std::size_t i = 0; i < numbers.size(); ++i) m.data()[i] = BFloat16(numbers[i]);
  return m;
}

double difference(const std::vector<float>& all, std::size_t at, const Activation<double>& expected) {
  const Eigen::Map<const Activation<float>> part(all.data() + at, expected.rows(), expected.cols());
  return (part.cast<double>() - expected).cwiseAbs().maxCoeff() / std::max(1e-30, expected.cwiseAbs().maxCoeff());
}

/// Forward and backward against the formulas in double; inputs are bfloat16 numbers, so that only the probabilities and their gradients,
/// which the kernels round to bfloat16 for the second product, make an error of 2^-9 a term.
template <int Size>
void check(const AttentionShape& shape, Index queries, Index keys) {
  CAPTURE(queries);
  CAPTURE(keys);
  CAPTURE(shape.head_size);
  const Index width = shape.heads * shape.head_size, tokens = shape.batch.count() * queries, kv_width = shape.kv_heads * shape.head_size;
  const auto q = rounded_matrix(width, tokens, 1, 3), k = rounded_matrix(kv_width, shape.batch.count() * keys, 2),
             v = rounded_matrix(kv_width, shape.batch.count() * keys, 3), g = rounded_matrix(width, tokens, 4);
  const Activation<double> dq = q.cast<double>(), dk = k.cast<double>(), dv = v.cast<double>(), dg = g.cast<double>();
  const auto forward = attention_forward(dq, dk, dv, shape);
  const auto backward = attention_backward(dq, dk, dv, forward.y, forward.log_sum_exp, dg, shape);

  const auto all = on_every_schedule([&](Machine& machine) {
    const auto size_q = static_cast<std::size_t>(q.size()), size_k = static_cast<std::size_t>(k.size()),
               rows = static_cast<std::size_t>(shape.heads * tokens);
    std::vector<float> out(2 * size_q + 2 * size_k + rows), delta(rows);
    cuda::AttentionArrays a{q.data(),
                            k.data(),
                            v.data(),
                            static_cast<int>(shape.heads),
                            static_cast<int>(shape.kv_heads),
                            static_cast<int>(shape.head_size),
                            static_cast<int>(shape.batch.count()),
                            static_cast<int>(queries),
                            static_cast<int>(keys)};
    a.y = out.data();
    a.log_sum_exp = a.y + size_q;
    a.dq = a.log_sum_exp + rows;
    a.dk = a.dq + size_q;
    a.dv = a.dk + size_k;
    a.g = g.data();
    a.delta = delta.data();
    launch(machine, cuda::AttentionForwardKernel<Size>{a});
    launch(machine, cuda::AttentionDelta{a});
    launch(machine, cuda::AttentionBackwardKeys<Size>{a});
    launch(machine, cuda::AttentionBackwardQueries<Size>{a});
    return out;
  });
  const auto size_q = static_cast<std::size_t>(q.size()), size_k = static_cast<std::size_t>(k.size()),
             rows = static_cast<std::size_t>(shape.heads * tokens);
  CHECK(difference(all, 0, forward.y) < 0x1p-8);
  CHECK(difference(all, size_q, forward.log_sum_exp) < 1e-6);
  CHECK(difference(all, size_q + rows, backward.dq) < 0x1p-7);
  CHECK(difference(all, 2 * size_q + rows, backward.dk) < 0x1p-7);
  CHECK(difference(all, 2 * size_q + rows + size_k, backward.dv) < 0x1p-7);
}

cuda::AttentionArrays arrays_of(const AttentionShape& shape, Index queries, Index keys) {
  cuda::AttentionArrays a;
  a.heads = static_cast<int>(shape.heads), a.kv_heads = static_cast<int>(shape.kv_heads), a.head_size = static_cast<int>(shape.head_size);
  a.batch = static_cast<int>(shape.batch.count()), a.queries = static_cast<int>(queries), a.keys = static_cast<int>(keys);
  return a;
}

/// One query over a cache, in fp32, by the kernels that launch_attention picks.
void check_decode(const AttentionShape& shape, Index keys, Index room, int launches) {
  CAPTURE(keys);
  CAPTURE(shape.head_size);
  const Index width = shape.heads * shape.head_size, kv_width = shape.kv_heads * shape.head_size;
  const auto q = rounded_matrix(width, shape.batch.count(), 1, 3), k = rounded_matrix(kv_width, shape.batch.count() * keys, 2),
             v = rounded_matrix(kv_width, shape.batch.count() * keys, 3);
  const auto expected = attention_forward(Activation<double>(q.cast<double>()), Activation<double>(k.cast<double>()),
                                          Activation<double>(v.cast<double>()), shape);
  const auto all = on_every_schedule([&](Machine& machine) {
    const auto size = static_cast<std::size_t>(q.size()), rows = static_cast<std::size_t>(shape.heads * shape.batch.count());
    std::vector<float> out(size + rows), scratch(static_cast<std::size_t>(room));
    cuda::AttentionArrays a = arrays_of(shape, 1, keys);
    a.q = q.data(), a.k = k.data(), a.v = v.data(), a.y = out.data(), a.log_sum_exp = out.data() + size;
    simt_test::ModelGpu gpu(machine.schedule());
    gpu.claims.multiprocessors = 132;
    cuda::launch_attention(gpu, a, {scratch.data(), room});
    CHECK(gpu.launches == launches);
    return out;
  });
  CHECK(difference(all, 0, expected.y) < (launches == 2 ? 1e-5 : 0x1p-8));
  CHECK(difference(all, static_cast<std::size_t>(q.size()), expected.log_sum_exp) < 1e-6);
}

}  // namespace

TEST_CASE("one query over a cache: keys in pieces, heads that share them, every head size") {
  check_decode({1, 1, 32, 1}, 1, 1 << 12, 2);
  check_decode({8, 2, 64, 2}, 700, 1 << 16, 2);
  check_decode({5, 1, 100, 1}, 530, 1 << 16, 2);
  check_decode({2, 1, 256, 1}, 1100, 1 << 16, 2);
  check_decode({4, 2, 24, 3}, 3, 0, 1);  // no scratch: the kernel for many queries
  check_decode({2, 1, 200, 1}, 70, 0, 1);
}

TEST_CASE("attention refuses heads that its kernels have no room for") {
  simt_test::ModelGpu gpu;
  CHECK_THROWS_WITH_AS(cuda::launch_attention(gpu, arrays_of({2, 2, 33, 1}, 1, 1)), doctest::Contains("heads of 33"), ShapeError);
  CHECK_THROWS_AS(cuda::launch_attention(gpu, arrays_of({2, 2, 258, 1}, 1, 1)), ShapeError);
  CHECK_THROWS_AS(cuda::launch_attention_backward(gpu, arrays_of({2, 2, 256, 1}, 1, 1)), ShapeError);
  CHECK_THROWS_AS(cuda::launch_attention(gpu, arrays_of({3, 2, 32, 1}, 1, 1)), ShapeError);
  CHECK_THROWS_AS(cuda::launch_attention(gpu, arrays_of({2, 2, 32, 1}, 2, 1)), ShapeError);
  CHECK(gpu.launches == 0);
}

TEST_CASE("attention and its gradients: ragged sizes, shared key heads, batches, a cache") {
  check<32>({1, 1, 32, 1}, 1, 1);
  check<32>({2, 1, 24, 1}, 5, 5);
  check<32>({4, 2, 32, 2}, 65, 70);
  check<32>({3, 3, 8, 1}, 2, 130);
  check<64>({2, 1, 64, 1}, 66, 66);
  check<128>({1, 1, 100, 1}, 20, 33);
}
