#pragma once

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
LOWRANK_INLINE std::vector<Index> counted_tokens(const char* operation, std::span<const std::int32_t> targets, Index vocabulary,
                                                 Index tokens) {
  check<ShapeError>(static_cast<Index>(targets.size()) == tokens, operation, "there are ", targets.size(), " targets for ", tokens,
                    " tokens; give one target a token");
  std::vector<Index> counted;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == ignored_target) continue;
    check<ValueError>(targets[t] >= 0 && targets[t] < vocabulary, operation, "target ", targets[t], " at token ", t, " is outside [0, ",
                      vocabulary, "); use ignored_target = ", ignored_target, " for tokens that do not count");
    counted.push_back(static_cast<Index>(t));
  }
  return counted;
}
}  // namespace detail

#if defined(LOWRANK_COMPILING)
template Column<float> negative_log_likelihood(const Activation<float>&, std::span<const std::int32_t>);
template CrossEntropy<float> cross_entropy_forward(const Activation<float>&, std::span<const std::int32_t>);
template Activation<float> cross_entropy_backward(const Activation<float>&, std::span<const std::int32_t>, float);
template float mse_forward(const Activation<float>&, const ActivationView<float>&);
template Activation<float> mse_backward(const Activation<float>&, const ActivationView<float>&, float);
#endif

}  // namespace lowrank::inline LOWRANK_ABI
