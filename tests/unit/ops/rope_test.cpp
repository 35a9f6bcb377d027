#include <doctest/doctest.h>

#include <vector>

#include <lowrank/ops/rope.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

TEST_CASE("a rotation keeps every head's length, backward undoes it and is its transpose") {
  const std::vector<Index> positions{0, 1, 5, 4095, 7};
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
    const RopeOptions options{.head_size = 6, .base = 10000, .pairs = pairs};
    const auto x = random_matrix<Activation<double>>(12, 5, 1), g = random_matrix<Activation<double>>(12, 5, 2);
    const Activation<double> y = rope_forward(x, positions, options);
    CHECK(largest_difference(rope_backward(y, positions, options), x) < 1e-15);
    CHECK(y.col(0) == x.col(0));
    CHECK(std::abs(y.block(6, 3, 6, 1).norm() - x.block(6, 3, 6, 1).norm()) < 1e-15);
    const double forward = y.cwiseProduct(g).sum(), backward = rope_backward(g, positions, options).cwiseProduct(x).sum();
    CHECK(std::abs(forward - backward) < 1e-14);
  }
}

TEST_CASE("a score depends on the distance of the positions alone") {
  const RopeOptions options{.head_size = 8};
  const auto q = random_matrix<Activation<double>>(8, 1, 3), k = random_matrix<Activation<double>>(8, 1, 4);
  const auto score = [&](Index i, Index j) {
    const std::vector<Index> at_i{i}, at_j{j};
    return rope_forward(q, at_i, options).cwiseProduct(rope_forward(k, at_j, options)).sum();
  };
  CHECK(std::abs(score(3, 1) - score(103, 101)) < 1e-13);
  CHECK(std::abs(score(3, 1) - score(3, 2)) > 1e-3);
}

TEST_CASE("the first pair turns by the position, factors divide the frequency, pairs lie where the layout says") {
  Activation<double> x = Activation<double>::Zero(4, 1);
  x(0, 0) = 1;
  const std::vector<Index> positions{3};
  const auto halves = rope_forward(x, positions, {.head_size = 4});
  CHECK(halves(0, 0) == std::cos(3.0));
  CHECK(halves(2, 0) == std::sin(3.0));
  const auto interleaved = rope_forward(x, positions, {.head_size = 4, .pairs = RopePairs::interleaved});
  CHECK(interleaved(1, 0) == std::sin(3.0));
  const auto slowed = rope_forward(x, positions, {.head_size = 4, .frequency_factors = {2, 8}});
  CHECK(slowed(2, 0) == std::sin(1.5));
}

TEST_CASE("a part of a head turns as a head of that size, the rest stays; a magnitude multiplies what turns") {
  const std::vector<Index> positions{0, 3, 17};
  for (const RopePairs pairs : {RopePairs::halves, RopePairs::interleaved}) {
    const auto x = random_matrix<Activation<double>>(20, 3, 11), g = random_matrix<Activation<double>>(20, 3, 12);
    const RopeOptions part{.head_size = 10, .pairs = pairs, .frequency_factors = {1, 2, 3}, .turned = 6, .magnitude = 1.25};
    const Activation<double> y = rope_forward(x, positions, part);
    for (const Index head : {0, 10}) {
      CHECK(y.middleRows(head + 6, 4) == x.middleRows(head + 6, 4));
      const RopeOptions whole{.head_size = 6, .pairs = pairs, .frequency_factors = {1, 2, 3}};
      const Activation<double> turned = rope_forward(Activation<double>(x.middleRows(head, 6)), positions, whole);
      CHECK(largest_difference(Activation<double>(y.middleRows(head, 6)), Activation<double>(1.25 * turned)) < 1e-15);
    }
    const double forward = y.cwiseProduct(g).sum(), backward = rope_backward(g, positions, part).cwiseProduct(x).sum();
    CHECK(std::abs(forward - backward) < 1e-13);
  }
}

TEST_CASE("rope refuses what does not fit") {
  const Activation<float> x = Activation<float>::Zero(12, 2);
  const std::vector<Index> one{0}, two{0, 1};
  CHECK_THROWS_WITH_AS(rope_forward(x, one, {.head_size = 6}),
                       doctest::Contains("x is [12, 2] but the head size is 6 and there are 1 positions"), ShapeError);
  CHECK_THROWS_AS(rope_forward(x, two, {.head_size = 5}), ShapeError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = -2}), ShapeError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = Index{1} << 62}), ShapeError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = 6, .base = std::nan("")}), ValueError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = 6, .turned = 8}), ShapeError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = 6, .turned = 3}), ShapeError);
  CHECK_THROWS_AS(RopeTable<float>(two, {.head_size = 6, .magnitude = 0}), ValueError);
  CHECK_THROWS_AS(rope_forward(x, two, {.head_size = 8}), ShapeError);
  CHECK_THROWS_AS(rope_forward(x, two, {.head_size = 6, .frequency_factors = {1}}), ShapeError);
  CHECK(rope_forward(Activation<float>(12, 0), {}, {.head_size = 6}).cols() == 0);
}
