#include <doctest/doctest.h>

#include <lowrank/core/random.hpp>
#include <lowrank/ops/lora_together.hpp>
#include <lowrank/quant/any_matrix.hpp>

using namespace lowrank;

namespace {

Weight<float> drawn_weight(Index rows, Index cols, std::uint64_t seed) {
  Weight<float> m(rows, cols);
  Random random(seed);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal();
  return m;
}

/// A source that can do nothing but decode, so that kernels reach it through a pointer.
struct Plain {
  Weight<float> w;
  Index rows() const { return w.rows(); }
  Index cols() const { return w.cols(); }
  std::size_t bytes() const { return 0; }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    DenseSource<float>(w.data(), w.rows(), w.cols()).decode(row, count, col, length, out, stride);
  }
};

}  // namespace

TEST_CASE("lora_backward_together: a weight that can only be decoded gives what the dense one gives") {
  const Index in = 70, out = 50, tokens = 40, r = 4;
  const Weight<float> w = drawn_weight(out, in, 1), a = drawn_weight(r, in, 2), b = drawn_weight(out, r, 3);
  const AnyMatrix opaque(Plain{w});
  const LowRank<float> update{{a.data(), r, in}, {b.data(), out, r}, 1.5f};
  const Activation<float> x = drawn_weight(in, tokens, 4), g = drawn_weight(out, tokens, 5);
  const std::vector<AdaptedWeight> first{{opaque, update}, {opaque, std::nullopt}},
      second{{DenseSource<float>(w.data(), out, in), update}, {DenseSource<float>(w.data(), out, in), std::nullopt}};
  const std::vector<Activation<float>> gradients{g, g};
  const auto forward = lora_forward_together(first, x, Compute::fp32), dense = lora_forward_together(second, x, Compute::fp32);
  CHECK((forward.y[1] - dense.y[1]).norm() < 1e-5f * dense.y[1].norm());
  const auto from = lora_backward_together(first, x, forward.h, gradients, true, Compute::fp32);
  const auto wanted = lora_backward_together(second, x, dense.h, gradients, true, Compute::fp32);
  CHECK((from.dx - wanted.dx).norm() < 1e-5f * wanted.dx.norm());
  CHECK((from.da[0] - wanted.da[0]).norm() < 1e-5f * wanted.da[0].norm());
}
