#include <doctest/doctest.h>

#include <cmath>

#include <lowrank/optim/schedule.hpp>

using namespace lowrank;

// After the rise, the values of transformers' get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup; in the rise those of
// their next step, since a first step at a rate of 0 reads a batch and changes nothing.
TEST_CASE("linear schedule at its borders") {
  const ScheduleOptions options{.steps = 10, .warmup = 4};
  CHECK(linear_schedule(0, options) == 0.25);
  CHECK(linear_schedule(1, options) == 0.5);
  CHECK(linear_schedule(3, options) == 1);
  CHECK(linear_schedule(4, options) == 1);
  CHECK(linear_schedule(7, options) == 0.5);
  CHECK(linear_schedule(10, options) == 0);
  CHECK(linear_schedule(11, options) == 0);
}

TEST_CASE("cosine schedule at its borders") {
  const ScheduleOptions options{.steps = 10, .warmup = 2};
  CHECK(cosine_schedule(0, options) == 0.5);
  CHECK(cosine_schedule(1, options) == 1);
  CHECK(cosine_schedule(2, options) == 1);
  CHECK(std::abs(cosine_schedule(6, options) - 0.5) < 1e-15);
  CHECK(std::abs(cosine_schedule(4, options) - 0.85355339059327376) < 1e-15);
  CHECK(cosine_schedule(10, options) == 0);
  CHECK(cosine_schedule(99, options) == 0);
}

TEST_CASE("the first step of a warm-up moves by its share of the rate in every schedule") {
  const ScheduleOptions options{.steps = 100, .warmup = 5};
  for (const auto schedule : {constant_schedule, linear_schedule, cosine_schedule})
    for (Index step = 0; step < 5; ++step) CHECK(schedule(step, options) == static_cast<double>(step + 1) / 5);
  CHECK(constant_schedule(5, options) == 1);
  CHECK(constant_schedule(99, options) == 1);
}

TEST_CASE("no warm-up, only warm-up, no steps at all") {
  CHECK(linear_schedule(0, {.steps = 5}) == 1);
  CHECK(cosine_schedule(0, {.steps = 5}) == 1);
  CHECK(constant_schedule(0, {.steps = 5}) == 1);
  CHECK(linear_schedule(3, {.steps = 4, .warmup = 4}) == 1);
  CHECK(linear_schedule(4, {.steps = 4, .warmup = 4}) == 0);
  CHECK(linear_schedule(0, {.steps = 0}) == 0);
}
