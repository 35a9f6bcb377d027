#include <doctest/doctest.h>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/adapted.hpp>
#include <lowrank/nn/linear.hpp>

#include <tests/consumer/strength.hpp>

#include "../nn/nn_support.hpp"

// A method as a user writes one: docs/your_own_method.md. tests/consumer trains it, saves it and loads it again.

using namespace lowrank;

TEST_CASE("a method of the user's own trains like the library's") {
  Weight<double> w(6, 9);
  fill_normal(w, 0.5, Random(1));
  auto lora = make_lora<double>(9, 6, {.rank = 3, .seed = 2});
  fill_normal(lora.b.value, 0.5, Random(3));
  mine::Strength<double> method{std::move(lora)};
  method.t.name = "strength";
  method.t.value.setConstant(1, 1, 1.5);
  Adapted layer(Linear<double>(w), method);
  const auto x = nn_test::random_columns<double>(9, 4, 4);
  const auto report = gradcheck([&](const std::vector<Var<double>>& inputs) { return layer(inputs[0]); }, {x}, parameters(layer));
  CHECK_MESSAGE(report.worst < 1e-8, report.where);
}

TEST_CASE("a method is registered once, whole, and under a name and a type of its own") {
  const Method good = mine::strength_method();
  const auto refused = [&](auto change, const char* reason) {
    Method method = good;
    change(method);
    CHECK_THROWS_WITH_AS(register_method(method), doctest::Contains(reason), ValueError);
  };
  refused([](Method& m) { m.name = "vera"; }, "there is a method named vera already");
  refused([](Method& m) { m.peft_type = "LORA"; }, "is that of lora");
  refused([](Method& m) { m.peft_type = "LORA", m.flag = "use_dora"; }, "is that of dora");
  refused([](Method& m) { m.make = nullptr; }, "has a peft_type, a name");
  refused([](Method& m) { m.tensors = {}; }, "has a peft_type, a name");
  refused([](Method& m) { m.required = 4; }, "requires 4 tensors of the 3");
  CHECK(find_method("STRENGTH", {}) == nullptr);
  register_method(good);
  REQUIRE(find_method("STRENGTH", {}) != nullptr);
  CHECK(find_method("STRENGTH", {})->name == "strength");
  CHECK_THROWS_WITH_AS(register_method(good), doctest::Contains("already"), ValueError);
}
