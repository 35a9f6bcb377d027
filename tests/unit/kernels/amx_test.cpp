#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/loops.hpp>
#include <lowrank/kernels/driver/packed.hpp>

#include "amx_model.hpp"
#include "fixtures.hpp"

#if defined(__x86_64__)

using namespace fixtures;
namespace amx = kernels::amx;

namespace {

/// Calls body(target) for the tiles that can run: the model's, and the processor's where it has some.
template <class Body>
void for_each_tiles(const Body& body) {
  const kernels::Target& chosen = kernels::current_target();
  for (const kernels::Target* target : {&amx_model::target, &amx::target}) {
    if (!target->is_available()) continue;
    kernels::set_target(*target);
    CAPTURE(target->name);
    body(*target);
  }
  kernels::set_target(chosen);
  CHECK(amx_model::Tiles::faults == 0);
}

/// Numbers of many magnitudes, with signs, zeros and, if wished, some that are subnormal as bfloat16.
std::vector<float> spread_floats(Index count, bool with_subnormals, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) {
    const auto bits = static_cast<std::uint32_t>(random.bits());
    const auto exponent = static_cast<int>(bits % 40) - 20;
    x = std::ldexp(random.uniform(-1.0f, 1.0f), with_subnormals && bits / 64 % 8 == 0 ? -130 - exponent : exponent);
    if (bits / 1024 % 16 == 0) x = 0;
  }
  return numbers;
}

float rounded(float x) { return static_cast<float>(BFloat16(x)); }

/// What the header of the target says an element is, without tiles.
float documented_sum(const std::vector<float>& row, const std::vector<float>& token, float begin) {
  using amx_model::flushed, amx_model::multiply_add;
  float sum = begin;
  for (std::size_t k = 0; k < row.size(); k += 32) {
    float chain[2] = {0, 0};
    for (std::size_t j = k; j < std::min(k + 32, row.size()); ++j)
      chain[j % 2] = multiply_add(rounded(row[j]), rounded(token[j]), chain[j % 2]);
    sum = flushed(flushed(sum) + flushed(chain[0] + chain[1]));
  }
  return sum;
}

std::vector<float> column(const std::vector<float>& from, Index begin, Index length) {
  return {from.begin() + begin, from.begin() + begin + length};
}

/// Same numbers; one NaN is as good as another.
Index count_different(const std::vector<float>& a, const std::vector<float>& b) {
  Index count = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    count += !(is_nan(a[i]) && is_nan(b[i])) && bit_cast<std::uint32_t>(a[i]) != bit_cast<std::uint32_t>(b[i]);
  return count;
}

}  // namespace

TEST_CASE("amx: an element is what the target's header says, bit for bit") {
  for (const auto& size :
       {std::array<Index, 3>{1, 1, 1}, {16, 32, 16}, {17, 33, 17}, {32, 64, 32}, {33, 31, 40}, {70, 1100, 35}, {5, 5000, 9}}) {
    const Index rows = size[0], depth = size[1], tokens = size[2];
    const auto w = spread_floats(rows * depth, true, 1), x = spread_floats(tokens * depth, true, 2),
               y = spread_floats(rows * tokens, false, 3);
    for_each_tiles([&](const kernels::Target&) {
      std::vector<float> expected(y), have(y);
      for (Index t = 0; t < tokens; ++t)
        for (Index i = 0; i < rows; ++i) {
          float& element = expected[static_cast<std::size_t>(t * rows + i)];
          element = documented_sum(column(w, i * depth, depth), column(x, t * depth, depth), element);
        }
      const kernels::Options options{.compute = Compute::bf16, .accumulate = true, .batch_invariant = true};
      kernels::multiply(DenseSource<float>(w.data(), rows, depth), x.data(), depth, tokens, have.data(), rows, options);
      CHECK(count_different(expected, have) == 0);
    });
  }
}

