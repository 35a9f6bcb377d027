#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/io/gguf.hpp>

/// GGUF adapters, which llama.cpp adds to a GGUF model: W becomes W + alpha / r · B A.
///
/// Metadata: general.type "adapter", general.architecture that of the base, adapter.type "lora", adapter.lora.alpha (absent or 0: the scale
/// is 1). For a base tensor T, T.lora_a [r, in] and T.lora_b [out, r]; of token embeddings T.lora_a is [vocabulary, r], Aᵀ.

namespace lowrank::inline LOWRANK_ABI::gguf {

/// A matrix of a GGUF model and the module that it is elsewhere.
struct LoraModule {
  std::string tensor;     // such as "blk.0.attn_q.weight"
  std::string path;       // such as "model.layers.0.self_attn.q_proj"
  Index in = 0, out = 0;  // sizes of W [out, in]; of an embedding in is the vocabulary, out the width
  Index heads = 0;        // heads whose rows GGUF interleaves for RoPE (q: heads, k: key/value heads); 0: rows as they are
  bool is_embedding = false;
};

/// What an adapter must know of its base.
struct LoraBase {
  std::string architecture;  // "general.architecture", such as "llama"
  std::vector<LoraModule> modules;
};

/// Throws what save_adapter would throw for this adapter, whatever its numbers: to be asked before a long training.
void check_adapter(const Adapter& adapter, const LoraBase& base, const std::filesystem::path& path);

/// Writes an adapter for llama.cpp and every other reader of GGUF adapters; A and B keep their element type (F64 becomes F32).
///
/// adapter.lora.alpha is scale · r of most layers, so rank-stabilized adapters keep their scale; a layer with another product gets the
/// quotient into B, in F32. Throws ValueError for what the format cannot hold (tensors beside A and B, full copies), ShapeError naming the
/// first module that the base does not have with these sizes, IoError; then nothing has changed.
void save_adapter(const Adapter& adapter, const LoraBase& base, const std::filesystem::path& path);

/// Loads a GGUF adapter as one of module paths, with rows as Hugging Face files have them; so it can be saved for PEFT.
///
/// F32, F16 and BF16 tensors share the mapped bytes unless rows move; Q8_0 becomes F32. Strict: another architecture, a tensor that is no
/// half of a pair or belongs to no module, another shape, numbers that are not finite are FormatErrors or ShapeErrors that name it.
Adapter load_adapter(const File& source, const LoraBase& base);

/// The same by the path of the file. Throws IoError too.
Adapter load_adapter(const std::filesystem::path& path, const LoraBase& base);

}  // namespace lowrank::inline LOWRANK_ABI::gguf

#if !defined(LOWRANK_COMPILED)
#include <lowrank/io/gguf_lora.inl>
#endif
