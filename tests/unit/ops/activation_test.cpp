#include <doctest/doctest.h>

#include <vector>

#include <lowrank/ops/activation.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

template <class Forward, class Backward>
double backward_error(const Forward& forward, const Backward& backward) {
  Activation<double> x = 3 * random_matrix<Activation<double>>(9, 5, 1);
  const auto g = random_matrix<Activation<double>>(9, 5, 2);
  return gradient_error(x, backward(x, g), [&] { return forward(x).cwiseProduct(g).sum(); });
}

}  // namespace

TEST_CASE("element-wise backward functions equal finite differences") {
  const auto check_pair = [](const char* name, auto forward, auto backward) {
    CAPTURE(name);
    CHECK(backward_error(forward, backward) < gradient_tolerance);
  };
  using X = Activation<double>;
  check_pair(
      "relu", [](const X& x) { return relu_forward(x); }, [](const X& x, const X& g) { return relu_backward(x, g); });
  check_pair(
      "silu", [](const X& x) { return silu_forward(x); }, [](const X& x, const X& g) { return silu_backward(x, g); });
  check_pair(
      "gelu", [](const X& x) { return gelu_forward(x); }, [](const X& x, const X& g) { return gelu_backward(x, g); });
  check_pair(
      "gelu_tanh", [](const X& x) { return gelu_tanh_forward(x); }, [](const X& x, const X& g) { return gelu_tanh_backward(x, g); });
  const DropoutKey key{3, 4};
  check_pair(
      "dropout", [key](const X& x) { return dropout_forward(x, 0.4, key); },
      [key](const X&, const X& g) { return dropout_backward(g, 0.4, key); });
}

TEST_CASE("swiglu_backward equals finite differences, swiglu is silu(gate) up") {
  auto gate = random_matrix<Activation<double>>(17, 3, 3), up = random_matrix<Activation<double>>(17, 3, 4);
  const auto g = random_matrix<Activation<double>>(17, 3, 5);
  const auto loss = [&] { return swiglu_forward(gate, up).cwiseProduct(g).sum(); };
  const auto [dgate, dup] = swiglu_backward(gate, up, g);
  CHECK(gradient_error(gate, dgate, loss) < gradient_tolerance);
  CHECK(gradient_error(up, dup, loss) < gradient_tolerance);
  CHECK(largest_difference(swiglu_forward(gate, up), silu_forward(gate).cwiseProduct(up)) < 1e-15);
  CHECK_THROWS_WITH_AS(swiglu_forward(gate, up.topRows(3)), doctest::Contains("gate is [17, 3] but up is [3, 3]"), ShapeError);
}

TEST_CASE("a gated unit reads tokens in bfloat16 as if they had been widened first") {
  const auto g = random_matrix<Activation<float>>(37, 5, 3);
  std::vector<std::uint16_t> gate_bits(37 * 5), up_bits(37 * 5);
  Activation<float> gate(37, 5), up(37, 5);
  const Random random(11, 1);
  for (std::size_t i = 0; i < gate_bits.size(); ++i) {
    const BFloat16 a(4 * random.uniform_at(2 * i) - 2), b(4 * random.uniform_at(2 * i + 1) - 2);
    gate_bits[i] = a.bits, up_bits[i] = b.bits;
    gate.data()[i] = a, up.data()[i] = b;
  }
  const Tokens<float> rounded_gate(gate_bits.data(), 37, 5), rounded_up(up_bits.data(), 37, 5);
  CHECK(swiglu_forward(rounded_gate, rounded_up) == swiglu_forward(gate, up));
  const auto expected = swiglu_backward(gate, up, g), found = swiglu_backward(rounded_gate, rounded_up, ActivationView<float>(g));
  CHECK(found.dgate == expected.dgate);
  CHECK(found.dup == expected.dup);
  CHECK_THROWS_AS(swiglu_forward(rounded_gate, Tokens<float>(up_bits.data(), 36, 5)), ShapeError);
}

TEST_CASE("known values and the far ends") {
  Activation<float> x(8, 1);
  x << 0, 1, -1, 1e4f, -1e4f, 1e30f, -1e30f, 100;
  const Activation<float> silu = silu_forward(x), gelu = gelu_forward(x), tanh_form = gelu_tanh_forward(x);
  CHECK(silu.allFinite());
  CHECK(gelu.allFinite());
  CHECK(silu(1, 0) == doctest::Approx(0.7310585786).epsilon(1e-6));
  CHECK(gelu(1, 0) == doctest::Approx(0.8413447461).epsilon(1e-6));
  CHECK(tanh_form(1, 0) == doctest::Approx(0.8411919906).epsilon(1e-6));
  CHECK(silu(3, 0) == 1e4f);
  CHECK(std::abs(silu(4, 0)) < 1e-25f);
  CHECK(silu_backward(x, Activation<float>::Ones(8, 1)).allFinite());
  CHECK(silu_forward(Activation<float>(4, 0)).cols() == 0);
}

TEST_CASE("dropout keeps the stated share, depends on the key alone and is unbiased") {
  const Activation<float> ones = Activation<float>::Ones(97, 401);
  const Activation<float> y = dropout_forward(ones, 0.25, {7, 1});
  const double kept = static_cast<double>((y.array() != 0.0f).count()) / static_cast<double>(y.size());
  CHECK(std::abs(kept - 0.75) < 5 * std::sqrt(0.25 * 0.75 / static_cast<double>(y.size())));  // five standard deviations
  CHECK(((y.array() == 0.0f) || (y.array() == 1 / 0.75f)).all());
  CHECK(y == dropout_forward(ones, 0.25, {7, 1}));
  CHECK(y != dropout_forward(ones, 0.25, {7, 2}));
  CHECK(y != dropout_forward(ones, 0.25, {8, 1}));
  CHECK(dropout_forward(ones, 0.0, {}) == ones);
  const Random random(7, 1);
  for (Index i = 0; i < 200; ++i) CHECK((y.data()[i] == 0.0f) == (random.uniform_at(static_cast<std::uint64_t>(i)) < 0.25f));
  CHECK(same_for_any_thread_count([&] { return dropout_forward(ones, 0.25, {7, 1}); }));
  CHECK_THROWS_AS(dropout_forward(ones, 1.0, {}), ValueError);
  CHECK_THROWS_AS(dropout_forward(ones, -0.1, {}), ValueError);
}