TEST_CASE("amx: windows of every size, wherever the sums wait, and nothing beside them is written") {
  const Index depth = 64, words = depth / 2;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto w = spread_floats(32 * depth, false, 1), x = spread_floats(32 * depth, false, 2), before = spread_floats(40 * 32, false, 3);
  for_each_tiles([&](const kernels::Target& target) {
    const kernels::PanelKernels& kernels = target.bf16;
    for (Index rows = 1; rows <= 32; ++rows)
      for (Index tokens = 1; tokens <= 32; ++tokens) {
        const Index vectors = ceil_div(rows, kernels.lanes), step = vectors * kernels.lanes;
        std::vector<kernels::Word> a(static_cast<std::size_t>(words * 32), 0x7fc07fc0), b(a);  // what is not packed is NaN
        for (Index i = 0; i < rows; i += 16)
          kernels.pack_rows(w.data() + i * depth, depth, std::min<Index>(16, rows - i), depth, 1, a.data() + i, step);
        kernels.pack_token_rows(x.data(), depth, tokens, depth, 1, b.data(), kernels.columns);
        std::vector<float> zeros(32 * 40, nan), sums(zeros), in_place(before);
        kernels.enter();
        kernels.multiply(words, vectors, rows, tokens, a.data(), b.data(), nullptr, 0, zeros.data(), 33);
        kernels.multiply(words, vectors, rows, tokens, a.data(), b.data(), before.data(), 40, sums.data(), 33);
        kernels.multiply(words, vectors, rows, tokens, a.data(), b.data(), in_place.data(), 40, in_place.data(), 40);
        kernels.leave();
        Index wrong = 0;
        for (Index t = 0; t < 32; ++t)
          for (Index i = 0; i < 33; ++i) {
            const auto at = static_cast<std::size_t>(33 * t + i), was = static_cast<std::size_t>(40 * t + i);
            const bool is_inside = t < tokens && i < rows;
            if (!is_inside) {
              wrong += !is_nan(zeros[at]) || !is_nan(sums[at]) || in_place[was] != before[was];
              continue;
            }
            const auto row = column(w, i * depth, depth), token = column(x, t * depth, depth);
            wrong += zeros[at] != documented_sum(row, token, 0) || sums[at] != documented_sum(row, token, before[was]) ||
                     in_place[was] != sums[at];
          }
        CHECK(wrong == 0);
      }
  });
}

TEST_CASE("amx: what earlier products left in memory reaches no later one") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> poison(128 * 1200, nan);
  for (const auto& size : {std::array<Index, 3>{5, 3, 9}, {40, 70, 20}, {33, 577, 40}, {20, 1055, 33}}) {
    const Index rows = size[0], depth = size[1], tokens = size[2];
    const auto w = random_floats(rows * depth, 1), x = random_floats(depth * tokens, 2);
    const Blocks b = pairs(rows, depth, 64, false, 3);
    for_each_tiles([&](const kernels::Target&) {
      std::vector<float> y(128 * 128);
      const kernels::Options options{.compute = Compute::bf16};
      const auto check = [&](const auto& source) {
        kernels::multiply(DenseSource<float>(poison.data(), 128, 1200), poison.data(), 1200, 128, y.data(), 128, options);
        kernels::multiply(source, x.data(), depth, tokens, y.data(), rows, options);
        CHECK(Oracle(source, x.data(), depth, tokens).error(y.data(), rows, rows, tokens) <= bound(Compute::bf16, depth));
      };
      check(DenseSource<float>(w.data(), rows, depth));
      check(transposed(DenseSource<float>(w.data(), depth, rows)));
      check(b.source);
    });
  }
}

