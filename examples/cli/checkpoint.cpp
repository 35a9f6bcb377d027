#include <cli/checkpoint.hpp>

#include <algorithm>
#include <optional>
#include <utility>

#include <cli/report.hpp>

namespace cli {

using lowrank::check, lowrank::FormatError;

namespace {

std::optional<std::string> find(const lowrank::safetensors::Metadata& metadata, const std::string& name) {
  for (const auto& [key, value] : metadata)
    if (key == name) return value;
  return std::nullopt;
}

/// The settings that differ, with both values.
std::string differences(const std::vector<Setting>& settings, const lowrank::safetensors::Metadata& stored, bool of_contents) {
  std::string text;
  for (const Setting& setting : settings) {
    const std::string before = find(stored, setting.option).value_or("unknown to the version that made it");
    if (setting.is_contents == of_contents && before != setting.value)
      text += lowrank::concat(text.empty() ? "" : ", ", setting.option, ' ', before, " (now ", setting.value, ')');
  }
  for (const auto& [option, before] : stored) {
    const auto is_it = [&, &name = option](const Setting& setting) { return setting.option == name; };
    if (!of_contents && option.starts_with("--") && std::none_of(settings.begin(), settings.end(), is_it))
      text += lowrank::concat(text.empty() ? "" : ", ", option, ' ', before, " (now unknown)");
  }
  return text;
}

}  // namespace

std::vector<lowrank::StateArray> changing_state(const std::vector<lowrank::ParameterRef<float>>& parameters,
                                                lowrank::AdamW<float>& optimizer) {
  std::vector<lowrank::StateArray> arrays;
  for (const auto& p : parameters) arrays.push_back(lowrank::state_array("parameter/" + p.name, p.value(), {p.rows, p.cols}));
  return lowrank::with_optimizer(std::move(arrays), optimizer);
}

void Checkpoint::save(const std::vector<lowrank::StateArray>& arrays, const std::vector<Setting>& settings, const Lists& lists) const {
  std::error_code failure;
  std::filesystem::create_directories(folder_, failure);
  check<lowrank::IoError>(!failure, "checkpoint", "cannot create the folder ", folder_, ": ", failure.message());
  lowrank::safetensors::Metadata metadata;
  for (const Setting& setting : settings) metadata.emplace_back(setting.option, setting.value);
  for (const auto& [name, numbers] : lists) metadata.emplace_back(name, Json(numbers).line());
  lowrank::save_state(file_, arrays, metadata);
}

void Checkpoint::check_same_run(const std::vector<Setting>& settings) const {
  const auto file = lowrank::safetensors::File::open(file_);
  std::string other = differences(settings, file.metadata(), false);
  if (other.empty()) other = differences(settings, file.metadata(), true);
  const bool is_longer = other.find("--steps ") != std::string::npos;
  check<FormatError>(other.empty(), "checkpoint", folder_, " was made with ", other,
                     "; give the same to go on, or another --checkpoint to begin anew",
                     is_longer ? ". Where the rate falls, each step's rate depends on the number of steps: to train longer, give what was "
                                 "saved as --adapter, or begin with --schedule constant"
                               : "");
}

std::vector<double> Checkpoint::list(const std::string& name) const {
  const auto file = lowrank::safetensors::File::open(file_);
  const auto text = find(file.metadata(), name);
  const auto numbers = text ? parse_numbers(*text) : std::nullopt;
  check<FormatError>(numbers.has_value(), "checkpoint", folder_, " has no list of ", name, "; it is no checkpoint of finetune");
  return *numbers;
}

}  // namespace cli
