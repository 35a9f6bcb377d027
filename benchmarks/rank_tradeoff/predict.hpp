#pragma once

/// What each pass must cost: counted, not fitted. W [m, n], rank r, T tokens; bytes as each format stores them.

#include <algorithm>
#include <cmath>

#include <rank_tradeoff/row.hpp>

namespace rank_tradeoff {

/// A layer as predictions see it.
struct Shape {
  double m = 0, n = 0, r = 0, tokens = 0;
  double weight_bytes = 0;  ///< of W as it is stored
  bool dora = false;
};

/// max(FLOPs / peak, bytes / bandwidth) + parallel loops · their cost: the roofline (Williams et al. 2009) and a fixed cost.
inline double roofline(const Work& work, double peak, const Peaks& peaks) {
  return std::max(work.flops / peak, work.bytes / peaks.bandwidth) + work.regions * peaks.region;
}

/// Y = W X + s B (A X): 2 m n T + 2 r (m + n) T FLOPs; W, A, B (fp32), X and Y once. DoRA scales each row of Y.
inline Work forward_work(const Shape& s) {
  const double factors = s.r * (s.m + s.n);
  return {.flops = 2 * s.tokens * (s.m * s.n + factors) + (s.dora ? s.m * s.tokens : 0),
          .bytes = s.weight_bytes + 4 * factors + 4 * s.tokens * (s.m + s.n),
          .regions = s.r > 0 ? 3.0 : 1.0};
}

/// dX = Wᵀ G + Aᵀ U, U = s Bᵀ G, dA = U Xᵀ, dB = s G Hᵀ: 2 m n T + 4 r (m + n) T FLOPs; W, A, B, G, dX once, and X, dA, dB with an update.
inline Work backward_work(const Shape& s) {
  const double factors = s.r * (s.m + s.n);
  return {.flops = 2 * s.tokens * (s.m * s.n + 2 * factors) + (s.dora ? 3 * s.m * s.tokens : 0),
          .bytes = s.weight_bytes + 8 * factors + 4 * s.tokens * (s.m + s.n + (s.r > 0 ? s.n : 0)),
          .regions = s.r > 0 ? 4.0 : 1.0};
}

/// Row lengths of DoRA in training, n² = ‖W_o‖² + 2 s ⟨W Aᵀ, B⟩ + s² B (A Aᵀ) Bᵀ: 2 m n r + 2 r² (m + n) FLOPs and another pass over W.
inline Work dora_norm_work(const Shape& s) {
  return {.flops = 2 * s.m * s.n * s.r + 2 * s.r * s.r * (s.m + s.n), .bytes = s.weight_bytes + 8 * s.r * (s.m + s.n), .regions = 3};
}

/// Forward, backward, and AdamW on what is trained: 12 FLOPs a number, and 32 bytes (p, g, m, v read, p, m, v and the cleared g written).
inline Work step_work(const Shape& s) {
  Work work = forward_work(s);
  const Work back = backward_work(s), norms = s.dora ? dora_norm_work(s) : Work{};
  const double trained = s.r * (s.m + s.n) + (s.dora ? s.m : 0);
  work.flops += back.flops + norms.flops + 12 * trained;
  work.bytes += back.bytes + norms.bytes + 32 * trained;
  work.regions += back.regions + norms.regions + (s.r > 0 ? 1 : 0);
  return work;
}

/// The forward pass of training, which finds DoRA's row lengths anew.
inline Work training_forward_work(const Shape& s) {
  Work work = forward_work(s);
  const Work norms = s.dora ? dora_norm_work(s) : Work{};
  return {work.flops + norms.flops, work.bytes + norms.bytes, work.regions + norms.regions};
}

/// W + s B A stored in W's format: 2 r m n FLOPs; W read and written, A and B read.
inline Work merge_work(const Shape& s) {
  return {.flops = 2 * s.r * s.m * s.n, .bytes = 2 * s.weight_bytes + 4 * s.r * (s.m + s.n), .regions = 1};
}

/// Tokens after which a merge has paid: 2 r m n FLOPs once, against 2 r (m + n) a token. r drops out.
inline double break_even_tokens(double m, double n) { return m * n / (m + n); }

/// The rank at which an update adds `share` to a forward pass, by FLOPs: r (m + n) / (m n) = share.
inline double crossover_rank(double m, double n, double share) { return share * m * n / (m + n); }

/// The rank at which a curve of costs over ranks first reaches `level`, between measured ranks by logarithm; 0 where it begins above it,
/// infinity where it never gets there.
inline double crossing(const std::vector<double>& ranks, const std::vector<double>& costs, double level) {
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (costs[i] < level) continue;
    if (i == 0) return 0;
    const double part = (level - costs[i - 1]) / (costs[i] - costs[i - 1]);
    return std::exp2(std::log2(ranks[i - 1]) + part * (std::log2(ranks[i]) - std::log2(ranks[i - 1])));
  }
  return INFINITY;
}

/// The last crossing instead, so that one noisy point at a small rank does not decide: the level is exceeded from there on.
inline double lasting_crossing(const std::vector<double>& ranks, const std::vector<double>& costs, double level) {
  std::size_t begin = costs.size();
  while (begin > 0 && costs[begin - 1] >= level) --begin;
  if (begin == costs.size()) return INFINITY;
  const std::size_t from = begin > 0 ? begin - 1 : 0;
  const auto at = static_cast<std::ptrdiff_t>(from);
  return crossing({ranks.begin() + at, ranks.end()}, {costs.begin() + at, costs.end()}, level);
}

}  // namespace rank_tradeoff
