#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <type_traits>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/parameter.hpp>

using namespace lowrank;

namespace {

Activation<float> filled(Index rows, Index cols, float value) { return Activation<float>::Constant(rows, cols, value); }

template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a chain of 100,000 operations is swept without recursion") {
  Tape tape;
  Var x = tape.variable(filled(1, 1, 3.0f));
  Var y = x;
  for (int i = 0; i < 100'000; ++i) y = scale(std::move(y), i % 2 ? 2.0f : 0.5f);
  CHECK(tape.size() == 100'001);
  tape.backward(y);
  CHECK(tape.gradient(x)(0, 0) == 1.0f);
  CHECK(tape.size() == 0);
}

TEST_CASE("gradients of a value used several times add up") {
  Tape tape;
  Var x = tape.variable(filled(2, 3, 2.0f));
  Var y = sum(x * x + x + scale(x, 3.0f));  // x² + 4x
  CHECK(y.item() == 6 * 12.0f);
  tape.backward(y);
  CHECK(tape.gradient(x) == filled(2, 3, 8.0f));
}

TEST_CASE("operations on constants are not recorded and keep nothing") {
  Tape tape;
  Var x = tape.input(filled(2, 2, 1.0f));
  auto big = detail::share(filled(2, 2, 5.0f));
  std::weak_ptr<Activation<float>> kept = big;
  const Var y = tape.record(filled(2, 2, 2.0f), {x}, [big = std::move(big)](auto&) {});
  CHECK(tape.size() == 0);
  CHECK(kept.expired());
  CHECK_FALSE(y.requires_grad());
  CHECK(y.tape() == &tape);
  CHECK_FALSE(sum(Var{filled(2, 2, 1.0f)} * y).requires_grad());
}

TEST_CASE("an operation with a trainable parameter is recorded even on a constant") {
  Tape tape;
  Parameter<float> p{"p", Weight<float>::Constant(1, 1, 4.0f)};
  Var x = tape.input(filled(1, 1, 3.0f));
  const auto times_p = [&p, x = x.shared()](auto& flow) {
    CHECK_FALSE(flow.needs(0));
    p.gradient() += flow.gradient() * *x;
  };
  Var y = tape.record(filled(1, 1, 12.0f), {x}, times_p, true);
  CHECK(y.requires_grad());
  tape.backward(y);
  CHECK(p.grad(0, 0) == 3.0f);
}

TEST_CASE("values live exactly as long as someone needs them") {
  Tape tape;
  Var x = tape.variable(filled(4, 4, 1.0f));
  std::weak_ptr<const Activation<float>> not_needed, needed;
  Var z;
  {
    Var a = scale(x, 2.0f);  // the sum below does not need it
    Var b = scale(x, 3.0f);  // the product below does
    not_needed = a.shared();
    needed = b.shared();
    z = sum(a + b * b);
  }
  CHECK(not_needed.expired());
  CHECK_FALSE(needed.expired());
  tape.backward(z);
  CHECK(needed.expired());
  CHECK(tape.gradient(x) == filled(4, 4, 20.0f));  // 2 + 2 · 3 · 3
}

TEST_CASE("closures and interior gradients are freed as the sweep passes them") {
  Tape tape;
  Var x = tape.variable(filled(1, 1, 1.0f));
  auto early = detail::share(filled(1, 1, 1.0f)), late = detail::share(filled(1, 1, 1.0f));
  std::weak_ptr<Activation<float>> watch_late = late;
  bool late_was_freed = false;
  Var y = tape.record(filled(1, 1, 1.0f), {x}, [&late_was_freed, watch_late, early](auto& flow) {
    late_was_freed = watch_late.expired();
    flow.add(0, flow.take());
  });
  Var z = tape.record(filled(1, 1, 1.0f), {y}, [late = std::move(late)](auto& flow) { flow.add(0, flow.take()); });
  tape.backward(z);
  CHECK(late_was_freed);
  CHECK(early.use_count() == 1);
}

TEST_CASE("a branch that the loss does not depend on is freed, not swept") {
  Tape tape;
  Var x = tape.variable(filled(1, 1, 1.0f)), unused = tape.variable(filled(2, 1, 1.0f));
  auto held = detail::share(filled(1, 1, 1.0f));
  std::weak_ptr<Activation<float>> watch = held;
  Var loss = sum(x);
  Var later = tape.record(filled(1, 1, 0.0f), {x}, [held = std::move(held)](auto&) { FAIL("swept"); });
  tape.backward(loss);
  CHECK(watch.expired());
  CHECK(tape.gradient(x)(0, 0) == 1.0f);
  CHECK(tape.gradient(unused) == filled(2, 1, 0.0f));
}

TEST_CASE("an operand moved into a sum gives its array to the result") {
  Tape tape;
  Var x = tape.variable(filled(3, 2, 1.0f));
  Var a = scale(x, 2.0f);
  const float* where = a.value().data();
  const Var y = std::move(a) + x;
  CHECK(y.value().data() == where);
  const Var z = x + y;  // both still needed: a new array
  CHECK(z.value().data() != where);
  CHECK(x.value() == filled(3, 2, 1.0f));
  Var b = scale(x, 4.0f);
  where = b.value().data();
  CHECK((x + std::move(b)).value().data() == where);
}

TEST_CASE("the first gradient is moved into its slot, later ones are added in place") {
  Tape tape;
  Var x = tape.variable(filled(2, 2, 1.0f));
  const float* where = nullptr;
  Var y = tape.record(filled(2, 2, 1.0f), {x}, [](auto& flow) { flow.add(0, flow.gradient() * 2.0f); });
  Var z = tape.record(filled(2, 2, 1.0f), {x}, [&where](auto& flow) {
    Activation<float> g = flow.take();
    where = g.data();
    flow.add(0, std::move(g));
  });
  tape.backward(sum(y + z));
  CHECK(tape.gradient(x).data() == where);
  CHECK(tape.gradient(x) == filled(2, 2, 3.0f));
}

TEST_CASE("one tape serves step after step") {
  Tape tape;
  for (int step = 1; step < 4; ++step) {
    Var x = tape.variable(filled(1, 2, static_cast<float>(step)));
    tape.backward(sum(x * x));
    CHECK(tape.gradient(x) == filled(1, 2, 2.0f * static_cast<float>(step)));
    CHECK(tape.size() == 0);
  }
  Var x = tape.variable(filled(1, 1, 1.0f));
  tape.clear();
  CHECK(tape.size() == 0);
  CHECK(contains(message([&] { scale(x, 2.0f); }), "run the forward pass again"));
}

TEST_CASE("backward from an output with a given gradient") {
  Tape tape;
  Var x = tape.variable(filled(2, 1, 1.0f));
  Var y = scale(x, 3.0f);
  CHECK(contains(message([&] { tape.backward(y, filled(1, 2, 1.0f)); }), "the gradient is [1, 2] but the output is [2, 1]"));
  tape.backward(y, filled(2, 1, 5.0f));
  CHECK(tape.gradient(x) == filled(2, 1, 15.0f));
}

TEST_CASE("misuse is an error that says what to do") {
  Tape tape, other;
  Var x = tape.variable(filled(2, 2, 1.0f));
  Var loss = sum(x);
  CHECK(contains(message([&] { tape.backward(x); }), "[backward] the loss is [2, 2] but must be a number"));
  CHECK(contains(message([&] { tape.backward(sum(tape.input(filled(2, 2, 1.0f)))); }), "the loss is a constant"));
  CHECK(contains(message([&] { tape.backward(Var{filled(1, 1, 1.0f)}); }), "the loss is a constant"));
  CHECK(contains(message([&] { other.backward(loss); }), "another tape"));
  CHECK(contains(message([&] { x + other.variable(filled(2, 2, 1.0f)); }), "an input belongs to another tape"));
  CHECK(contains(message([&] { x + tape.input(filled(3, 2, 1.0f)); }), "[add] the operands are [2, 2] and [3, 2]"));
  CHECK(contains(message([&] { tape.gradient(x); }), "call backward() first"));
  tape.backward(loss);
  CHECK(contains(message([&] { tape.backward(loss); }), "run the forward pass again"));
  CHECK(contains(message([&] { tape.gradient(loss); }), "gradients of interior values are freed"));
  CHECK(contains(message([&] { x.item(); }), "[item] the value is [2, 2]"));
  Var moved = std::move(x);
  CHECK(contains(message([&] { x.value(); }), "moved from"));
}

TEST_CASE("a backward function that fails or gives a wrong shape leaves a usable tape") {
  Tape tape;
  Var x = tape.variable(filled(2, 1, 1.0f));
  Var y = tape.record(filled(1, 1, 1.0f), {x}, [](auto& flow) { flow.add(0, flow.take()); });
  CHECK(contains(message([&] { tape.backward(y); }), "the gradient of input 0 is [1, 1] but the input is [2, 1]"));
  CHECK(tape.size() == 0);
  Var again = tape.variable(filled(2, 1, 1.0f));
  tape.backward(sum(again));
  CHECK(tape.gradient(again) == filled(2, 1, 1.0f));
}

TEST_CASE("a closure may be move-only, and arrays may be empty") {
  Tape tape;
  Var x = tape.variable(filled(3, 0, 0.0f));
  Var y = tape.record(filled(3, 0, 0.0f), {x}, [number = std::make_unique<int>(7)](auto& flow) {
    CHECK(*number == 7);
    flow.add(0, flow.take());
  });
  tape.backward(sum(y));
  CHECK(tape.gradient(x).cols() == 0);
}

TEST_CASE("a Var that outlives its tape is an error where it is used, and its value stays") {
  Var<float> x, y;
  {
    Tape tape;
    x = tape.variable(Activation<float>::Ones(2, 3));
    y = tape.input(Activation<float>::Ones(2, 3));
  }
  CHECK(x.value()(1, 2) == 1);
  CHECK_THROWS_AS(relu(x), Error);
  CHECK_THROWS_AS(x + y, Error);
  CHECK_THROWS_AS(y * y, Error);
  CHECK_THROWS_AS(mse(x, Activation<float>::Ones(2, 3)), Error);
  Tape other;
  CHECK_THROWS_AS(other.backward(x, Activation<float>::Ones(2, 3)), Error);
  CHECK_THROWS_AS(other.gradient(x), Error);
}

TEST_CASE("nothing is recorded on a tape while it is swept") {
  Tape tape;
  const auto x = tape.variable(Activation<float>::Random(2, 2));
  const auto y = record(Activation<float>(Activation<float>::Ones(1, 1)), {x}, [&tape](auto& flow) {
    auto z = tape.variable(Activation<float>::Random(50, 50));
    for (int i = 0; i < 200; ++i) z = relu(z);
    flow.add(0, Activation<float>::Ones(2, 2));
  });
  CHECK_THROWS_AS(tape.backward(y), Error);
  const auto a = tape.variable(Activation<float>::Random(2, 2));  // the tape goes on
  tape.backward(sum(a));
  CHECK(tape.gradient(a) == Activation<float>::Ones(2, 2));
  const auto b = tape.variable(Activation<float>::Random(2, 2));
  const auto own = record(Activation<float>(Activation<float>::Ones(1, 1)), {b}, [](auto& flow) {
    Tape<float> scratch;
    const auto z = scratch.variable(Activation<float>::Ones(2, 2));
    scratch.backward(sum(z * z));
    flow.add(0, scratch.gradient(z));
  });
  tape.backward(own);
  CHECK(tape.gradient(b) == Activation<float>::Constant(2, 2, 2));
}

TEST_CASE("the value of a temporary Var is a value, moved where nobody else holds it") {
  const auto& y = relu(Var(Activation<float>(Activation<float>::Constant(2, 2, 3)))).value();
  static_assert(std::is_same_v<decltype(Var<float>().value()), Activation<float>>);
  CHECK(y == Activation<float>::Constant(2, 2, 3));
  Tape tape;
  const auto x = tape.variable(Activation<float>::Ones(2, 2));
  CHECK(Var<float>(x).value() == x.value());
  CHECK(x.value()(1, 1) == 1);
}
