#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/io/file.hpp>

#include <support/plot.hpp>
#include <support/table.hpp>

namespace cli {

using lowrank::Index;
using support::format;
using support::Table;

/// Seconds since the start of the program.
inline double now() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Largest memory that the process has held, bytes.
inline long long peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<long long>(usage.ru_maxrss) * 1024;
}

/// 1234567 as "1.18 MiB".
inline std::string human_bytes(long long bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
  return text;
}

/// One line that rewrites itself on a terminal; a plain line now and then elsewhere. Goes to stderr.
class Progress {
 public:
  Progress(Index total, std::string label) : total_(total), label_(std::move(label)), terminal_(isatty(STDERR_FILENO) != 0) {}

  void show(Index done, double loss, double tokens_per_second) {
    const double elapsed = now() - start_;
    const double left = elapsed / static_cast<double>(done) * static_cast<double>(total_ - done);
    if (!terminal_ && done != 1 && done != total_ && elapsed < next_line_) return;
    next_line_ = elapsed + 5;
    const std::string text =
        format("%s %*ld/%ld  loss %.4f  %.0f tokens/s  %.0f s left", label_.c_str(), static_cast<int>(std::to_string(total_).size()),
               static_cast<long>(done), static_cast<long>(total_), loss, tokens_per_second, left);
    if (!terminal_) {
      std::fprintf(stderr, "%s\n", text.c_str());
      return;
    }
    const auto filled = static_cast<std::size_t>(20 * done / total_);
    std::fprintf(stderr, "\r[%s%s] %s\033[K%s", std::string(filled, '=').c_str(), std::string(20 - filled, ' ').c_str(), text.c_str(),
                 done == total_ ? "\n" : "");
  }

 private:
  Index total_;
  std::string label_;
  bool terminal_;
  double start_ = now(), next_line_ = 0;
};

/// Writes a report where --json asks for it; the file is whole or untouched.
inline void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& report) {
  if (path.empty()) return;
  lowrank::AtomicFile file(path, "write_json");
  file.write(report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  file.commit();
}

/// A loss curve as a picture that any browser shows.
inline std::string loss_svg(const std::vector<double>& losses, const std::string& title) {
  std::vector<double> steps(losses.size());
  std::iota(steps.begin(), steps.end(), 1.0);
  support::Plot plot(title, "step", "nats a token");
  plot.line("", std::move(steps), losses);
  return plot.svg();
}

}  // namespace cli
