#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <transformer/model.hpp>

namespace transformer {

/// In what format the frozen base is kept: as the file has it, or converted while it is read.
enum class Base { native, nf4, fp32, bf16 };

Base parse_base(const std::string& name);

/// W [out, in] of a layer as numbers: a dense copy.
lowrank::Weight<float> dense_weight(const AdaptedLinear& layer);

/// A checksum (FNV-1a) over every number of the base: two models with the same one are the same to the bit.
std::uint64_t fingerprint(const Transformer& model);

/// Why a result is not finite and what to do about it, for an error: the first weight or update that holds such numbers, or that none
/// does, so that sums overflow. Cost: every matrix is decoded once.
std::string not_finite_reason(const Transformer& model, const LoraSet* lora);

/// A layer's weight in another format, its bias kept. One dense copy of this one weight exists meanwhile.
AdaptedLinear converted(const AdaptedLinear& layer, Base base);

/// Converts all linear layers of the blocks; embedding and head follow only for fp32 and bf16, as QLoRA quantizes neither.
void convert_base(Transformer& model, Base base);

/// Opens a .gguf file or a Hugging Face folder, its weights mapped and frozen. Throws IoError or FormatError.
Transformer load_model(const std::filesystem::path& path, Base base = Base::native);

}  // namespace transformer
