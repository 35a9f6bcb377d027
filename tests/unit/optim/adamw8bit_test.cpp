#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/optim/adamw8bit.hpp>
#include <lowrank/update/init.hpp>

using namespace lowrank;

namespace {

Parameter<float> drawn_parameter(Index rows, Index cols, std::uint64_t seed) {
  Parameter<float> p("p", Weight<float>(rows, cols));
  fill_normal(p.value, 0.1, Random(seed));
  return p;
}

/// The gradient of ‖P - target‖² / 2 where columns have scales of several decades.
void set_gradient_towards(Parameter<float>& p, const Weight<float>& target) {
  for (Index j = 0; j < p.cols(); ++j) p.gradient().col(j) = std::pow(10.0f, float(-j % 4)) * (p.value.col(j) - target.col(j));
}

}  // namespace

TEST_CASE("codes of moments are those of bitsandbytes' dynamic map, and a number has the nearest") {
  const MomentCodes& with_sign = MomentCodes::first();
  const MomentCodes& without = MomentCodes::second();
  // bitsandbytes.functional.create_dynamic_map(signed=True / False), at these places.
  CHECK(with_sign[255] == 1.0f);
  CHECK(with_sign[254] == doctest::Approx(0.99296875));
  CHECK(with_sign[0] == doctest::Approx(-0.99296875));
  CHECK(with_sign[127] == 0.0f);
  CHECK(with_sign[128] == doctest::Approx(5.5e-7));
  CHECK(with_sign[126] == doctest::Approx(-5.5e-7));
  CHECK(without[0] == 0.0f);
  CHECK(without[1] == doctest::Approx(3.25e-7));
  CHECK(without[2] == doctest::Approx(7.75e-7));
  CHECK(without[254] == doctest::Approx(0.996484375));
  for (const MomentCodes* codes : {&with_sign, &without}) {
    for (int c = 0; c < 255; ++c) CHECK((*codes)[static_cast<std::uint8_t>(c)] < (*codes)[static_cast<std::uint8_t>(c + 1)]);
    Random random(1);
    for (int i = 0; i < 20000; ++i) {
      const float low = codes == &with_sign ? -1.0f : 0.0f;
      float x = random.uniform(low, 1.0f);
      if (i % 2) x *= std::pow(10.0f, -8 * random.uniform());
      float nearest = std::numeric_limits<float>::infinity();
      for (int c = codes == &without && x > 0; c < 256; ++c)
        nearest = std::min(nearest, std::abs((*codes)[static_cast<std::uint8_t>(c)] - x));
      CHECK(std::abs((*codes)[codes->nearest(x)] - x) <= nearest * 1.0001f);
    }
    for (int c = 0; c < 256; ++c) CHECK(codes->nearest((*codes)[static_cast<std::uint8_t>(c)]) == c);
  }
  CHECK(with_sign[with_sign.nearest(-1.0f)] == doctest::Approx(-0.99296875));
  CHECK(without.nearest(std::numeric_limits<float>::denorm_min()) == 1);
  CHECK(without[without.nearest(2.0f)] == 1.0f);
  CHECK(with_sign[with_sign.nearest(std::nanf(""))] == 1.0f);  // some code
}

TEST_CASE("AdamW8bit takes AdamW's way with a quarter of its state") {
  const Index rows = 16, cols = 300;  // 18.75 blocks
  const Weight<float> target = drawn_parameter(rows, cols, 5).value;
  Parameter<float> p = drawn_parameter(rows, cols, 6), q = p;
  const AdamWOptions options{.learning_rate = 1e-2, .weight_decay = 1e-3};
  AdamW full{std::vector{reference(p)}, options};
  AdamW8bit small{std::vector{reference(q)}, options};
  CHECK(full.bytes() == 8 * 4800);
  CHECK(small.bytes() == 2 * 4800 + 2 * 19 * 4);
  set_gradient_towards(p, target);
  set_gradient_towards(q, target);
  full.step();
  small.step();
  CHECK(p.value == q.value);  // the first step begins at zero moments
  for (int step = 0; step < 150; ++step) {
    set_gradient_towards(p, target);
    set_gradient_towards(q, target);
    full.step();
    small.step();
  }
  const float error = (p.value - target).norm(), start = (drawn_parameter(rows, cols, 6).value - target).norm();
  CHECK((q.value - target).norm() < 0.05f * start);
  CHECK(error < 0.05f * start);
  CHECK((p.value - q.value).norm() < 0.02f * start);
}

TEST_CASE("AdamW8bit keeps the moments of small parameters in full") {
  Parameter<float> p = drawn_parameter(5, 7, 1), q = p;
  AdamW full{std::vector{reference(p)}};
  AdamW8bit small{std::vector{reference(q)}};
  for (int step = 0; step < 5; ++step) {
    p.gradient().setConstant(0.1f * static_cast<float>(step));
    q.gradient() = p.grad;
    full.step();
    small.step();
  }
  CHECK(p.value == q.value);
  CHECK(small.bytes() == full.bytes());
  CHECK(small.state()[1].name == "0/p/second_moment");
  CHECK_THROWS_AS((AdamW8bit{std::vector{reference(p)}, {.beta1 = 1}}), ValueError);
}

TEST_CASE("AdamW8bit goes on from saved state with the same bits") {
  Parameter<float> p = drawn_parameter(64, 100, 1), q = p;
  AdamW8bit first{std::vector{reference(p)}}, second{std::vector{reference(q)}};
  const Weight<float> target = drawn_parameter(64, 100, 2).value;
  for (int step = 0; step < 3; ++step) {
    set_gradient_towards(p, target);
    first.step();
  }
  q.value = p.value;
  const auto from = first.state(), to = second.state();
  CHECK(from[0].dtype == DType::u8);
  CHECK(from[0].shape == std::vector<Index>{64, 100});
  CHECK(from[1].name == "0/p/first_scales");
  for (std::size_t i = 0; i < from.size(); ++i) std::ranges::copy(from[i].bytes, to[i].bytes.begin());
  set_gradient_towards(p, target);
  set_gradient_towards(q, target);
  first.step();
  second.step();
  CHECK(p.value == q.value);
}
