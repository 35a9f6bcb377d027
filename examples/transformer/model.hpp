#pragma once

/// A transformer in the order of its papers: Vaswani et al. 2017 (attention), Touvron et al. 2023 (Llama's arrangement).
///
///   x₀      = E[ids]
///   x'      = x + Wo · attention(rope(Wq·n), rope(Wk·n), Wv·n),   n = rms_norm(x)
///   x_next  = x' + Wdown · (silu(Wgate·m) ⊙ Wup·m),               m = rms_norm(x')
///   logits  = Whead · rms_norm(x_last)
///
/// Each W is frozen in whatever format its file has, and may carry a low-rank update: W·x + s·B·(A·x). Where a family differs from
/// Llama, ModelConfig says so: more norms or other places for them, windows, scales, caps, fused maps.
///
/// One source for both devices: a pass with Device = Cuda runs on the GPU in use (lowrank/cuda.hpp), where each weight and update
/// keeps a copy from its first use on. Who reads the numbers of such a pass includes that header; others need not.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>

#include <transformer/block.hpp>
#include <transformer/pass.hpp>

namespace transformer {

class Transformer {
 public:
  using Scalar = float;

  ModelConfig config;
  AdaptedLinear embedding;  // E [vocabulary, hidden], a column of the residual stream a token
  std::vector<Block> blocks;
  Parameter<float> final_norm;
  std::optional<AdaptedLinear> separate_head;  // none: the embedding serves as the head

  /// Output head Whead [vocabulary, hidden].
  const AdaptedLinear& head() const { return separate_head ? *separate_head : embedding; }

  Index slots() const { return head_slot() + 1; }
  Index head_slot() const { return config.head_slot(); }
  Index embedding_slot() const { return slots(); }
  Index slot(Index layer, Projection projection) const { return config.slot(layer, projection); }

  /// The layer of a slot.
  const AdaptedLinear& layer(Index slot) const {
    if (slot == head_slot()) return head();
    const Block& block = blocks[static_cast<std::size_t>(config.layer_of(slot))];
    return block.maps[static_cast<std::size_t>(slot % config.block_slots())];
  }
  AdaptedLinear& layer(Index slot) { return const_cast<AdaptedLinear&>(static_cast<const Transformer&>(*this).layer(slot)); }

  /// All of them by their Hugging Face paths, slot by slot; last the token table.
  std::vector<lowrank::NamedLayer> named_layers() const;
  /// The norms by theirs; the last one's place is behind those of the blocks.
  std::vector<lowrank::NamedNorm> named_norms() const;

  /// Last hidden states [hidden, T], normed, of sequences that lie one after the other. Throws ValueError for one longer than the context.
  template <class Device = Cpu>
  Var<float, Device> hidden(std::span<const std::int32_t> ids, const Sequences& sequences, Pass<Device> pass = {});

  /// Logits [vocabulary, T] of every token.
  template <class Device = Cpu>
  Var<float, Device> logits(std::span<const std::int32_t> ids, const Sequences& sequences = 1, Pass<Device> pass = {});

  /// Logits [vocabulary, 1] that follow the last token.
  template <class Device = Cpu>
  Var<float, Device> next_logits(std::span<const std::int32_t> ids, Pass<Device> pass);

  /// Mean cross-entropy of the targets, nats a token; the logits exist a slice at a time only.
  template <class Device = Cpu>
  Var<float, Device> loss(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, const Sequences& sequences,
                          Pass<Device> pass = {});

  /// Makes everything trainable that can be (dense weights, norms), or freezes it.
  void set_trainable(bool trainable);

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    embedding.visit_parameters(visitor);
    for (Block& block : blocks) {
      for (Parameter<float>& norm : block.norms)
        if (norm.size() > 0) visitor(norm);
      for (AdaptedLinear& map : block.maps) map.visit_parameters(visitor);
    }
    visitor(final_norm);
    if (separate_head) separate_head->visit_parameters(visitor);
  }

  /// Calls visitor(AdaptedLinear) for every weight matrix, each once.
  template <class Visitor>
  void visit_matrices(const Visitor& visitor) const {
    visitor(embedding);
    for (Index s = 0; s < slots(); ++s)
      if (s != head_slot() || separate_head) visitor(layer(s));
  }

