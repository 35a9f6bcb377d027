#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/optim/adamw.hpp>

#include <transformer/train.hpp>

namespace cli {

using lowrank::Index;

/// What must be equal for a run to go on from a checkpoint. The numbers of steps and the schedule are part of it: they set each step's
/// rate.
std::string run_key(const std::string& model, const std::string& data, const transformer::TrainOptions& o, Index sequence);

/// Writes parameters, optimizer state and losses as one file, atomically.
void save_checkpoint(const std::filesystem::path& folder, const std::string& key,
                     const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer,
                     const std::vector<double>& losses);

/// Reads what save_checkpoint wrote and returns the step to go on with. Throws FormatError when it belongs to another run.
Index load_checkpoint(const std::filesystem::path& folder, const std::string& key,
                      const std::vector<lowrank::ParameterRef<float>>& parameters, lowrank::AdamW<float>& optimizer,
                      std::vector<double>& losses);

}  // namespace cli
