/// Under any flags: codes of 4 bits are right, a layer trains, and what is wrong is refused by an exception. Exit status 0, or 1 with the
/// lines that fail on stderr.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>

#include <lowrank/core/tensor.hpp>
#include <lowrank/lowrank.hpp>
#include <lowrank/ops/decompose.hpp>

using namespace lowrank;

namespace {

int failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  ++failures;
}

template <class Kind, class Body>
void expect_thrown(const Body& body, const char* what) {
  try {
    body();
  } catch (const Kind&) {
    return;
  }
  expect(false, what);
}

Weight<float> numbers(Index rows, Index cols) {
  Weight<float> w(rows, cols);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>((i * 37) % 101 - 50) / 25.0f;
  return w;
}

template <class Format>
void check_codes(double most, const char* what) {
  for (const kernels::Target* target : kernels::targets()) {
    if (!target->is_available()) continue;
    kernels::set_target(*target);
    const Weight<float> w = numbers(3, 64);
    expect(quantization_error(w, quantize<Format>(w)).relative < most, what);
    expect_thrown<ValueError>(
        [&] {
          Weight<float> wrong = w;
          wrong(1, 5) = std::numeric_limits<float>::quiet_NaN();
          (void)quantize<Format>(wrong);
        },
        "NaN is quantized");
    expect_thrown<ValueError>(
        [&] {
          Weight<float> wrong = w;
          wrong(2, 63) = -std::numeric_limits<float>::infinity();
          (void)quantize<Format>(wrong);
        },
        "infinity is quantized");
  }
}

void check_training() {
  LoraLinear layer{QuantizedLinear<Nf4<64>>{quantize<Nf4<64>>(numbers(24, 64))}, {.rank = 4, .dropout = 0.1}};
  const Activation<float> x = numbers(64, 5), wanted = Activation<float>::Constant(24, 5, 0.5f);
  AdamW optimizer{parameters(layer), {.learning_rate = 1e-2f}};
  float first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    Tape tape;
    const Var loss = mse(layer(tape.input(x)), wanted);
    tape.backward(loss);
    last = loss.value()(0, 0);
    if (step == 0) first = last;
    clip_gradient_norm(parameters(layer), 1.0f);
    optimizer.step();
  }
  expect(is_finite(first) && is_finite(last) && last < 0.9f * first, "training lowers no loss");
}

void check_checks() {
  const volatile std::uint32_t bits = 0x7fc00000u;  // as if it were read: no compiler knows the number
  const float small_nan = bit_cast<float>(std::uint32_t{bits});
  const double nan = bit_cast<double>(std::uint64_t{bits} << 32 | 0xfff0000000000000u);
  expect_thrown<ValueError>([&] { LoraLinear{Linear<float>(4, 4), {.rank = 2, .alpha = nan}}; }, "alpha is NaN");
  expect_thrown<ValueError>([&] { LoraLinear{Linear<float>(4, 4), {.rank = 2, .dropout = nan}}; }, "dropout is NaN");
  expect_thrown<ValueError>([&] { (void)dropout_forward(numbers(4, 4), nan, {}); }, "a probability is NaN");
  expect_thrown<ValueError>([&] { (void)thin_svd(Eigen::MatrixXd::Constant(3, 3, nan)); }, "NaN is decomposed");
  LoraLinear layer{Linear<float>(4, 4), {.rank = 2}};
  expect_thrown<ValueError>([&] { AdamW{parameters(layer), {.learning_rate = small_nan}}; }, "a learning rate is NaN");
  expect_thrown<ValueError>([&] { AdamW{parameters(layer), {.beta1 = small_nan}}; }, "beta1 is NaN");
  expect_thrown<ValueError>([&] { clip_gradient_norm(parameters(layer), small_nan); }, "a bound is NaN");
  layer.a().grad = Weight<float>::Constant(2, 4, small_nan);
#if !defined(__clang__)  // which may make anything of arithmetic with NaN
  expect(!is_finite(clip_gradient_norm(parameters(layer), 1.0f)), "a norm of NaN is a number");
#endif
  expect_thrown<ShapeError>([] { Linear<float>(-1, 4); }, "a layer has -1 inputs");
  expect_thrown<ShapeError>([] { (void)to_floats({"x", DType::f32, {10, 100}, Buffer::allocate(4)}); }, "4 bytes are read as 1000 numbers");
}

}  // namespace

int main() {
  check_codes<Nf4<64>>(0.1, "NF4");
  check_codes<Fp4<64>>(0.13, "FP4");
  check_codes<Q4_0>(0.12, "Q4_0");
  check_codes<Q4_1>(0.12, "Q4_1");
  check_codes<Q8_0>(0.01, "Q8_0");
  check_training();
  check_checks();
  return failures == 0 ? 0 : 1;
}
