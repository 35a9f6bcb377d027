#include <doctest/doctest.h>

#include <cmath>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/update/adalora.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/ia3.hpp>
#include <lowrank/update/loha.hpp>
#include <lowrank/update/lokr.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/oft.hpp>
#include <lowrank/update/vera.hpp>

using namespace lowrank;

TEST_CASE("fresh updates refuse sizes that are negative or too large to count") {
  constexpr Index huge = Index{1} << 61;
  const auto shared = draw_vera_projections(2, 4, 4, 0);
  for (const Index bad : {Index{-1}, Index{-8}, huge}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(make_lora(bad, 4, LoraOptions{.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_lora(4, bad, LoraOptions{.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_adalora(bad, 4, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_adalora(4, bad, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_loha(bad, 4, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_loha(4, bad, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_lokr({.l = bad, .m = 2, .k = 2, .n = 2}, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_lokr({.l = 2, .m = 2, .k = 2, .n = bad}, {.rank = 2}), ShapeError);
    CHECK_THROWS_AS(make_hra(bad, 2), ShapeError);
    CHECK_THROWS_AS(make_miss(4, bad, 2), ShapeError);
    CHECK_THROWS_AS(make_ia3(bad, 4), ShapeError);
    CHECK_THROWS_AS(make_ia3(4, bad), ShapeError);
    CHECK_THROWS_AS(make_vera(bad, 4, shared), ShapeError);
    CHECK_THROWS_AS(make_vera(4, bad, shared), ShapeError);
  }
  CHECK_THROWS_AS(make_oft(-8, {.block_size = 4}), ShapeError);
  CHECK_THROWS_AS(make_oft(huge, {.block_size = huge}), ShapeError);
  CHECK_THROWS_AS(draw_vera_projections(2, huge, 4, 0), ShapeError);
  CHECK_THROWS_AS(draw_vera_projections(-2, 4, 4, 0), ValueError);
}

TEST_CASE("dropout is a probability below 1, and alpha a number") {
  for (const double bad : {-0.1, 1.0, 2.0, std::nan(""), static_cast<double>(INFINITY)}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(make_lora(4, 4, LoraOptions{.rank = 2, .dropout = bad}), ValueError);
    CHECK_THROWS_AS(make_adalora(4, 4, {.rank = 2, .dropout = bad}), ValueError);
  }
  CHECK_THROWS_AS(make_lora(4, 4, LoraOptions{.rank = 2, .alpha = std::nan("")}), ValueError);
}

TEST_CASE("to_weight reads no more than the bytes of a tensor") {
  const Buffer bytes = Buffer::allocate(4);
  CHECK_THROWS_AS(to_weight({"x", DType::f32, {10, 100}, bytes}), ShapeError);
  CHECK_THROWS_AS(to_weight({"x", DType::f32, {-1, -1}, bytes}), ShapeError);
  CHECK_THROWS_AS(to_weight({"x", DType::f32, {3, 0}, bytes}), ShapeError);
  CHECK(to_weight({"x", DType::f32, {1, 1}, bytes}).size() == 1);
  CHECK(to_weight({"x", DType::f32, {3, 0}, {}}).size() == 0);
}
