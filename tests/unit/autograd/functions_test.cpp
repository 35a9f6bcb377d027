#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/gradcheck.hpp>

using namespace lowrank;

namespace {

using Vars = std::vector<Var<double>>;

Activation<double> random(Index rows, Index cols, std::uint64_t seed) {
  Random numbers(seed);
  return Activation<double>::NullaryExpr(rows, cols, [&] { return static_cast<double>(numbers.uniform(-1, 1)); });
}

// Central differences in double are right to about epsilon^(2/3) = 4e-11 times the curvature of these functions.
template <class F>
void check_gradients(const F& f, std::vector<Activation<double>> inputs, std::vector<ParameterRef<double>> parameters = {}) {
  const auto report = gradcheck(f, std::move(inputs), std::move(parameters));
  INFO(report.where);
  CHECK(report.worst < 2e-9);
}

}  // namespace

TEST_CASE("gradients of arithmetic") {
  check_gradients([](const Vars& v) { return v[0] + v[1]; }, {random(3, 4, 1), random(3, 4, 2)});
  check_gradients([](const Vars& v) { return v[0] + v[0]; }, {random(3, 4, 1)});
  check_gradients([](const Vars& v) { return v[0] * v[1] + v[0]; }, {random(3, 4, 1), random(3, 4, 2)});
  check_gradients([](const Vars& v) { return v[0] * v[0]; }, {random(2, 2, 3)});
  check_gradients([](const Vars& v) { return scale(v[0], -2.5); }, {random(2, 3, 4)});
  check_gradients([](const Vars& v) { return sum(v[0] * v[0]); }, {random(2, 3, 5)});
}

TEST_CASE("gradients of activations") {
  const std::vector<Activation<double>> x{2.0 * random(5, 7, 6)};
  check_gradients([](const Vars& v) { return relu(v[0]); }, x);
  check_gradients([](const Vars& v) { return silu(v[0]); }, x);
  check_gradients([](const Vars& v) { return gelu(v[0]); }, x);
  check_gradients([](const Vars& v) { return gelu_tanh(v[0]); }, x);
  check_gradients([](const Vars& v) { return swiglu(v[0], v[1]); }, {random(5, 3, 7), random(5, 3, 8)});
  check_gradients([](const Vars& v) { return dropout(v[0], 0.4, {.seed = 3, .stream = 5}); }, {random(9, 5, 9)});
}

TEST_CASE("gradients of rms_norm and its weight") {
  Parameter<double> weight{"norm", random(6, 1, 10)};
  const auto norm = [&](const Vars& v) { return rms_norm(v[0], weight, 1e-5); };
  check_gradients(norm, {random(6, 4, 11)}, {reference(weight)});
  weight.trainable = false;
  weight.zero_grad();
  check_gradients(norm, {random(6, 4, 11)});
  CHECK(weight.grad.isZero(0));
}

TEST_CASE("gradients of rope") {
  const std::vector<Index> positions{0, 3, 17};
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
    const RopeOptions options{.head_size = 4, .base = 100, .pairs = pairs};
    check_gradients([&](const Vars& v) { return rope(v[0], positions, options); }, {random(8, 3, 12)});
  }
}

TEST_CASE("gradients of attention, keys more than queries, grouped heads, two sequences") {
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_size = 3, .batch = 2};
  check_gradients([&](const Vars& v) { return attention(v[0], v[1], v[2], shape); },
                  {random(12, 2 * 3, 13), random(6, 2 * 5, 14), random(6, 2 * 5, 15)});
}

TEST_CASE("gradients of attention and rope over texts of unequal lengths, each of which begins anew") {
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_size = 4, .batch = Sequences::with_lengths({3, 1, 4})};
  const std::vector<Index> positions = shape.batch.positions("test", 8);
  const RopeOptions options{.head_size = 4, .base = 100};
  const auto attend = [&](const Vars& v) { return attention(rope(v[0], positions, options), rope(v[1], positions, options), v[2], shape); };
  check_gradients(attend, {random(16, 8, 13), random(8, 8, 14), random(8, 8, 15)});
}