TEST_CASE("amx: the depth may be cut anywhere at a grain, and panels come straight or transposed, to the same bits") {
  const Index rows = 45, depth = 2100, tokens = 37, rank = 24;
  const auto w = random_floats(rows * depth, 1), x = random_floats(depth * tokens, 2), b = random_floats(rows * rank, 3),
             h = random_floats(rank * tokens, 4);
  std::vector<float> w_transposed(w.size()), x_transposed(x.size());
  for (Index k = 0; k < depth; ++k) {
    for (Index i = 0; i < rows; ++i) w_transposed[static_cast<std::size_t>(k * rows + i)] = w[static_cast<std::size_t>(i * depth + k)];
    for (Index t = 0; t < tokens; ++t) x_transposed[static_cast<std::size_t>(k * tokens + t)] = x[static_cast<std::size_t>(t * depth + k)];
  }
  const DenseSource<float> straight(w.data(), rows, depth), stored(w_transposed.data(), depth, rows), low(b.data(), rows, rank);
  for_each_tiles([&](const kernels::Target& target) {
    const kernels::Options options{.compute = Compute::bf16};
    std::vector<float> y(static_cast<std::size_t>(rows * tokens)), z(y);
    kernels::multiply(straight, x.data(), depth, tokens, y.data(), rows, options);
    const kernels::Columns side_by_side{x_transposed.data(), tokens, depth, true};
    kernels::multiply(transposed(stored), std::span(&side_by_side, 1), tokens, z.data(), rows, options);
    CHECK(y == z);

    for (const Index block : {64, 256, 2112}) {
      kernels::Pieces pieces(straight);
      kernels::detail::Blocking blocking(target.bf16, rows, depth, tokens);
      blocking.depth = block;
      blocking.rows = blocking.tokens = 64;  // several panels wait in one task
      const Index words = round_up(depth, 32) / 2 * 32;
      std::vector<kernels::Word> panels(static_cast<std::size_t>(words * 2), 0x7fc07fc0);
      const kernels::Columns part{x.data(), depth, depth};
      kernels::detail::pack_panels(target.bf16, std::span(&part, 1), 0, tokens, panels.data(), words, false);
      std::fill(z.begin(), z.end(), 0.0f);
      kernels::detail::Product{target, target.bf16, pieces, panels.data(), words, z.data(), rows, options, blocking, 0, depth}.run(tokens);
      CHECK(y == z);
    }

    const Index behind = round_up(depth, kernels::packed_grain(Compute::bf16));
    kernels::Packed packed(behind + rank, tokens, Compute::bf16);
    packed.put(0, {x.data(), depth, depth});
    packed.put(behind, {h.data(), rank, rank});
    kernels::Pieces both(rows, behind + rank), second(rows, rank);
    both.add(straight, 0, 0);
    both.add(low, 0, behind, 0.5f);
    second.add(low, 0, 0, 0.5f);
    packed.multiply(second, behind, y.data(), rows, {.accumulate = true});
    packed.multiply(both, 0, z.data(), rows);
    CHECK(y == z);
  });
}

TEST_CASE("amx: the model of tiles rounds, flushes and counts faults as the manual says") {
  using amx_model::Tiles;
  const float tiny = std::ldexp(1.0f, -140), small = std::ldexp(1.0f, -100);
  const auto one_element = [](std::vector<float> row, std::vector<float> token, float begin) {
    row.resize(32), token.resize(32);
    std::uint16_t left[16][32] = {}, right[16][32] = {};
    float sums[16][16] = {{begin}};
    for (std::size_t k = 0; k < 32; ++k) {
      left[0][k] = BFloat16(token[k]).bits;
      right[k / 2][k % 2] = BFloat16(row[k]).bits;  // 16 pairs a row, the first of which is column 0
    }
    Tiles::configure(amx::all_tiles);
    Tiles::load<0>(sums, 64), Tiles::load<1>(left, 64), Tiles::load<2>(right, 64);
    Tiles::add_bfloat16<0, 1, 2>();
    Tiles::store<0>(sums, 64);
    Tiles::release();
    return sums[0][0];
  };
  const float big = std::ldexp(1.0f, 24);
  CHECK(one_element({1, 2, 3}, {4, 5, 6}, 7) == 39.0f);
  CHECK(one_element({big, -big, 1, 0}, {1, 1, 1, 0}, 0) == 0.0f);        // even: 2^24 + 1 = 2^24; odd: -2^24
  CHECK(one_element({big, 0, 1, 0, -big}, {1, 1, 1, 0, 1}, 0) == 0.0f);  // the 1 is lost in its chain
  CHECK(one_element({big, 1, -big}, {1, 1, 1}, 0) == 1.0f);              // here it is alone in the other
  CHECK(one_element({1, 1}, {1, 1}, big) == big + 2);                    // added to each other first
  CHECK(one_element({tiny}, {big}, 0) == 0.0f);                          // a subnormal input is zero
  CHECK(one_element({small}, {small}, 1) == 1.0f);
  CHECK(one_element({small}, {std::ldexp(1.0f, -30)}, 0) == 0.0f);  // a subnormal result is zero
  CHECK(one_element({}, {}, tiny) == 0.0f);
  CHECK(Tiles::faults == 0);
  Tiles::zero<0>();  // not configured any more
  CHECK(Tiles::faults.exchange(0) > 0);
}

