#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/nn/dropout.hpp>
#include <lowrank/nn/state.hpp>

using namespace lowrank;

namespace {

struct WithDropout {
  Dropout first{0.25, 1, 0}, second{0.25, 1, 1};
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "first", first, "second", second);
  }
};

}  // namespace

TEST_CASE("Dropout zeroes its share on a tape, with other masks each time and in each place, and not in eval()") {
  WithDropout model;
  const Activation<float> ones = Activation<float>::Ones(50, 80);
  CHECK(model.first(Var(ones)).value() == ones);
  Tape tape;
  const auto x = tape.variable(ones);
  const Var<float> y = model.first(x);
  const Activation<float> mask = y.value();
  const auto zeros = (mask.array() == 0).count();
  CHECK(zeros > 900);
  CHECK(zeros < 1100);
  CHECK(mask.maxCoeff() == doctest::Approx(1 / 0.75));
  CHECK(model.first(x).value() != mask);
  CHECK(model.second(x).value() != mask);
  tape.backward(sum(y));
  CHECK(tape.gradient(x) == mask);
  eval(model);
  CHECK(model.first(tape.input(ones)).value() == ones);
  CHECK(state(model)[1].name == "first.dropout.stream");
  CHECK(state(model)[1].numbers<std::uint64_t>()[0] == 2);
  CHECK_THROWS_AS(Dropout(1.0), ValueError);
}
