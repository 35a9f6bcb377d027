// A rank of nothing.
// expect: Rank must be positive
#include <lowrank/nn.hpp>

#if defined(WRONG)
constexpr int rank = 0;
#else
constexpr int rank = 4;
#endif

lowrank::Activation<float> apply(const lowrank::LoraLinear<lowrank::Linear<float>, rank>& layer, const lowrank::Activation<float>& x) {
  return layer(x);
}
