#include <doctest/doctest.h>

#include <lowrank/kernels/driver/packed.hpp>

#include "amx_model.hpp"
#include "fixtures.hpp"

using namespace fixtures;

namespace {

/// [W | B] · [X ; H] from packed parts, against the product of both with doubles. An odd depth leaves a row between the parts.
void check_sum(Index rows, Index depth, Index rank, Index tokens) {
  const auto w = random_floats(rows * depth, 1), b = random_floats(rows * rank, 2);
  const auto x = random_floats(depth * tokens, 3), h = random_floats(rank * tokens, 4);
  const DenseSource<float> left(w.data(), rows, depth), right(b.data(), rows, rank);
  const Oracle first(left, x.data(), depth, tokens), second(right, h.data(), rank, tokens);
  for_each_target_and_model([&](const kernels::Target&) {
    for (const Compute compute : {Compute::fp32, Compute::bf16}) {
      CAPTURE(kernels::target_name());
      CAPTURE(rows);
      CAPTURE(depth);
      CAPTURE(tokens);
      const Index behind = round_up(depth, kernels::packed_grain(compute));
      kernels::Packed packed(behind + rank, tokens, compute);
      packed.put(0, {x.data(), depth, depth});
      packed.put(behind, {h.data(), rank, rank});
      std::vector<float> y(static_cast<std::size_t>(rows * tokens)), part(y.size());
      kernels::Pieces map(rows, behind + rank), only(rows, rank);
      map.add(left, 0, 0);
      map.add(right, 0, behind, 0.5f);
      only.add(right, 0, 0, 0.5f);
      packed.multiply(map, 0, y.data(), rows);
      packed.multiply(only, behind, part.data(), rows);
      for (auto& value : part) value *= 2;
      CHECK(second.error(part.data(), rows, rows, tokens) <= bound(compute, rank));
      for (std::size_t i = 0; i < y.size(); ++i) y[i] -= part[i] / 2;
      CHECK(first.error(y.data(), rows, rows, tokens) <= 4 * bound(compute, depth));
    }
  });
}

}  // namespace

TEST_CASE("packed parts below each other, multiplied together and apart") {
  for (const Index tokens : {1, 9, 33})
    for (const Index depth : {17, 33, 64, 577}) check_sum(50, depth, 5, tokens);
}

TEST_CASE("two packed activations at a time do not share their memory") {
  const auto x = random_floats(64 * 9, 1), z = random_floats(64 * 9, 2), w = random_floats(8 * 64, 3);
  const DenseSource<float> source(w.data(), 8, 64);
  kernels::Pieces map(source);
  std::vector<float> y(72), expected(72);
  kernels::Packed first(64, 9, Compute::fp32);
  first.put(0, {x.data(), 64, 64});
  first.multiply(map, 0, expected.data(), 8);
  kernels::Packed second(64, 9, Compute::fp32);
  second.put(0, {z.data(), 64, 64});
  first.multiply(map, 0, y.data(), 8);
  CHECK(y == expected);
}
