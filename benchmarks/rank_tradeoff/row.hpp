#pragma once

/// What a run measures: rows with one time a repetition, a prediction, and named counters.

#include <map>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

#include <support/clock.hpp>

namespace rank_tradeoff {

using benchmarks::median;
using lowrank::Index;

/// The ceilings of this machine, measured in the same run.
struct Peaks {
  double fp32 = 0, bf16 = 0;  ///< FLOP/s of the kernels' innermost loop on panels in the first-level cache, all threads
  double bandwidth = 0;       ///< bytes/s of reading memory, all threads
  double region = 0;          ///< seconds to enter and leave a parallel loop
};

/// What a pass must do at least.
struct Work {
  double flops = 0, bytes = 0;  ///< bytes: each array once, from or to memory
  double regions = 0;           ///< parallel loops
};

/// One thing that was measured.
struct Row {
  std::string part;          ///< layer, merge, swap, static, matrix, model
  std::string pass;          ///< forward, backward, step, …
  std::string base, method;  ///< nf4, lora, …
  Index d = 0, tokens = 0, rank = 0;
  std::vector<double> times = {}, cpu = {};  ///< seconds, one a repetition
  Work work = {};
  double predicted = 0;  ///< seconds; 0: nothing to predict
  std::map<std::string, double> counters = {};
  std::string why = {};  ///< where measured / predicted exceeds 2

  double seconds() const { return median(times); }
  double ratio() const { return predicted > 0 && !times.empty() ? seconds() / predicted : 0; }
  double counter(const std::string& name) const {
    const auto found = counters.find(name);
    return found == counters.end() ? 0 : found->second;
  }
  /// layer/forward/nf4/lora/d:576/tokens:8/rank:16
  std::string name() const {
    std::string text = part + '/' + pass;
    for (const std::string& word : {base, method})
      if (!word.empty()) text += '/' + word;
    if (d > 0) text += "/d:" + std::to_string(d);
    if (tokens > 0) text += "/tokens:" + std::to_string(tokens);
    return text + "/rank:" + std::to_string(rank);
  }
};

/// How a training ended.
struct Training {
  std::string model, method, base;  ///< method: lora, rslora, dora, full
  Index rank = 0;
  double learning_rate = 0;
  int seed = 0;
  Index steps = 0;
  double validation = 0, test = 0;  ///< held-out loss, nats a token: to choose the rate by, and to report
  double step_seconds = 0;          ///< median
  double trained_bytes = 0, optimizer_bytes = 0, checkpoint_bytes = 0;
  double frozen_bytes = 0;  ///< of the base, where it is not what is trained
};

/// Held-out loss of a method at its best learning rate.
struct Point {
  std::string model, method, base;
  Index rank = 0;
  double learning_rate = 0, bare = 0;
  bool at_edge = false;                                 ///< the best rate was the least or the greatest that was tried
  std::vector<double> losses = {};                      ///< test loss, one a seed, at that rate
  std::vector<std::pair<double, double>> by_rate = {};  ///< validation loss of each rate, mean over its seeds
  double step_seconds = 0, trained_bytes = 0, optimizer_bytes = 0, checkpoint_bytes = 0, frozen_bytes = 0;
};

/// Everything a run leaves behind.
struct Results {
  std::map<std::string, std::string> context;
  Peaks peaks;
  std::vector<Row> rows;
  std::vector<Training> trainings;
  std::vector<Point> points;
  std::vector<std::string> skipped;  ///< what the budget left out, in words
  double seconds = 0;
};

}  // namespace rank_tradeoff
