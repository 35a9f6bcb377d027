#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/io/imatrix.hpp>

#include <transformer/adapters.hpp>

namespace transformer {

/// How an adapter is stored in a copy of its model.
struct MergeOptions {
  /// same, f32, f16, bf16, and for GGUF files the others of gguf::writable_types(); for the layers that change, and in a folder for all
  /// that are quantized
  std::string to = "same";
  bool search = false;                                          ///< scales of NF4 and FP4 by search, so that rounding costs less
  Index residual_rank = 0;                                      ///< above 0: an adapter of that rank for what rounding lost
  const lowrank::gguf::ImportanceMatrix* importance = nullptr;  ///< weighs what rounding loses in ggml's formats
};

/// What became of one layer, and what its adapter would have to add.
struct MergedLayer {
  std::string path;
  std::string format;  ///< in which it is stored; of a GGUF file another one than asked for where rows do not divide into blocks
  lowrank::MergeReport report;
};

struct MergedModel {
  std::vector<MergedLayer> layers;
  LoraSet residual;  ///< the best updates of MergeOptions::residual_rank for W' - Q; empty without
};

/// Writes a copy of the model at `source` (a GGUF file, or a Hugging Face folder, dense or 4-bit) with W' in place of each W that the set
/// changes by an update or a full copy (merged_weight.hpp), in the same format or another; everything else keeps its bytes. `model` is the
/// one at `source`, which is only read. A head that is the token table becomes one of its own where only one of them changes. A folder
/// whose layers are quantized (bitsandbytes, GPTQ, AWQ) is written dense with `to` f32, f16 or bf16, and config.json no longer says that it
/// is.
///
/// Throws ValueError for a format that cannot be written (GPTQ and AWQ are only read), for a bias of lm_head's update, for a search without
/// 4-bit weights of bitsandbytes, and where a result is not finite; then nothing is written.
MergedModel merge_model(const Transformer& model, const LoraSet& set, const std::filesystem::path& source, const std::filesystem::path& out,
                        const MergeOptions& options);

}  // namespace transformer
