#pragma once

#include <algorithm>
#include <string>
#include <tuple>

#include <lowrank/update/any_update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A size as two numbers, as PEFT's `factorization` cuts it.
LOWRANK_INLINE std::pair<Index, Index> two_factors(Index size, Index factor) {
  if (factor > 0 && size % factor == 0) return {factor, size / factor};
  const Index limit = factor == -1 ? size : factor;
  Index m = 1, n = size;
  while (m < n) {
    Index next = m + 1;
    while (size % next != 0) ++next;
    if (next > limit) break;
    m = next, n = size / next;
  }
  return std::minmax(m, n);
}

/// Sizes of a factor that a file has as `whole`, or as `a` and `b`.
LOWRANK_INLINE std::pair<Index, Index> stored_factor(const UpdateSite& site, const std::string& name, Index rank, bool& is_whole) {
  const auto shape = [&](const std::string& tensor) {
    const auto found = site.shapes.find(tensor);
    check<ValueError>(found != site.shapes.end(), "lokr", site.path, " has no tensor ", tensor, "; is the adapter whole?");
    check<ShapeError>(found->second.size() == 2 && found->second[0] > 0 && found->second[1] > 0, "lokr", site.path, '.', tensor,
                      " must be a matrix; convolutions are not supported");
    return found->second;
  };
  is_whole = site.has(name);
  if (is_whole) return {shape(name)[0], shape(name)[1]};
  const Index rows = shape(name + "_a")[0], cols = shape(name + "_b")[1];
  site.size(name + "_a", 1, rank), site.size(name + "_b", 0, rank);
  return {rows, cols};
}

LOWRANK_INLINE LokrShape stored_lokr_shape(const UpdateSite& site, Index rank) {
  LokrShape shape;
  std::tie(shape.l, shape.m) = stored_factor(site, "lokr_w1", rank, shape.is_whole_1);
  std::tie(shape.k, shape.n) = stored_factor(site, "lokr_w2", rank, shape.is_whole_2);
  const Index in = site.layer.in, out = site.layer.out;
  check<ShapeError>(out % shape.l == 0 && out / shape.l == shape.k && in % shape.m == 0 && in / shape.m == shape.n, "lokr", site.path,
                    ": [", shape.l, ", ", shape.m, "] ⊗ [", shape.k, ", ", shape.n, "] but the layer is [", out, ", ", in, ']');
  return shape;
}

LOWRANK_INLINE AnyUpdate new_lokr(const UpdateSite& site, const MethodFields& given, const SharedTensors&) {
  const Index rank = count_field(given, "r", 8);
  const auto factor = field<double>(given, "decompose_factor", -1);
  const bool is_automatic = factor == -1;
  const LokrShape shape =
      site.shapes.empty() ? lokr_shape(site.layer.in, site.layer.out, rank, is_automatic ? -1 : count_field(given, "decompose_factor", 1),
                                       field(given, "decompose_both", false))
                          : stored_lokr_shape(site, rank);
  return make_lokr<float>(shape, {.rank = rank,
                                  .alpha = field<double>(given, "alpha", 8),
                                  .begins_at_w1 = field<std::string>(given, "init_weights", "") != "lycoris",
                                  .seed = site.seed,
                                  .stream = site.stream});
}

}  // namespace detail

LOWRANK_INLINE LokrShape lokr_shape(Index in, Index out, Index rank, Index factor, bool decompose_both) {
  check<ValueError>(factor == -1 || factor > 0, "lokr", "decompose_factor = ", factor, "; it must be positive, or -1");
  LokrShape shape;
  std::tie(shape.m, shape.n) = detail::two_factors(in, factor);
  std::tie(shape.l, shape.k) = detail::two_factors(out, factor);
  shape.is_whole_1 = !decompose_both || 2 * rank >= std::max(shape.l, shape.m);
  shape.is_whole_2 = 2 * rank >= std::max(shape.k, shape.n);
  return shape;
}

LOWRANK_INLINE Method lokr_method() {
  static constexpr MethodTensor tensors[] = {{"lokr_w1", Outputs::mixed}, {"lokr_w1_a", Outputs::mixed}, {"lokr_w1_b"},
                                             {"lokr_w2", Outputs::mixed}, {"lokr_w2_a", Outputs::mixed}, {"lokr_w2_b"}};
  const auto fields = [] {
    return with_module_choices({{"r", 8.0},
                                {"alpha", 8.0},
                                {"decompose_both", false},
                                {"decompose_factor", -1.0},
                                {"init_weights", true},
                                {"module_dropout", 0.0, false},
                                {"rank_dropout", 0.0, false},
                                {"rank_dropout_scale", false, false},
                                {"use_effective_conv2d", false, false},
                                {"alpha_pattern"},
                                {"rank_pattern"}});
  };
  return {"LOKR", "lokr", "", fields, tensors, 0, detail::new_lokr};
}

}  // namespace lowrank::inline LOWRANK_ABI
