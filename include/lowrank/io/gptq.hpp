#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <lowrank/core/tensor.hpp>
#include <lowrank/quant/any_matrix.hpp>

/// Weights in four bits with a scale and a zero point for each group of inputs, as AutoGPTQ, GPTQModel and AutoAWQ save them. W [out, in]
/// of a layer with prefix P is w = scale · (q - zero):
///
/// | tensor | GPTQ | AWQ (gemm) |
/// |---|---|---|
/// | P.qweight, int32 | [in / 8, out], eight inputs a word, the first in the lowest bits | [in, out / 8], eight outputs a word |
/// | P.qzeros, int32 | [groups, out / 8], eight outputs a word, the first in the lowest bits; zero - 1 (format gptq_v2: zero) | likewise,
/// zero | | P.scales, fp16 | [groups, out] | [groups, out] | | P.g_idx, int32 | [in], the group of each input; in order where it is missing
/// | |
///
/// Of a word of AWQ the nibbles hold, from the lowest bits on, outputs 0, 2, 4, 6, 1, 3, 5, 7.

namespace lowrank::inline LOWRANK_ABI::gptq {

/// What a model's quantization_config says of all its layers.
struct Packing {
  bool is_awq = false;
  Index group = 128;             ///< inputs that share a scale; -1: all of them
  bool is_zero_less_one = true;  ///< the stored zero points are one too small, and -1 is stored as 15
};

/// Reads the quantization_config of a config.json, or AutoGPTQ's quantize_config.json, which is its content alone; nothing where there is
/// none, or one of another method. Throws FormatError beginning with `file` for bits other than 4 and for packings that are not read.
std::optional<Packing> packing(std::string_view json, const std::string& file);

/// The tensor of that name, or null: in one file, or in the files of a folder.
using Finder = std::function<const StoredTensor*(const std::string& name)>;

/// The layer's weight, repacked so that kernels read it in order; a copy of as many bytes, with scales in fp32. Values are those of the
/// formula above. Throws FormatError beginning with `where` for parts that are missing, of another type or shape, not finite, or for a
/// group that does not exist.
AnyMatrix load_weight(const Finder& find, const std::string& prefix, const Packing& packing, const std::string& where);

}  // namespace lowrank::inline LOWRANK_ABI::gptq

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gptq.inl>
#endif
