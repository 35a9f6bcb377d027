#pragma once

#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/ops/rope.hpp>

namespace transformer {

using lowrank::Index;

/// The sizes of a Llama model, by the names of the paper; the two file formats spell them differently.
struct LlamaConfig {
  Index vocabulary = 0;    ///< tokens
  Index hidden = 0;        ///< width of the residual stream
  Index layers = 0;        ///< blocks
  Index heads = 0;         ///< query heads
  Index kv_heads = 0;      ///< key and value heads, each shared by heads / kv_heads queries
  Index head_size = 0;     ///< width of a head
  Index intermediate = 0;  ///< width of the MLP
  Index context = 0;       ///< longest sequence
  float norm_epsilon = 1e-5f;
  bool tied_head = false;     ///< the output head is the embedding table
  lowrank::RopeOptions rope;  ///< base, pairing and stretching of the positions

  Index query_width() const { return heads * head_size; }
  Index kv_width() const { return kv_heads * head_size; }

  /// Throws FormatError unless the sizes describe a model.
  void validate() const {
    const auto positive = [](Index value, const char* name) {
      lowrank::check<lowrank::FormatError>(value > 0 && value <= (Index{1} << 31), "llama_config", name, " is ", value,
                                           "; it must lie in [1, 2^31]");
    };
    positive(vocabulary, "vocabulary size"), positive(hidden, "hidden size"), positive(layers, "number of layers");
    positive(heads, "number of heads"), positive(kv_heads, "number of key/value heads"), positive(head_size, "head size");
    positive(intermediate, "intermediate size"), positive(context, "context length");
    lowrank::check<lowrank::FormatError>(layers <= 4096, "llama_config", layers, " layers; at most 4096 are supported");
    lowrank::check<lowrank::FormatError>(head_size <= 1 << 16, "llama_config", "head size ", head_size, "; at most 65536 is supported");
    lowrank::check<lowrank::FormatError>(heads % kv_heads == 0, "llama_config", heads, " heads do not divide into ", kv_heads,
                                         " key/value heads");
    lowrank::check<lowrank::FormatError>(head_size % 2 == 0, "llama_config", "head size ", head_size,
                                         " is odd; rotary positions turn pairs");
    lowrank::check<lowrank::FormatError>(norm_epsilon > 0 && norm_epsilon < 1, "llama_config", "norm epsilon ", norm_epsilon,
                                         " must lie in (0, 1)");
  }
};

/// The linear maps of a block, in the order of the forward pass.
enum class Projection { query, key, value, output, gate, up, down };
inline constexpr Index projections = 7;

/// Position of a block's projection, or of the head (layer = number of layers), in an adapter's list.
constexpr Index slot(Index layer, Projection projection) { return layer * projections + static_cast<Index>(projection); }

/// The projection's module inside a Hugging Face Llama layer.
inline const char* module_name(Projection projection) {
  static constexpr const char* names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
  return names[static_cast<int>(projection)];
}

/// The same in a GGUF file, without ".weight".
inline const char* gguf_name(Projection projection) {
  static constexpr const char* names[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  return names[static_cast<int>(projection)];
}

/// The path by which PEFT knows a slot: model.layers.3.self_attn.q_proj, or lm_head.
inline std::string slot_path(const LlamaConfig& config, Index slot) {
  if (slot == config.layers * projections) return "lm_head";
  return lowrank::concat("model.layers.", slot / projections, '.', module_name(static_cast<Projection>(slot % projections)));
}

}  // namespace transformer
