#include <doctest/doctest.h>

#include <ostream>
#include <sstream>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/merge.hpp>
#include <lowrank/adapters/spectrum.hpp>

using namespace lowrank;

TEST_CASE("adapters and reports print as one line") {
  Adapter adapter;
  adapter.config.rank = 2;
  adapter.config.alpha = 4;
  adapter.layers["q_proj"] = lora_tensors(from_weight("", Weight<float>::Ones(2, 8)), from_weight("", Weight<float>::Ones(4, 2)), 2);
  std::ostringstream stream;
  stream << adapter << '\n' << MergeReport{.relative_error = 0.002, .survived = 0.97, .codes_changed = 0.125} << '\n';
  stream << RankAdvice{1.5, 2.25, 2, 3, 6};
  CHECK(stream.str() ==
        "Adapter LORA rank 2, alpha 4, 1 layer, 24 parameters, 96 B\n"
        "MergeReport: relative error 0.002, 97 % of the update survived, 12.5 % of the codes changed\n"
        "RankAdvice: norm 1.5, effective rank 2.25; ranks 2, 3 and 6 keep 90, 95 and 99 % of the energy");
}
