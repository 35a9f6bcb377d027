#include "together.hpp"

using namespace lowrank;
using pins::Method;

namespace {

/// Layer i of the group in three or more ranges: LoRA, bare, DoRA or a bias of B, one update twice; then with so few tokens that each range
/// is one.
template <class S>
void pin_range_problems(pins::Results& results, const std::string& name, std::size_t i, Compute compute) {
  auto layer = std::move(pins::drawn_layers<S>(compute)[i]);
  auto small = pins::drawn_update(layer, Method::lora, 2, 30), biased = pins::drawn_update(layer, Method::biased, 9, 40),
       dora = pins::drawn_update(layer, Method::dora, 4, 50);
  pins::pin_ranges<S>(results, name + "/lora", layer, {{0, 5, &small}, {5, 4, nullptr}, {9, 17, &biased}, {26, 6, &small}});
  pins::pin_ranges<S>(results, name + "/dora", layer, {{0, 3, nullptr}, {3, 20, &dora}, {23, 12, &small}});
  pins::pin_ranges<S>(results, name + "/few", layer, {{0, 1, &dora}, {1, 1, nullptr}, {2, 2, &biased}});
}

}  // namespace

TEST_CASE("pinned: an update for each range of a batch") {
  pins::check_pinned("ranges", [](pins::Results& results) {
    for (const Compute compute : pins::trained_computes)
      for (const std::size_t i : {0, 1, 2})
        pin_range_problems<float>(results, pins::name_of(compute) + "/" + std::to_string(i), i, compute);
  });
}
