#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>
#include <lowrank/quant/q8_0.hpp>

#include "problems.hpp"

using namespace lowrank;

namespace {

template <class Format>
void pin_dora_over(const std::string& theme) {
  pins::check_pinned("dora/" + theme, [](pins::Results& results) {
    pins::pin_dora(results,
                   [](const Weight<float>& w, const Column<float>& bias) { return QuantizedLinear<Format>(quantize<Format>(w), bias); });
  });
}

}  // namespace

TEST_CASE("pinned: DoRA over NF4") { pin_dora_over<Nf4<64>>("nf4"); }
TEST_CASE("pinned: DoRA over NF4 with scales in 8 bits") { pin_dora_over<Nf4<64, DoubleQuant>>("nf4_double"); }
TEST_CASE("pinned: DoRA over Q4_1") { pin_dora_over<Q4_1>("q4_1"); }
TEST_CASE("pinned: DoRA over Q8_0") { pin_dora_over<Q8_0>("q8_0"); }
