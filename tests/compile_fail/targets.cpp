// Targets that are no integers.
// expect: targets must be a range of integers
#include <lowrank/autograd.hpp>

#include <vector>

#if defined(WRONG)
using Target = double;
#else
using Target = long;
#endif

lowrank::Var<float> loss(const lowrank::Var<float>& logits, const std::vector<Target>& targets) {
  return lowrank::cross_entropy(logits, targets);
}
