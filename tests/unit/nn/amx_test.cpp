#if defined(__x86_64__)

#include <doctest/doctest.h>

#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn.hpp>
#include <lowrank/quant.hpp>

#include <unit/kernels/amx_model.hpp>

// Whole layers on the model of AMX's tiles, whose parts of the depth begin at multiples of 32, beside the same on AVX-512 with BF16.

using namespace lowrank;

namespace {

/// All numbers that a recorded pass gives, in one row.
using Numbers = std::vector<float>;

template <class Matrix>
void append(Numbers& numbers, const Matrix& matrix) {
  for (Index j = 0; j < matrix.cols(); ++j)
    for (Index i = 0; i < matrix.rows(); ++i) numbers.push_back(matrix(i, j));
}

Activation<float> numbers_of(Index rows, Index cols, std::uint64_t seed) {
  Random random(seed);
  Activation<float> x(rows, cols);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = random.uniform(-1.0f, 1.0f);
  return x;
}

template <class Layer>
Numbers pass(Layer& layer, Index in, Index tokens) {
  layer.base().set_compute(Compute::bf16);
  Tape<float> tape;
  const Var<float> x = tape.variable(numbers_of(in, tokens, 1));
  const Var<float> y = layer(x);
  Numbers numbers;
  append(numbers, y.value());
  tape.backward(y, numbers_of(y.rows(), tokens, 2));
  append(numbers, tape.gradient(x));
  for (auto& parameter : parameters(layer)) {
    numbers.insert(numbers.end(), parameter.grad().begin(), parameter.grad().end());
    std::ranges::fill(parameter.grad(), 0.0f);
  }
  return numbers;
}

/// Attention and a loss over a frozen head, in bf16.
Numbers attention_and_loss(Index tokens) {
  const AttentionShape shape{6, 2, 20, 1};
  Tape<float> tape;
  const Var<float> q = tape.variable(numbers_of(120, tokens, 3)), k = tape.variable(numbers_of(40, tokens, 4));
  const Var<float> v = tape.variable(numbers_of(40, tokens, 5)), y = attention(q, k, v, shape, Compute::bf16);
  const Activation<float> head = numbers_of(120, 77, 6);  // column-major: [77, 120] row-major
  std::vector<std::int32_t> targets(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < targets.size(); ++t) targets[t] = static_cast<std::int32_t>(7 * t % 77);
  const Var<float> loss = linear_cross_entropy(DenseSource<float>(head.data(), 77, 120), y, targets, Compute::bf16);
  tape.backward(loss);
  Numbers numbers{loss.item()};
  append(numbers, y.value());
  for (const Var<float>& input : {q, k, v}) append(numbers, tape.gradient(input));
  return numbers;
}

/// Results on the model are those of AVX-512 with BF16 but for what sums in another order, and a rounding of H = A X that it tips, change.
template <class Run>
void check_on_model(const Run& run) {
  if (!amx_model::target.is_available()) return;
  const kernels::Target& chosen = kernels::current_target();
  kernels::set_target(kernels::avx512bf16::target);
  const Numbers expected = run();
  kernels::set_target(amx_model::target);
  const Numbers found = run();
  kernels::set_target(chosen);
  REQUIRE(found.size() == expected.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    error += (static_cast<double>(found[i]) - expected[i]) * (static_cast<double>(found[i]) - expected[i]);
    size += static_cast<double>(expected[i]) * expected[i];
  }
  CHECK(error <= 1e-6 * size);  // a number of 2⁻⁹ off is no fault, a lost block of depth is
  CHECK(size > 0);
}

}  // namespace

TEST_CASE("AMX: layers with updates of ragged ranks, forward and backward") {
  for (const Index tokens : {9, 33, 130})
    for (const Index rank : {1, 5, 16, 33}) {
      CAPTURE(tokens);
      CAPTURE(rank);
      const Weight<float> w = numbers_of(192, 83, 7).transpose();  // [83, 192]
      LoraLinear lora{QuantizedLinear{quantize<Nf4<64>>(w)}, {.rank = rank, .alpha = 8}};
      DoraLinear dora{QuantizedLinear{quantize<Q4_1>(w)}, {.rank = rank, .alpha = 8}};
      for (Parameter<float>* b : {&lora.b(), &dora.b()}) b->value = numbers_of(rank, 83, 8).transpose();
      check_on_model([&] { return pass(lora, 192, tokens); });
      check_on_model([&] { return pass(dora, 192, tokens); });
    }
}

TEST_CASE("AMX: attention and the loss of a frozen head") {
  for (const Index tokens : {9, 33, 130}) {
    CAPTURE(tokens);
    check_on_model([&] { return attention_and_loss(tokens); });
  }
}

#endif  // defined(__x86_64__)
