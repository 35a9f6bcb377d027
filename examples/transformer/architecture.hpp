#pragma once

/// The table of architectures: what a family's files call its parts, and where its models differ from a Llama.

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <transformer/config.hpp>
#include <transformer/fields.hpp>

namespace transformer {

/// A number of a description. Files that do not have it mean the default; none: the number is required.
struct Setting {
  std::variant<Index ModelConfig::*, double ModelConfig::*, float ModelConfig::*, bool ModelConfig::*> member;
  const char *folder, *gguf;  ///< its key in config.json, and in GGUF metadata behind "ARCHITECTURE."; null: not there
  std::optional<double> folder_default, gguf_default;
  std::optional<double> when_null = {};  ///< what null means, where it is not the default
};

/// Which layers see a window only.
enum class Windows {
  none,
  every_layer,
  pattern,       ///< all but each n-th layer
  late_layers,   ///< from max_window_layers on, where use_sliding_window says so (Qwen)
  where_no_rope  ///< layers without RoPE, where use_sliding_window says so (SmolLM3)
};

/// Whether linear maps of attention or of the MLP have biases.
enum class Biases { never, by_key, query_key_value };

/// Of a norm: its module in a Hugging Face layer, and its tensor in a GGUF block.
struct NormName {
  NormPlace place;
  const char *folder, *gguf;
};

struct Architecture {
  const char* name;  ///< general.architecture of GGUF files
  const char* type;  ///< model_type of config.json
  std::vector<NormName> norms = {{NormPlace::attention_input, "input_layernorm", "attn_norm"},
                                 {NormPlace::mlp_input, "post_attention_layernorm", "ffn_norm"}};
  lowrank::RopePairs gguf_pairs = lowrank::RopePairs::halves;  ///< interleaved: GGUF files permute the rows of q and k
  bool fused = false;                                          ///< see ModelConfig
  bool norms_whole_vectors = false;                            ///< see ModelConfig
  bool norms_add_one = false;                                  ///< folders store w − 1
  Gate gate = Gate::silu;
  bool scales_embedding = false;  ///< by √hidden
  Index layers_of_largest = 0;    ///< of the one model whose GGUF files scale scores by another size of heads (Gemma); 0: none
  Biases attention_bias = Biases::by_key, mlp_bias = Biases::never;
  Windows windows = Windows::none;
  bool reads_gguf_window = false;      ///< whether GGUF files of the family have windows
  Index window_period = 0;             ///< of Windows::pattern where files do not say
  Index rope_period = 0;               ///< each so-many-th layer has no RoPE where files do not say; 0: all have it
  double rope_base = 10000;            ///< of folders that do not say
  bool has_local_rope = false;         ///< windowed layers turn by a base of their own
  bool stretches_windows = true;       ///< the stretching of positions in GGUF files holds for windowed layers, too
  bool may_lack_rope = false;          ///< GGUF files may say that no layer turns
  bool turns_parts = false;            ///< RoPE may turn a part of each head
  Index original_context = 0;          ///< of longrope where folders do not say; 0: the context
  std::vector<Setting> settings = {};  ///< numbers beside the common ones, or with other defaults
};

/// All of them.
std::span<const Architecture> architectures();

/// Of a model, by its name and type.
const Architecture& architecture_of(const ModelConfig& config);

/// Fills a configuration from fields and checks it. Throws FormatError for what is missing, has no sense, or is known to change the
/// computation of some family but not of this one.
ModelConfig read_config(const Architecture& architecture, const Fields& fields, Index vocabulary_of_gguf = 0);

/// The architecture of a name or a model_type. Throws FormatError with all that there are; mixtures of experts by name.
const Architecture& find_architecture(const Fields& fields, const std::string& name);

}  // namespace transformer