  /// Calls visitor(Parameter) for every norm, the last one too.
  template <class Visitor>
  void visit_norms(const Visitor& visitor) const {
    for (const Block& block : blocks)
      for (const Parameter<float>& norm : block.norms)
        if (norm.size() > 0) visitor(norm);
    visitor(final_norm);
  }

  /// Numbers of the model, trainable or not, and the bytes that they take.
  Index parameter_count() const;
  std::size_t bytes() const;
  /// Bytes that a recorded forward pass over so many tokens keeps for the backward pass, unless it recomputes.
  std::size_t kept_bytes(Index tokens) const;
  void set_compute(lowrank::Compute compute) {
    for (Index s = 0; s < slots(); ++s) layer(s).base.set_compute(compute);
  }

 private:
  /// The layer of a slot, or the copy that the pass brings for it.
  template <class Device>
  AdaptedLinear& used(Index slot, const Pass<Device>& pass) {
    AdaptedLinear* copy = pass.lora ? pass.lora->copy_of(slot) : nullptr;
    return copy ? *copy : slot == embedding_slot() ? embedding : layer(slot);
  }
  /// The tokens' rows of the table, with the passes' updates of it.
  template <class Device>
  Var<float, Device> embed(std::span<const std::int32_t> ids, const Sequences& sequences, const Pass<Device>& pass);
  /// A set's update of the table, at the tokens from `begin` on.
  template <class Device>
  Var<float, Device> update_table(Var<float, Device> x, std::span<const std::int32_t> ids, Index begin, LoraSet& set);
  /// Whether a pass changes the head by an update.
  template <class Device>
  bool updates_head(const Pass<Device>& pass) const;

  /// W·x, and s·B·(A·x) where the pass brings an update for the slot.
  template <class Device>
  Var<float, Device> apply(Index slot, Var<float, Device> x, const Pass<Device>& pass);
  /// The same for `count` slots that follow each other and read the same x.
  template <class Device>
  std::vector<Var<float, Device>> apply_each(Index first_slot, Index count, const Var<float, Device>& x, const Pass<Device>& pass);

  /// How far each token's pairs turn: its position in its sequence decides; one table serves all heads, and all layers of a kind.
  struct Angles {
    std::shared_ptr<const lowrank::RopeTable<float>> all, windowed;
  };
  template <class Device>
  Angles rope_angles(Index tokens, const Sequences& sequences, const Pass<Device>& pass) const;

  /// The norm of a block at that place, of each head's part or of all; x itself where the family has none.
  template <class Device>
  Var<float, Device> normed(Index i, NormPlace place, Var<float, Device> x, const Pass<Device>& pass);
  Index norm_index(Index i, NormPlace place) const { return i * static_cast<Index>(norm_places) + static_cast<Index>(place); }

  template <class Device>
  Var<float, Device> add_attention(Index i, Var<float, Device> x, const Sequences& sequences, const Angles& angles,
                                   const Pass<Device>& pass);

  template <class Device>
  Var<float, Device> add_mlp(Index i, Var<float, Device> x, const Pass<Device>& pass);

  /// What several maps make of one x: each map's own, or the rows of the one that they are fused to.
  template <class Device>
  std::vector<Var<float, Device>> maps(Index i, std::span<const Projection> wanted, const Var<float, Device>& x, const Pass<Device>& pass);

  /// Attention of the queries to all keys so far, the new ones included, as layer i sees them.
  template <class Device>
  Var<float, Device> attend_layer(Index i, const Var<float, Device>& q, const Var<float, Device>& k, const Var<float, Device>& v,
                                  const Sequences& sequences, const Pass<Device>& pass) const;

  /// Their mean cross-entropy; with more than loss_slice tokens the logits of so many exist at a time, forward and backward.
  template <class Device>
  Var<float, Device> head_loss(const Var<float, Device>& states, std::span<const std::int32_t> targets, const Pass<Device>& pass);
  static constexpr Index loss_slice = 128;

  /// Logits of states: the head, and what scales or caps them.
  template <class Device>
  Var<float, Device> head_logits(Var<float, Device> states, const Pass<Device>& pass);
};

}  // namespace transformer
