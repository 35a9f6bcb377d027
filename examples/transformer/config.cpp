#include <transformer/config.hpp>

#include <algorithm>

namespace transformer {

namespace {

using lowrank::check;
using lowrank::FormatError;

constexpr Projection separate[] = {Projection::query, Projection::key, Projection::value, Projection::output,
                                   Projection::gate,  Projection::up,  Projection::down};
constexpr Projection fused_maps[] = {Projection::query_key_value, Projection::output, Projection::gate_up, Projection::down};

struct MapName {
  const char *folder, *gguf;
};
constexpr MapName map_names[] = {{"self_attn.q_proj", "attn_q"},     {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
                                 {"self_attn.qkv_proj", "attn_qkv"}, {"self_attn.o_proj", "attn_output"}, {"mlp.gate_proj", "ffn_gate"},
                                 {"mlp.up_proj", "ffn_up"},          {"mlp.gate_up_proj", "ffn_up"},      {"mlp.down_proj", "ffn_down"}};

}  // namespace

const char* module_name(Projection projection) { return map_names[static_cast<int>(projection)].folder; }
const char* gguf_name(Projection projection) { return map_names[static_cast<int>(projection)].gguf; }

std::span<const Projection> ModelConfig::projections() const {
  return fused ? std::span<const Projection>(fused_maps) : std::span<const Projection>(separate);
}

Index ModelConfig::out_features(Projection projection) const {
  switch (projection) {
    case Projection::query:
      return query_width();
    case Projection::key:
    case Projection::value:
      return kv_width();
    case Projection::query_key_value:
      return query_width() + 2 * kv_width();
    case Projection::gate:
    case Projection::up:
      return intermediate;
    case Projection::gate_up:
      return 2 * intermediate;
    default:
      return hidden;
  }
}

Index ModelConfig::in_features(Projection projection) const {
  return projection == Projection::output ? query_width() : projection == Projection::down ? intermediate : hidden;
}

Index ModelConfig::slot(Index layer, Projection projection) const {
  const auto all = projections();
  const auto found = std::find(all.begin(), all.end(), projection);
  check<lowrank::ValueError>(found != all.end(), "slot", "models of the architecture ", architecture, " have no ", module_name(projection));
  return layer * block_slots() + (found - all.begin());
}

Index ModelConfig::input_slot(Index slot) const {
  if (slot >= head_slot()) return slot;
  const Projection projection = projection_of(slot);
  if (projection == Projection::key || projection == Projection::value) return this->slot(layer_of(slot), Projection::query);
  return projection == Projection::up ? this->slot(layer_of(slot), Projection::gate) : slot;
}

std::string ModelConfig::path(Index slot) const {
  if (slot == head_slot()) return "lm_head";
  if (slot > head_slot()) return "model.embed_tokens";
  return lowrank::concat("model.layers.", layer_of(slot), '.', module_name(projection_of(slot)));
}

lowrank::RopeOptions ModelConfig::rope_of(Index length) const {
  lowrank::RopeOptions result = rope;
  if (growth.kind == RopeGrowth::Kind::none || length <= growth.original_context) return result;
  if (growth.kind == RopeGrowth::Kind::long_factors) {
    result.frequency_factors = growth.long_factors;
  } else {
    const double n = static_cast<double>(rope.turned_size()),
                 longer = static_cast<double>(length) / static_cast<double>(growth.original_context);
    result.base *= std::pow(growth.factor * longer - (growth.factor - 1), n / (n - 2));
  }
  return result;
}

void ModelConfig::validate() const {
  const auto positive = [](Index value, const char* name) {
    check<FormatError>(value > 0 && value <= (Index{1} << 31), "model_config", name, " is ", value, "; it must lie in [1, 2^31]");
  };
  positive(vocabulary, "vocabulary size"), positive(hidden, "hidden size"), positive(layers, "number of layers");
  positive(heads, "number of heads"), positive(kv_heads, "number of key/value heads"), positive(head_size, "head size");
  positive(intermediate, "intermediate size"), positive(context, "context length");
  check<FormatError>(layers <= 4096, "model_config", layers, " layers; at most 4096 are supported");
  check<FormatError>(head_size <= 1 << 16, "model_config", "head size ", head_size, "; at most 65536 is supported");
  check<FormatError>(heads % kv_heads == 0, "model_config", heads, " heads do not divide into ", kv_heads, " key/value heads");
  check<FormatError>(head_size % 2 == 0, "model_config", "head size ", head_size, " is odd; rotary positions turn pairs");
  check<FormatError>(norm_epsilon > 0 && norm_epsilon < 1, "model_config", "norm epsilon ", norm_epsilon, " must lie in (0, 1)");
  const auto factor = [](double value, const char* name, bool may_be_zero) {
    check<FormatError>(std::isfinite(value) && (value > 0 || (may_be_zero && value == 0)), "model_config", name, " is ", value,
                       "; it must be positive");
  };
  factor(embedding_scale, "the scale of embeddings", false), factor(residual_scale, "the scale of residuals", false);
  factor(logit_scale, "the scale of logits", false), factor(attention_scale, "the scale of attention", true);
  factor(attention_cap, "the cap of scores", true), factor(logit_cap, "the cap of logits", true);
  check<FormatError>(kinds.empty() || static_cast<Index>(kinds.size()) == layers, "model_config", "there are ", kinds.size(),
                     " kinds of layers for ", layers, " layers; give one each");
  const bool windowed = std::any_of(kinds.begin(), kinds.end(), [](LayerKind kind) { return kind.windowed; });
  check<FormatError>(!windowed || window > 0, "model_config", "some layers see a window of ", window, " tokens; it must be positive");
}

}  // namespace transformer
