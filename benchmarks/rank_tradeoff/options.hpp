#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <rank_tradeoff/budget.hpp>
#include <rank_tradeoff/row.hpp>

namespace rank_tradeoff {

/// What is swept, and for how long.
struct Options {
  bool quick = false, speed = true, quality = true;
  double seconds = 0;  ///< of the whole run; 0: 28 minutes, quick 165 s
  std::filesystem::path model, out = "rank_tradeoff";
  std::string only;

  std::vector<Index> sizes{576, 1536, 4096}, tokens{1, 8, 64, 512}, ranks{1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  std::vector<std::string> bases{"fp32", "bf16", "nf4", "q4_1"};
  std::vector<Index> model_ranks{1, 4, 16, 64, 192};
};

Peaks measure_peaks();
void measure_layers(const Options& options, Budget budget, Results& results);
void measure_merging(const Options& options, Budget budget, Results& results);
void measure_static(const Options& options, Budget budget, Results& results);
void measure_matrices(const Options& options, Budget budget, Results& results);
void measure_models(const Options& options, Budget budget, Results& results);

void write_json(const Results& results, const std::filesystem::path& file);
void write_csv(const Results& results, const std::filesystem::path& file);
void write_html(const Results& results, const std::filesystem::path& file);

/// Two runs, row by row; the number of rows that differ significantly.
int compare(const std::filesystem::path& before, const std::filesystem::path& after, double alpha);

}  // namespace rank_tradeoff
