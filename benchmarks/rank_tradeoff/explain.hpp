#pragma once

/// Why a row takes longer than its roofline: named from experiments, never from a guess.

#include <string>

#include <support/table.hpp>

#include <rank_tradeoff/row.hpp>

namespace rank_tradeoff {

/// Seconds of the same pass under other conditions; 0 where it was not tried.
struct Experiments {
  double tiny = 0;        ///< on a layer of 64 x 64: what a call costs whatever its size
  double hot = 0;         ///< with the same weights each time, so that they may stay in the caches
  double one_thread = 0;  ///< on one thread
};

inline std::string microseconds(double s) { return s < 1e-3 ? support::format("%.1f µs", 1e6 * s) : support::format("%.2f ms", 1e3 * s); }

/// The reasons that the experiments show, the largest first, each with its number. `measured` are the seconds of the row on which the
/// experiments were made, `sixteen` those of this row at rank 16.
inline std::string reason(const Row& row, const Experiments& e, double measured, double sixteen, double peak, const Peaks& peaks) {
  using support::format;
  const double t = row.seconds();
  std::string text;
  const auto say = [&](const std::string& more) { text += (text.empty() ? "" : "; ") + more; };
  if (e.tiny > 0.3 * t)
    say(format("fixed cost of a call: the pass takes %s on a 64 x 64 layer, %.0f %% of this time", microseconds(e.tiny).c_str(),
               100 * std::min(1.0, e.tiny / t)));
  if (row.rank > 0 && row.rank < 16 && sixteen > 0 && t > 0.85 * sixteen && t < 1.18 * sixteen)
    say(format("small rank: rank 16 takes %.2f times as long, so the kernels' work does not shrink below about 16 rows", sixteen / t));
  const bool was_disturbed = e.one_thread > 0 && e.one_thread < 0.8 * measured;  // fewer threads cannot be faster by so much
  if (was_disturbed)
    say(format("the machine was busy: the same again, on one thread even, took %.0f %% of this time; measure when it is idle",
               100 * e.one_thread / measured));
  if (was_disturbed) return text;
  if (e.one_thread > 0 && e.one_thread < 1.35 * measured)
    say(format("serial part: one thread takes only %.2f times as long as all", e.one_thread / measured));
  const double bytes_time = row.work.bytes / peaks.bandwidth, flops_time = row.work.flops / peak;
  if (e.hot > 0 && e.hot < 0.75 * measured)
    say(format("memory: with the same weights each time it takes %.0f %%, so reading at %.1f of %.1f GB/s holds it up",
               100 * e.hot / measured, 1e-9 * row.work.bytes / t, 1e-9 * peaks.bandwidth));
  else if (e.hot > 0 && bytes_time > flops_time)
    say(
        format("arithmetic, not memory: with the weights in the caches it still takes %.0f %%; decoding, rounding and unfilled tiles cost "
               "more than the bytes (%.1f GFLOP/s counted, peak %.0f)",
               100 * std::min(1.0, e.hot / measured), 1e-9 * row.work.flops / t, 1e-9 * peak));
  else if (e.hot > 0)
    say(
        format("arithmetic: %.0f of %.0f GFLOP/s at these sizes, %.0f %% of the time with weights in the caches; packing, tiles that T or "
               "r leave unfilled, and passes over the activations",
               1e-9 * row.work.flops / t, 1e-9 * peak, 100 * std::min(1.0, e.hot / measured)));
  if (text.empty()) text = "not examined: the time was used up";
  return text;
}

}  // namespace rank_tradeoff
