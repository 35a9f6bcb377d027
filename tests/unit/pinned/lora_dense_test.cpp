#include "problems.hpp"

using namespace lowrank;

TEST_CASE("pinned: LoRA over a dense weight") {
  pins::check_pinned("lora/linear", [](pins::Results& results) {
    pins::pin_lora(results, [](const Weight<float>& w, const Column<float>& bias) { return Linear<float>(w, bias); });
  });
}

TEST_CASE("pinned: LoRA over a frozen weight in bfloat16") {
  pins::check_pinned("lora/bfloat16", [](pins::Results& results) {
    pins::pin_lora(results,
                   [](const Weight<float>& w, const Column<float>& bias) { return FrozenLinear<BFloat16>(pins::rounded(w), bias); });
  });
}
