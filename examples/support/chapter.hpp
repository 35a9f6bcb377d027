#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <lowrank/update/init.hpp>

#include <support/plot.hpp>
#include <support/table.hpp>

namespace support {

/// A program that states what must be true and shows what it measured: `NAME [FOLDER]`, pictures go to FOLDER, else to the current one.
///
///   Chapter chapter("1. Rank as a sum of outer products", argc, argv);
///   chapter.equal("numbers in two factors", r * (m + n), b.size() + a.size());
///   return chapter.finish();      // the table; 1 when a claim does not hold
class Chapter {
 public:
  Chapter(const char* title, int argc, char** argv) : folder_(argc > 1 ? argv[1] : ".") { std::printf("%s\n", title); }

  /// What follows, in a line.
  void section(const char* text) { std::printf("\n%s\n\n", text); }

  /// `how` says how far it holds: "yes", "exactly", "within 0.1".
  void claim(std::string text, std::string predicted, std::string measured, bool holds, const std::string& how = "yes") {
    claims_.add({std::move(text), std::move(predicted), std::move(measured), holds ? how : how == "yes" ? "NO" : "NOT " + how});
    failed_ += !holds;
  }
  /// |measured - predicted| <= tolerance.
  void equal(std::string text, double predicted, double measured, double tolerance = 0, const char* pattern = "%.6g") {
    claim(std::move(text), format(pattern, predicted), format(pattern, measured), std::abs(measured - predicted) <= tolerance,
          tolerance > 0 ? format("within %.2g", tolerance) : "exactly");
  }
  void at_most(std::string text, double bound, double measured, const char* pattern = "%.2g") {
    claim(std::move(text), "<= " + format(pattern, bound), format(pattern, measured), measured <= bound);
  }
  void at_least(std::string text, double bound, double measured, const char* pattern = "%.3g") {
    claim(std::move(text), ">= " + format(pattern, bound), format(pattern, measured), measured >= bound);
  }

  void picture(const std::string& name, const std::string& svg) {
    std::ofstream file(folder_ / name, std::ios::binary);
    file << svg;
    file.flush();
    if (!file) failed_ += std::fprintf(stderr, "cannot write %s; give an existing folder\n", (folder_ / name).c_str()) > 0;
  }

  int finish() const {
    std::printf("\n");
    claims_.print();
    if (failed_) std::printf("\n%d do not hold\n", failed_);
    return failed_ > 0;
  }

 private:
  std::filesystem::path folder_;
  Table claims_{{"claim", "predicted", "measured", "holds"}};
  int failed_ = 0;
};

/// A matrix as text: its shape, its Frobenius norm and its first numbers.
template <class Matrix>
void print(const char* name, const Matrix& m, long rows = 4, long cols = 6) {
  std::printf("  %s [%ld, %ld], norm %.4g\n", name, static_cast<long>(m.rows()), static_cast<long>(m.cols()),
              static_cast<double>(m.norm()));
  for (long i = 0; i < std::min<long>(rows, m.rows()); ++i) {
    std::printf("    ");
    for (long j = 0; j < std::min<long>(cols, m.cols()); ++j) std::printf("%9.4f", static_cast<double>(m(i, j)));
    std::printf("%s\n", m.cols() > cols ? "  …" : "");
  }
  if (m.rows() > rows) std::printf("    …\n");
}

/// A matrix of type M with independent numbers from N(0, deviation²), the same on every machine.
template <class M>
M normal(lowrank::Index rows, lowrank::Index cols, std::uint64_t seed, double deviation = 1) {
  M m(rows, cols);
  lowrank::fill_normal(m, deviation, lowrank::Random(seed));
  return m;
}

}  // namespace support
