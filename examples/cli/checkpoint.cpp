#include <cli/checkpoint.hpp>

#include <utility>

#include <lowrank/io/checkpoint.hpp>

#include <cli/report.hpp>

namespace cli {

std::string run_key(const std::string& model, const std::string& data, const transformer::TrainOptions& o, Index sequence) {
  const Json key = {{"model", model},
                    {"data", data},
                    {"steps", o.steps},
                    {"batch", o.batch},
                    {"sequence", sequence},
                    {"learning_rate", o.learning_rate},
                    {"warmup", o.warmup},
                    {"schedule", static_cast<int>(o.schedule)},
                    {"weight_decay", o.weight_decay},
                    {"clip", o.clip_norm},
                    {"seed", o.seed}};
  return key.line();
}

namespace {

std::filesystem::path checkpoint_file(const std::filesystem::path& folder) { return folder / "checkpoint.safetensors"; }

/// Everything that a step changes, under fixed names.
std::vector<lowrank::StateArray> changing_state(const std::vector<lowrank::ParameterRef<float>>& parameters,
                                                lowrank::AdamW<float>& optimizer) {
  std::vector<lowrank::StateArray> arrays;
  for (const auto& p : parameters) arrays.push_back(lowrank::state_array("parameter/" + p.name, p.value(), {p.rows, p.cols}));
  return lowrank::with_optimizer(std::move(arrays), optimizer);
}

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const std::string& key,
                     const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer,
                     const std::vector<double>& losses) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  lowrank::check<lowrank::IoError>(!failure, "checkpoint", "cannot create the folder ", folder, ": ", failure.message());
  lowrank::save_state(checkpoint_file(folder), changing_state(parameters, optimizer), {{"run", key}, {"losses", Json(losses).line()}});
}

Index load_checkpoint(const std::filesystem::path& folder, const std::string& key,
                      const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer,
                      std::vector<double>& losses) {
  using lowrank::FormatError;
  const auto file = lowrank::safetensors::File::open(checkpoint_file(folder));
  const auto value = [&](const char* name) {
    for (const auto& [k, v] : file.metadata())
      if (k == name) return v;
    lowrank::fail<FormatError>("checkpoint", folder, " has no ", name, "; it is not a checkpoint of finetune");
  };
  lowrank::check<FormatError>(value("run") == key, "checkpoint", folder, " belongs to another run: it was made with ", value("run"),
                              ", this run is ", key);
  const auto history = parse_numbers(value("losses"));
  lowrank::check<FormatError>(history.has_value(), "checkpoint", folder, ": losses are not a list of numbers");
  lowrank::load_state(checkpoint_file(folder), changing_state(parameters, optimizer));
  const auto step = static_cast<Index>(history->size());  // those with a loss that was not finite changed nothing
  lowrank::check<FormatError>(optimizer.steps() <= step, "checkpoint", folder, ": has ", step, " losses of ", optimizer.steps(), " steps");
  losses = *history;
  return step;
}

}  // namespace cli
