#include <lowrank/cuda/kernels/product_many.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/weight.hpp>

#include <unit/kernels/fixtures.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

constexpr int in = 96, out = 70;

/// Three adapters of different ranks over 40 tokens, some with none.
struct Batch {
  std::vector<int> ranks{8, 3, 40}, adapter_of_token;
  std::vector<float> x_numbers = random_numbers(40 * in, 1);
  std::vector<Rows> a, b;
  std::vector<cuda::UpdateFactor> a_views, b_views;
  Rows x;

  explicit Batch(Machine& machine) : x(machine, x_numbers, 40, in) {
    for (const auto& [adapter, count] : {std::pair{-1, 5}, {0, 18}, {1, 1}, {2, 16}})
      adapter_of_token.insert(adapter_of_token.end(), static_cast<std::size_t>(count), adapter);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      a.emplace_back(machine, random_numbers(ranks[i] * in, 10 + i), ranks[i], in);
      b.emplace_back(machine, random_numbers(out * ranks[i], 20 + i), out, ranks[i]);
    }
    for (const Rows& rows : a) a_views.push_back(rows.update());
    for (const Rows& rows : b) b_views.push_back(rows.update());
  }
};

using Kernel = cuda::ProductMany<4, false, cuda::SmallTile>;

cuda::Product product(const std::vector<cuda::TokenTile>& tiles, const std::vector<cuda::UpdateFactor>& adapters, const Rows& h, int rows,
                      std::vector<float>& y) {
  cuda::Product p;
  p.h = h.operand();
  p.updates = adapters.data();
  p.tiles = tiles.data();
  p.tile_count = static_cast<int>(tiles.size());
  p.y = y.data();
  p.ldy = p.rows = rows;
  p.tokens = 40;
  return p;
}

}  // namespace

TEST_CASE("tiles of tokens never mix adapters and never exceed the width") {
  const std::vector<int> adapters{-1, -1, 2, 2, 2, 2, 2, 0};
  const auto tiles = cuda::token_tiles(adapters, 3, 4);
  REQUIRE(tiles.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    const cuda::TokenTile expected[] = {{0, 2, -1}, {2, 4, 2}, {6, 1, 2}, {7, 1, 0}};
    CHECK(tiles[i].first == expected[i].first);
    CHECK(tiles[i].count == expected[i].count);
    CHECK(tiles[i].update == expected[i].update);
  }
  CHECK(cuda::token_tiles({}, 0, 16).empty());
  CHECK_THROWS_AS(cuda::token_tiles(adapters, 2, 4), ValueError);
  CHECK_THROWS_AS(cuda::token_tiles(adapters, 3, 0), ValueError);
}

TEST_CASE("several adapters of mixed ranks in one batch: shrink, expand, and the fused product give the same") {
  Machine setup;
  const Batch batch(setup);
  const auto tiles = cuda::token_tiles(batch.adapter_of_token, 3, cuda::SmallTile::tokens);
  const auto h = on_every_schedule([&](Machine& machine) {
    std::vector<float> shrunk(40 * 40, -5.0f);
    launch(machine, Kernel{product(tiles, batch.a_views, batch.x, 40, shrunk)});
    return shrunk;
  });
  for (Index t = 0; t < 40; ++t)
    for (Index j = 0; j < 40; ++j) {
      const int adapter = batch.adapter_of_token[static_cast<std::size_t>(t)];
      double sum = 0;
      if (adapter >= 0 && j < batch.ranks[static_cast<std::size_t>(adapter)])
        for (Index k = 0; k < in; ++k)
          sum += static_cast<double>(batch.x.at(t, k)) * static_cast<double>(batch.a[static_cast<std::size_t>(adapter)].at(j, k));
      CHECK(h[static_cast<std::size_t>(40 * t + j)] == doctest::Approx(sum).epsilon(1e-4));  // 0 past the rank
    }

  const Rows h16(setup, h, 40, 40);
  auto base = fixtures::pairs(out, in, 64, false, 1);
  const auto packed = cuda::to_chunks(base.source);
  const auto results = on_every_schedule([&](Machine& machine) {
    std::vector<float> separate(out * 40), fused(out * 40);
    cuda::Product once = product(tiles, batch.b_views, h16, out, separate);  // the base alone, all tokens
    once.tiles = nullptr;
    once.base = packed.view();
    once.x = batch.x.operand();
    launch(machine, Kernel{once});
    cuda::Product expand = product(tiles, batch.b_views, h16, out, separate);
    expand.accumulate = true;
    launch(machine, Kernel{expand});
    cuda::Product both = product(tiles, batch.b_views, h16, out, fused);
    both.base = packed.view();
    both.x = batch.x.operand();
    launch(machine, Kernel{both});
    separate.insert(separate.end(), fused.begin(), fused.end());
    return separate;
  });
  std::vector<float> dense(out * in);
  base.source.decode(0, out, 0, in, dense.data(), in);
  for (Index t = 0; t < 40; ++t)
    for (Index i = 0; i < out; ++i) {
      const int adapter = batch.adapter_of_token[static_cast<std::size_t>(t)];
      double sum = 0, magnitude = 0;
      const auto add = [&](float left, float right) {
        sum += static_cast<double>(left) * static_cast<double>(right);
        magnitude += std::abs(static_cast<double>(left) * static_cast<double>(right));
      };
      for (Index k = 0; k < in; ++k) add(BFloat16(dense[static_cast<std::size_t>(i * in + k)]), batch.x.at(t, k));
      if (adapter >= 0)
        for (Index k = 0; k < batch.ranks[static_cast<std::size_t>(adapter)]; ++k)
          add(batch.b[static_cast<std::size_t>(adapter)].at(i, k), h16.at(t, k));
      const auto at = static_cast<std::size_t>(out * t + i);
      CHECK(std::abs(static_cast<double>(results[at]) - sum) <= 1e-5 * magnitude);
      CHECK(std::abs(static_cast<double>(results[at + out * 40]) - sum) <= 1e-5 * magnitude);
    }
}
