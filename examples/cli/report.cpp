#include <cli/report.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

#include <lowrank/io/file.hpp>
#include <lowrank/io/json.hpp>

#include <support/plot.hpp>

namespace cli {

Json::Json(std::initializer_list<Member> members) : kind_(Kind::object), members_(members) {}

void Json::push_back(Json item) { members_.emplace_back(std::string(), std::move(item)); }

Json& Json::operator[](const std::string& name) {
  if (kind_ == Kind::null) kind_ = Kind::object;
  for (auto& [known, value] : members_)
    if (known == name) return value;
  return members_.emplace_back(name, nullptr).second;
}

void Json::update(const Json& other) {
  for (const auto& [name, value] : other.members_) (*this)[name] = value;
}

/// Writes a value of a report: objects keep the order of their members, numbers and texts are nlohmann-json's.
struct JsonWriter {
  int indent;  // of a member in its object; -1: all on one line
  std::string text = {};

  void write(const Json& value, int depth = 0) {
    switch (value.kind_) {
      case Json::Kind::null:
        return append(nullptr);
      case Json::Kind::truth:
        return append(value.integer_ != 0);
      case Json::Kind::integer:
        return append(value.integer_);
      case Json::Kind::real:
        return append(value.real_);
      case Json::Kind::text:
        return append(value.text_);
      case Json::Kind::list:
      case Json::Kind::object:
        return write_members(value, depth);
    }
  }

 private:
  void append(const lowrank::json::Json& leaf) { text += lowrank::json::readable(leaf); }
  void new_line(int depth) {
    if (indent >= 0) text += '\n' + std::string(static_cast<std::size_t>(depth * indent), ' ');
  }
  void write_members(const Json& value, int depth) {
    const bool is_list = value.kind_ == Json::Kind::list;
    text += is_list ? '[' : '{';
    for (const auto& [name, member] : value.members_) {
      if (&member != &value.members_.front().second) text += ',';
      new_line(depth + 1);
      if (!is_list) append(name), text += indent >= 0 ? ": " : ":";
      write(member, depth + 1);
    }
    if (!value.members_.empty()) new_line(depth);
    text += is_list ? ']' : '}';
  }
};

namespace {
std::string json_text(const Json& value, int indent) {
  JsonWriter writer{indent};
  writer.write(value);
  return writer.text;
}
}  // namespace

std::string Json::lines() const { return json_text(*this, 2); }
std::string Json::line() const { return json_text(*this, -1); }

std::optional<std::vector<double>> parse_numbers(const std::string& text) {
  const auto list = lowrank::json::parse(text, "checkpoint", "the losses");
  if (!list.is_array() || !std::all_of(list.begin(), list.end(), [](const auto& item) { return item.is_number(); })) return std::nullopt;
  return list.get<std::vector<double>>();
}

void write_json(const std::filesystem::path& path, const Json& report) {
  if (path.empty()) return;
  lowrank::AtomicFile file(path, "write_json");
  file.write(report.lines() + "\n");
  file.commit();
}

double now() {
  static const auto start = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

long long peak_memory() {
  std::ifstream status("/proc/self/status");  // of this process: what getrusage says on Linux outlives fork and exec
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<long long>(usage.ru_maxrss) * 1024;
}

std::string human_bytes(long long bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
  return text;
}

Progress::Progress(Index total, std::string label) : total_(total), label_(std::move(label)), terminal_(isatty(STDERR_FILENO) != 0) {}

void Progress::show(Index done, double loss, double tokens_per_second) {
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

void Progress::say(const std::string& text) const { std::fprintf(stderr, terminal_ ? "\r\033[K%s\n" : "%s\n", text.c_str()); }

std::string loss_svg(const std::vector<double>& losses, const std::string& title) {
  std::vector<double> steps(losses.size());
  std::iota(steps.begin(), steps.end(), 1.0);
  support::Plot plot(title, "step", "nats a token");
  plot.line("", std::move(steps), losses);
  return plot.svg();
}

}  // namespace cli
