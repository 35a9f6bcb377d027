#include <cli/checkpoint.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <span>

#include <lowrank/io/safetensors.hpp>

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

struct Part {
  std::string name;
  std::span<float> numbers;
  Index rows, cols;
};

/// Everything that a step changes, under fixed names.
std::vector<Part> changing_parts(const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer) {
  std::vector<Part> parts;
  for (const auto& p : parameters) parts.push_back({"parameter/" + p.name, p.value, p.rows, p.cols});
  for (const auto& s : optimizer.state()) parts.push_back({"optimizer/" + s.name, s.numbers, s.rows, s.cols});
  return parts;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const std::string& key, Index step,
                     const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer,
                     const std::vector<double>& losses) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  lowrank::check<lowrank::IoError>(!failure, "checkpoint", "cannot create the folder ", folder, ": ", failure.message());
  std::vector<lowrank::StoredTensor> tensors;
  for (const auto& part : changing_parts(parameters, optimizer))
    tensors.push_back(lowrank::make_tensor<float>(part.name, {part.rows, part.cols}, part.numbers));
  lowrank::safetensors::write(checkpoint_file(folder), tensors,
                              {{"run", key}, {"step", std::to_string(step)}, {"losses", Json(losses).line()}});
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
  for (const auto& part : changing_parts(parameters, optimizer)) {
    const auto& tensor = file.at(part.name);
    lowrank::check<FormatError>(tensor.dtype == lowrank::DType::f32 && tensor.bytes.size() == part.numbers.size_bytes(), "checkpoint",
                                folder, ": ", part.name, " has another size; rank and targets must be those of the checkpoint");
    std::memcpy(part.numbers.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  const std::string digits = value("step");
  const auto history = parse_numbers(value("losses"));
  const bool is_number = !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  const Index step = is_number ? std::strtoll(digits.c_str(), nullptr, 10) : -1;
  lowrank::check<FormatError>(history && static_cast<Index>(history->size()) == step, "checkpoint", folder,
                              ": step and losses do not agree");
  losses = *history;
  optimizer.set_steps(step);
  return step;
}

}  // namespace cli
