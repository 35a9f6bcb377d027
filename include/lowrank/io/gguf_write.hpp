#pragma once

#include <filesystem>
#include <span>

#include <lowrank/io/gguf.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

/// Writes a GGUF file of version 3, atomically, metadata and tensors in the given order.
///
/// Throws ValueError for names that occur twice, ShapeError when bytes and shape disagree, IoError; then nothing has changed.
void write(const std::filesystem::path& path, const Metadata& metadata, std::span<const Tensor> tensors);

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gguf_write.inl>
#endif
