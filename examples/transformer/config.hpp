#pragma once

/// What a decoder-only transformer is made of: its sizes, and where it differs from a Llama.

#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/ops/rope.hpp>

namespace transformer {

using lowrank::Index;

/// The linear maps of a block, in the order of the forward pass. Some families keep two or three as one matrix.
enum class Projection { query, key, value, query_key_value, output, gate, up, gate_up, down };

/// Where a block may have an RMS norm: before and after its two parts, and on queries and keys.
enum class NormPlace { attention_input, query, key, attention_output, mlp_input, mlp_output };
inline constexpr std::size_t norm_places = 6;
inline constexpr std::array<NormPlace, norm_places> all_norm_places = {
    NormPlace::attention_input, NormPlace::query, NormPlace::key, NormPlace::attention_output, NormPlace::mlp_input, NormPlace::mlp_output};

/// f of the gated MLP, Wdown · (f(Wgate·m) ⊙ Wup·m).
enum class Gate { silu, gelu_tanh };

/// What one layer's attention sees of positions.
struct LayerKind {
  bool windowed = false;  ///< sees config.window keys only, and turns by config.local_rope where there is one
  bool turns = true;      ///< by RoPE; else it knows no positions
};

/// Rotary positions whose frequencies follow the length of the sequence.
struct RopeGrowth {
  enum class Kind { none, dynamic, long_factors };
  Kind kind = Kind::none;
  Index original_context = 0;             ///< up to it RoPE stays as it is
  double factor = 1;                      ///< dynamic: base · (factor · length / original − (factor − 1))^(n / (n − 2))
  std::vector<double> long_factors = {};  ///< beyond it these take the place of the frequency factors
};

/// Sizes and differences; the defaults are a Llama's.
struct ModelConfig {
  Index vocabulary = 0;    ///< tokens
  Index hidden = 0;        ///< width of the residual stream
  Index layers = 0;        ///< blocks
  Index heads = 0;         ///< query heads
  Index kv_heads = 0;      ///< key and value heads, each shared by heads / kv_heads queries
  Index head_size = 0;     ///< width of a head
  Index intermediate = 0;  ///< width of the MLP
  Index context = 0;       ///< longest sequence
  float norm_epsilon = 1e-5f;
  bool tied_head = false;          ///< the output head is the embedding table
  lowrank::RopeOptions rope = {};  ///< base, pairing and stretching of the positions

  std::string architecture = "llama";  ///< by the name of GGUF files; see architecture.hpp
  std::string type = {};               ///< by the name of config.json, where several share an architecture
  bool fused = false;                  ///< queries, keys and values are one map, gate and up another
  /// Which norms a block has, by NormPlace.
  std::array<bool, norm_places> norms = {true, false, false, false, true, false};
  bool norms_whole_vectors = false;  ///< norms of queries and keys run over all heads at once
  Gate gate = Gate::silu;
  double embedding_scale = 1, residual_scale = 1, logit_scale = 1;  ///< what is multiplied by them
  double attention_scale = 0;                                       ///< of the scores; 0: 1 / √head_size
  double attention_cap = 0, logit_cap = 0;                          ///< x becomes cap · tanh(x / cap); 0: it stays
  Index window = 0;                                                 ///< keys that windowed layers see
  std::vector<LayerKind> kinds = {};                                ///< one a layer; none: all see everything
  std::vector<lowrank::RopeOptions> local_rope = {};                ///< of windowed layers, where it is another: one
  RopeGrowth growth = {};                                           ///< of rope
  std::vector<std::string> unread = {};                             ///< keys of the file that have no meaning here

  Index query_width() const { return heads * head_size; }
  Index kv_width() const { return kv_heads * head_size; }

  bool has(NormPlace place) const { return norms[static_cast<std::size_t>(place)]; }
  Index norm_size(NormPlace place) const {
    if (place == NormPlace::query) return norms_whole_vectors ? query_width() : head_size;
    if (place == NormPlace::key) return norms_whole_vectors ? kv_width() : head_size;
    return hidden;
  }
  LayerKind kind(Index layer) const { return kinds.empty() ? LayerKind{} : kinds[static_cast<std::size_t>(layer)]; }
  /// RoPE of sequences of so many tokens.
  lowrank::RopeOptions rope_of(Index length) const;
  /// Whether keys that turned for a text of one length must turn anew for one of the other: where other factors count. The base of dynamic
  /// RoPE grows token by token, and earlier keys stay, as in transformers.
  bool turns_anew(Index length, Index other) const {
    return growth.kind == RopeGrowth::Kind::long_factors && (length <= growth.original_context) != (other <= growth.original_context);
  }

  /// The maps of every block.
  std::span<const Projection> projections() const;
  /// Rows and columns of a map.
  Index out_features(Projection projection) const;
  Index in_features(Projection projection) const;
  /// Place of a block's map in an adapter's list. Throws ValueError where the architecture has none.
  Index slot(Index layer, Projection projection) const;
  Projection projection_of(Index slot) const { return projections()[static_cast<std::size_t>(slot % block_slots())]; }
  Index layer_of(Index slot) const { return slot / block_slots(); }
  /// The output head's place: behind the maps of all blocks. The token table is behind it.
  Index head_slot() const { return layers * block_slots(); }
  Index block_slots() const { return static_cast<Index>(projections().size()); }
  /// The first of the maps that read the same input as a slot's.
  Index input_slot(Index slot) const;
  /// The path by which PEFT knows a slot: model.layers.3.self_attn.q_proj, lm_head, or model.embed_tokens.
  std::string path(Index slot) const;

  /// Throws FormatError unless the numbers describe a model.
  void validate() const;
};

/// The map's module inside a layer of a Hugging Face model, and its tensor in a block of a GGUF file, without ".weight".
const char* module_name(Projection projection);
const char* gguf_name(Projection projection);

}  // namespace transformer
