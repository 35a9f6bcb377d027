#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/io/checkpoint.hpp>
#include <lowrank/optim/adamw.hpp>

namespace cli {

using lowrank::Index;

/// What a run was asked for by one option, in words.
struct Setting {
  std::string option, value;
  bool is_contents = false;  ///< a hash of what a file came to, which other settings may have changed
};

/// Everything that a step changes, under fixed names.
std::vector<lowrank::StateArray> changing_state(const std::vector<lowrank::ParameterRef<float>>& parameters,
                                                lowrank::AdamW<float>& optimizer);

/// A run's checkpoint: arrays, the settings that it was made with, and lists of numbers by name, in one file that is whole or not there.
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& folder) : folder_(folder), file_(folder / "checkpoint.safetensors") {}

  using Lists = std::vector<std::pair<std::string, std::vector<double>>>;
  void save(const std::vector<lowrank::StateArray>& arrays, const std::vector<Setting>& settings, const Lists& lists) const;

  /// Throws FormatError, naming the settings that differ and both values of each, unless it was made with the same ones; IoError.
  void check_same_run(const std::vector<Setting>& settings) const;
  /// Throws FormatError where there is no such list.
  std::vector<double> list(const std::string& name) const;
  /// Throws FormatError, IoError; then nothing has changed.
  void load(const std::vector<lowrank::StateArray>& arrays) const { lowrank::load_state(file_, arrays); }

 private:
  std::filesystem::path folder_, file_;
};

}  // namespace cli