TEST_CASE("gradients of losses, ignored targets included") {
  const std::vector<std::int32_t> targets{1, ignored_target, 4, 0};
  check_gradients([&](const Vars& v) { return cross_entropy(v[0], targets); }, {3.0 * random(5, 4, 16)});
  check_gradients([&](const Vars& v) { return mse(v[0], random(5, 4, 17)); }, {random(5, 4, 18)});

  Parameter<double> head{"head", random(5, 3, 19)};
  check_gradients([&](const Vars& v) { return scale(linear_cross_entropy(head, v[0], targets), 2.0); }, {random(3, 4, 20)},
                  {reference(head)});
  const DenseSource<double> frozen(head.value.data(), 5, 3);
  check_gradients([&](const Vars& v) { return linear_cross_entropy(frozen, v[0], targets); }, {random(3, 4, 21)});
}

TEST_CASE("linear_cross_entropy equals cross_entropy of the logits, no counted target gives zero") {
  const auto w = random(7, 3, 22), x = random(3, 5, 23);
  const Weight<double> rows = w;
  const DenseSource<double> head(rows.data(), 7, 3);
  const std::vector<std::int32_t> targets{6, 0, ignored_target, 2, 2}, none(5, ignored_target);
  const double sliced = linear_cross_entropy(head, Var{Activation<double>(x)}, targets).item();
  const double whole = cross_entropy(Var{Activation<double>(w * x)}, targets).item();
  CHECK(std::abs(sliced - whole) <= 8 * std::numeric_limits<double>::epsilon() * whole);
  Tape<double> tape;
  const auto v = tape.variable(x);
  const auto loss = linear_cross_entropy(head, v, none);
  CHECK(loss.item() == 0);
  tape.backward(loss);
  CHECK(tape.gradient(v).isZero(0));
}

TEST_CASE("gradcheck finds a wrong gradient and says where") {
  const auto wrong = [](const Vars& v) {
    return record(Activation<double>(v[0].value() * 2), {v[0]}, [](auto& flow) { flow.add(0, flow.gradient() * 2.001); });
  };
  const auto report = gradcheck(wrong, {random(2, 2, 24)});
  CHECK(report.worst > 1e-4);
  CHECK(report.where.find("input 0 number ") == 0);
}

TEST_CASE("targets of other integer types are those of 32 bits") {
  const auto x = random(7, 3, 25);
  Parameter<double> head{"head", random(7, 7, 26)};
  const DenseSource<double> frozen(head.value.data(), 7, 7);
  const std::vector<std::int32_t> targets{6, ignored_target, 2};
  const std::vector<long> wide(targets.begin(), targets.end());
  const Eigen::Matrix<short, 3, 1> narrow{short{6}, short{ignored_target}, short{2}};
  const double loss = cross_entropy(Var{x}, targets).item(), linear = linear_cross_entropy(head, Var{x}, targets).item();
  CHECK(cross_entropy(Var{x}, wide).item() == loss);
  CHECK(cross_entropy(Var{x}, narrow).item() == loss);
  CHECK(linear_cross_entropy(head, Var{x}, wide).item() == linear);
  CHECK(linear_cross_entropy(frozen, Var{x}, wide, Compute::fp32).item() == linear);
  check_gradients([&](const Vars& v) { return cross_entropy(v[0], wide); }, {x});
  check_gradients([&](const Vars& v) { return linear_cross_entropy(head, v[0], wide); }, {x}, {reference(head)});
  const std::vector<long> far{0, 1L << 40, 2};
  CHECK_THROWS_WITH_AS(cross_entropy(Var{x}, far), doctest::Contains("target 1099511627776 at token 1 is no class"), ValueError);
}
