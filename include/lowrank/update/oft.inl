#pragma once

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The divisor of n nearest to a number, of two the smaller.
LOWRANK_INLINE Index nearest_divisor(Index n, Index number) {
  if (number >= n) return n;
  Index above = number, below = number;
  while (n % above != 0) ++above;
  while (below > 1 && n % below != 0) --below;
  return number - below <= above - number ? below : above;
}

LOWRANK_INLINE AnyUpdate new_oft(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index in = site.layer.in, blocks = count_field(given, "r", 0), size = count_field(given, "oft_block_size", 32);
  check<ValueError>((blocks > 0) != (size > 0), "oft", "r is ", blocks, " and oft_block_size ", size, "; give one of them, the other is 0");
  OftOptions options;
  options.block_size = blocks > 0 ? in / nearest_divisor(in, blocks) : nearest_divisor(in, size);
  options.terms = field(given, "use_cayley_neumann", true) ? count_field(given, "num_cayley_neumann_terms", 5) : 0;
  constexpr Index most = 100;  // the powers of Q are kept, for the gradient
  check<ValueError>(options.terms <= most && (options.terms > 0 || !field(given, "use_cayley_neumann", true)), "oft",
                    "num_cayley_neumann_terms is ", options.terms, "; it must lie in [1, ", most, ']');
  options.is_shared = field(given, "block_share", false);
  if (field(given, "coft", false)) options.eps = field<double>(given, "eps", 6e-5);
  site.size("oft_R.weight", 1, options.block_size * (options.block_size - 1) / 2);
  return make_oft<float>(in, options);
}

}  // namespace detail

LOWRANK_INLINE Method oft_method() {
  static constexpr MethodTensor tensors[] = {{"oft_R.weight"}};
  const auto fields = [] {
    return with_module_choices({{"r", 0.0},
                                {"oft_block_size", 32.0},
                                {"bias", "none"},
                                {"block_share", false},
                                {"coft", false},
                                {"eps", 6e-5},
                                {"fan_in_fan_out", false},
                                {"init_weights", true, false},
                                {"module_dropout", 0.0, false},
                                {"num_cayley_neumann_terms", 5.0},
                                {"use_cayley_neumann", true}});
  };
  return {"OFT", "oft", "", fields, tensors, 1, detail::new_oft};
}

}  // namespace lowrank::inline LOWRANK_ABI
