#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/io/file.hpp>

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
  const double width = 640, height = 360, left = 56, bottom = 40, top = 32;
  double low = losses.front(), high = low;
  for (const double loss : losses) low = std::min(low, loss), high = std::max(high, loss);
  if (high - low < 1e-9) high = low + 1;
  std::string points;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const double x = left + (width - left - 16) * (losses.size() > 1 ? static_cast<double>(i) / static_cast<double>(losses.size() - 1) : 0);
    points += format("%.1f,%.1f ", x, top + (height - top - bottom) * (high - losses[i]) / (high - low));
  }
  std::string svg = format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\">\n", width, height);
  svg += format("<rect width=\"%.0f\" height=\"%.0f\" fill=\"white\"/>\n<text x=\"%.0f\" y=\"20\">%s</text>\n", width, height, left,
                title.c_str());
  for (int tick = 0; tick <= 4; ++tick) {
    const double y = top + (height - top - bottom) * tick / 4;
    svg += format(
        "<line x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/><text x=\"%.0f\" y=\"%.1f\" "
        "text-anchor=\"end\">%.3f</text>\n",
        left, width - 16, y, y, left - 6, y + 4, high - (high - low) * tick / 4);
  }
  svg += format("<polyline fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"1.5\" points=\"%s\"/>\n", points.c_str());
  return svg + format("<text x=\"%.0f\" y=\"%.0f\">step 1 to %zu</text>\n</svg>\n", left, height - 12, losses.size());
}

}  // namespace cli