TEST_CASE("amx: the processor's tiles and the model's agree bit for bit") {
  if (!amx::is_available()) return;
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    std::uint32_t left[16][16], right[16][16];
    for (auto* tile : {left, right})
      for (int i = 0; i < 256; ++i) {
        tile[i / 16][i % 16] = static_cast<std::uint32_t>(random.bits());
        if (round % 2 == 0) tile[i / 16][i % 16] &= 0xbfffbfffu;  // magnitudes below 2, so that some sums are finite
      }
    const auto begin = spread_floats(256, true, static_cast<std::uint64_t>(round));
    std::vector<float> sums[2] = {begin, begin};
    const auto run = [&]<class Tiles>(Tiles, std::vector<float>& sum) {
      Tiles::configure(amx::all_tiles);
      Tiles::template load<0>(sum.data(), 64), Tiles::template load<4>(left, 64), Tiles::template load<6>(right, 64);
      Tiles::template add_bfloat16<0, 4, 6>();
      Tiles::template store<0>(sum.data(), 64);
      Tiles::release();
    };
    run(amx::HardwareTiles{}, sums[0]);
    run(amx_model::Tiles{}, sums[1]);
    CHECK(count_different(sums[0], sums[1]) == 0);
  }
}

TEST_CASE("amx: products on the processor's tiles have the model's bits, whatever the source") {
  if (!amx::is_available()) return;
  const Index rows = 96, depth = 768, tokens = 75;
  const Blocks sources[] = {pairs(rows, depth, 64, true, 1), ggml(rows, depth, 4, true, 2), ggml(rows, depth, 8, false, 3),
                            super_blocks(rows, depth, 4)};
  const auto x = random_floats(std::max(rows, depth) * tokens, 5);
  for (const Blocks& blocks : sources) {
    std::vector<float> y[2][2];
    for_each_tiles([&](const kernels::Target& target) {
      auto& [straight, across] = y[target.name == amx::target.name ? 1 : 0];
      straight.resize(static_cast<std::size_t>(rows * tokens)), across.resize(static_cast<std::size_t>(depth * tokens));
      kernels::multiply(blocks.source, x.data(), depth, tokens, straight.data(), rows, {.compute = Compute::bf16});
      kernels::multiply(transposed(blocks.source), x.data(), rows, tokens, across.data(), depth, {.compute = Compute::bf16});
    });
    CHECK(count_different(y[0][0], y[1][0]) == 0);
    CHECK(count_different(y[0][1], y[1][1]) == 0);
  }
}

TEST_CASE("amx: where it cannot run it is refused") {
  if (amx::is_available()) return;
  CHECK_THROWS_WITH_AS(kernels::set_target(amx::target), "[set_target] this processor has no amx instructions", ValueError);
}

#endif  // defined(__x86_64__)
