#pragma once

#include <optional>
#include <string>

#include <lowrank/quant/any_matrix.hpp>

#include <transformer/folder.hpp>

namespace transformer {

/// The weight [rows, cols] of a layer that GPTQ or AWQ packed, its tensors marked as read; nothing where the folder has no `name`.qweight.
///
/// How it is packed stands in config.json, or in AutoGPTQ's quantize_config.json. Throws FormatError where neither says so, and for another
/// shape.
std::optional<lowrank::AnyMatrix> take_packed(FolderTensors& tensors, const std::string& name, Index rows, Index cols);

}  // namespace transformer
