#include "problems.hpp"

using namespace lowrank;

TEST_CASE("pinned: DoRA over a dense weight") {
  pins::check_pinned("dora/linear", [](pins::Results& results) {
    pins::pin_dora(results, [](const Weight<float>& w, const Column<float>& bias) { return Linear<float>(w, bias); });
  });
}

TEST_CASE("pinned: DoRA over a frozen weight in bfloat16") {
  pins::check_pinned("dora/bfloat16", [](pins::Results& results) {
    pins::pin_dora(results,
                   [](const Weight<float>& w, const Column<float>& bias) { return FrozenLinear<BFloat16>(pins::rounded(w), bias); });
  });
}
