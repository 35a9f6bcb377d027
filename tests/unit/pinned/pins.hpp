#pragma once

/// Pinned bits: what small problems gave when tests/golden/pinned.txt was written, as hashes, for each kernel target. A change of
/// design must not change one of them; a change of arithmetic changes just the lines that it means to.
///
/// LOWRANK_WRITE_PINS=FILE unit_pinned writes the lines instead of comparing them. Bits are those of one compiler and one Eigen, which
/// the file names; another build compares nothing and says so.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <lowrank/core/matrix.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace pins {

using namespace lowrank;

/// The targets that the file has a column for, in its order.
inline constexpr const char* pinned_targets[] = {"scalar", "avx2", "avx512", "avx512bf16"};

/// FNV-1a over bytes, in 64 bits.
class Hash {
 public:
  template <class T>
  void add(const T* numbers, Index count) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(numbers);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count) * sizeof(T); ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  std::string text() const {
    std::ostringstream out;
    out << std::hex << std::setfill('0') << std::setw(16) << value_;
    return out.str();
  }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// What the problems of one theme gave on one target: a hash a name. What is added to a name again continues its hash.
class Results {
 public:
  explicit Results(std::string theme) : theme_(std::move(theme)) {}

  template <class Matrix>
  void add(const std::string& name, const Matrix& matrix) {
    const auto numbers = matrix.eval();
    const Index sizes[] = {numbers.rows(), numbers.cols()};
    Hash& hash = hashes_[theme_ + "/" + name];
    hash.add(sizes, 2);
    hash.add(numbers.data(), numbers.size());
  }
  const std::map<std::string, Hash>& hashes() const { return hashes_; }

 private:
  std::string theme_;
  std::map<std::string, Hash> hashes_;
};

/// The file: a line a case, "case scalar avx2 avx512 avx512bf16", each a hash or "-" where none is pinned; "#" begins a comment, and
/// "# built with" says for which builds the hashes hold.
class PinFile {
 public:
  using Line = std::map<std::string, std::string>;

  static std::string path() { return std::string(LOWRANK_GOLDEN_DIR) + "/pinned.txt"; }
  static std::string this_build() {
    std::ostringstream out;
#if defined(__clang__)
    out << "clang " << __clang_major__;
#else
    out << "g++ " << __GNUC__;
#endif
#if defined(__x86_64__)
    out << ", x86-64";
#endif
    out << ", Eigen " << EIGEN_WORLD_VERSION << '.' << EIGEN_MAJOR_VERSION;
#if !defined(__OPTIMIZE__)
    out << ", not optimized";
#endif
    return out.str();
  }

  explicit PinFile(const std::string& path) {
    std::ifstream in(path);
    for (std::string text; std::getline(in, text);) {
      if (text.rfind("# built with ", 0) == 0) build = text.substr(13);
      if (text.empty() || text[0] == '#') continue;
      std::istringstream words(text);
      std::string name, hash;
      words >> name;
      for (const char* target : pinned_targets)
        if (words >> hash && hash != "-") lines[name][target] = hash;
    }
  }
  void write(const std::string& path) const {
    std::ofstream out(path);
    out << "# Hashes (FNV-1a, 64 bits) of results, by tests/unit/pinned; LOWRANK_WRITE_PINS=tests/golden/pinned.txt unit_pinned writes "
           "them.\n"
        << "# built with " << this_build() << "\n# case scalar avx2 avx512 avx512bf16\n";
    for (const auto& [name, line] : lines) {
      out << name;
      for (const char* target : pinned_targets) out << ' ' << (line.contains(target) ? line.at(target) : "-");
      out << '\n';
    }
  }
  /// The names that a theme has.
  std::set<std::string> names(const std::string& theme) const {
    std::set<std::string> found;
    for (const auto& [name, line] : lines)
      if (name.rfind(theme + "/", 0) == 0) found.insert(name);
    return found;
  }

  std::string build;
  std::map<std::string, Line> lines;
};

/// Compares one target's results with the file: each hash, and that no case is missing on either side.
inline void compare(const PinFile& file, const std::string& theme, const Results& results) {
  const std::string target = kernels::target_name();
  std::set<std::string> left = file.names(theme);
  for (const auto& [name, hash] : results.hashes()) {
    left.erase(name);
    const auto found = file.lines.find(name);
    const bool is_pinned = found != file.lines.end() && found->second.contains(target);
    CHECK_MESSAGE(is_pinned, name, ": no pin");
    if (is_pinned)
      CHECK_MESSAGE(found->second.at(target) == hash.text(), name, " on ", target, ": pinned ", found->second.at(target), ", is ",
                    hash.text());
  }
  for (const std::string& name : left) CHECK_MESSAGE(false, name, ": pinned, but no longer computed");
}

/// Runs a theme's problems, body(Results&), on each target that the processor has, and compares or writes their hashes. Themes are the
/// beginnings of the cases' names; no theme begins with another and a slash.
template <class Body>
void check_pinned(const std::string& theme, const Body& body) {
  const char* to_write = std::getenv("LOWRANK_WRITE_PINS");
  PinFile file(to_write ? to_write : PinFile::path());
  if (!to_write && file.build != PinFile::this_build()) {
    MESSAGE("nothing is compared: the pins are of ", file.build, ", this is ", PinFile::this_build());
    return;
  }
  std::set<std::string> written;
  for (const kernels::Target* target : kernels::targets()) {
    const bool is_pinned = std::count(std::begin(pinned_targets), std::end(pinned_targets), std::string_view(target->name)) > 0;
    if (!is_pinned || !target->is_available()) continue;
    kernels::set_target(*target);
    Results results(theme);
    body(results);
    if (to_write)
      for (const auto& [name, hash] : results.hashes()) file.lines[name][target->name] = hash.text(), written.insert(name);
    else
      compare(file, theme, results);
  }
  if (!to_write) return;
  for (const std::string& name : file.names(theme))
    if (!written.contains(name)) file.lines.erase(name);
  file.write(to_write);
}

}  // namespace pins
