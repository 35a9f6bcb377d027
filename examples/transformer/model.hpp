#pragma once

/// A Llama in the order of its papers: Vaswani et al. 2017 (attention), Touvron et al. 2023 (this arrangement).
///
///   x₀      = E[ids]
///   x'      = x + Wo · attention(rope(Wq·n), rope(Wk·n), Wv·n),   n = rms_norm(x)
///   x_next  = x' + Wdown · (silu(Wgate·m) ⊙ Wup·m),               m = rms_norm(x')
///   logits  = Whead · rms_norm(x_last)
///
/// Each W is frozen in whatever format its file has, and may carry a low-rank update: W·x + s·B·(A·x).

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/adapted_linear.hpp>

#include <transformer/config.hpp>

namespace transformer {

using lowrank::Activation;
using lowrank::AdaptedLinear;
using lowrank::Index;
using lowrank::LoraWeights;
using lowrank::Parameter;
using lowrank::Tape;
using lowrank::Var;

/// One update a slot (see slot()), or none: what turns the one frozen base into a task's model.
struct LoraSet {
  std::vector<std::optional<LoraWeights<float>>> slots;

  LoraWeights<float>* at(Index slot) {
    auto& weights = slots[static_cast<std::size_t>(slot)];
    return weights ? &*weights : nullptr;
  }
};

/// Keys and values of the tokens that were already read, so that the next one costs one column.
struct Cache {
  std::vector<Activation<float>> keys, values;  // [kv_width, room], one a layer; the first `length` columns count
  Index length = 0;
};

struct Block {
  Parameter<float> attention_norm, mlp_norm;
  AdaptedLinear query, key, value, output;
  AdaptedLinear gate, up, down;
};

/// How a forward pass is run; everything is optional.
struct Pass {
  Tape<float>* tape = nullptr;  ///< records for backward
  LoraSet* lora = nullptr;      ///< updates added to the base
  Cache* cache = nullptr;       ///< continues a sequence (one sequence only)
};

class Llama {
 public:
  using Scalar = float;

  LlamaConfig config;
  AdaptedLinear embedding;  // E [vocabulary, hidden], a column of the residual stream a token
  std::vector<Block> blocks;
  Parameter<float> final_norm;
  std::optional<AdaptedLinear> separate_head;  // none: the embedding serves as the head

  /// Output head Whead [vocabulary, hidden].
  const AdaptedLinear& head() const { return separate_head ? *separate_head : embedding; }

  Index slots() const { return config.layers * projections + 1; }
  Index head_slot() const { return config.layers * projections; }

  /// The layer of a slot.
  const AdaptedLinear& layer(Index slot) const {
    if (slot == head_slot()) return head();
    const Block& block = blocks[static_cast<std::size_t>(slot / projections)];
    const AdaptedLinear* maps[] = {&block.query, &block.key, &block.value, &block.output, &block.gate, &block.up, &block.down};
    return *maps[slot % projections];
  }
  AdaptedLinear& layer(Index slot) { return const_cast<AdaptedLinear&>(static_cast<const Llama&>(*this).layer(slot)); }

  /// Last hidden states [hidden, T], normed, of `sequences` sequences of equal length that lie one after the other.
  /// Throws ValueError for more tokens than the context holds.
  Var<float> hidden(std::span<const std::int32_t> ids, Index sequences, Pass pass = {}) {
    const auto angles = rope_angles(static_cast<Index>(ids.size()), sequences, pass);
    Var<float> x = embedding.base.embed(pass.tape, ids);  // [hidden, T]
    for (Index i = 0; i < config.layers; ++i) {
      x = add_attention(i, std::move(x), sequences, angles, pass);
      x = add_mlp(i, std::move(x), pass);
    }
    if (pass.cache) pass.cache->length += static_cast<Index>(ids.size());
    return rms_norm(x, final_norm, config.norm_epsilon);
  }

  /// Logits [vocabulary, T] of every token.
  Var<float> logits(std::span<const std::int32_t> ids, Index sequences = 1, Pass pass = {}) {
    return apply(head_slot(), hidden(ids, sequences, pass), pass);
  }

  /// Logits [vocabulary, 1] that follow the last token.
  Var<float> next_logits(std::span<const std::int32_t> ids, Pass pass) {
    const Var<float> states = hidden(ids, 1, pass);
    return apply(head_slot(), Var<float>(Activation<float>(states.value().rightCols(1))), pass);
  }

  /// Mean cross-entropy of the targets, nats a token; the logits exist a slice at a time only, unless the head has an update.
  Var<float> loss(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, Index sequences, Pass pass = {}) {
    Var<float> states = hidden(ids, sequences, pass);
    if (pass.lora && pass.lora->at(head_slot())) return cross_entropy(apply(head_slot(), std::move(states), pass), targets);
    return linear_cross_entropy(layer(head_slot()).base, states, targets);
  }

  /// Makes everything trainable that can be (dense weights, norms), or freezes it.
  void set_trainable(bool trainable) {
    for (Index s = 0; s < slots(); ++s) layer(s).base.set_trainable(trainable);
    embedding.base.set_trainable(trainable);
    for (Block& block : blocks) block.attention_norm.trainable = block.mlp_norm.trainable = trainable;
    final_norm.trainable = trainable;
  }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    embedding.visit_parameters(visitor);
    for (Index i = 0; i < config.layers; ++i) {
      Block& block = blocks[static_cast<std::size_t>(i)];
      visitor(block.attention_norm), visitor(block.mlp_norm);
      for (Index p = 0; p < projections; ++p) layer(slot(i, static_cast<Projection>(p))).visit_parameters(visitor);
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

  /// Numbers of the model, trainable or not, and the bytes that they take.
  Index parameter_count() const {
    Index count = config.hidden * (2 * config.layers + 1);
    visit_matrices([&](const AdaptedLinear& w) { count += w.in_features() * w.out_features() + w.base.bias().size(); });
    return count;
  }
  std::size_t bytes() const {
    std::size_t bytes = static_cast<std::size_t>(config.hidden * (2 * config.layers + 1)) * sizeof(float);
    visit_matrices([&](const AdaptedLinear& w) { bytes += w.base.weight_bytes(); });
    return bytes;
  }
  void set_compute(lowrank::Compute compute) {
    for (Index s = 0; s < slots(); ++s) layer(s).base.set_compute(compute);
  }

 private:
  /// W·x, and s·B·(A·x) where the pass brings an update for the slot.
  Var<float> apply(Index slot, Var<float> x, const Pass& pass) {
    return layer(slot).forward(std::move(x), pass.lora ? pass.lora->at(slot) : nullptr);
  }

  using Angles = std::shared_ptr<const lowrank::RopeTable<float>>;

  Var<float> add_attention(Index i, Var<float> x, Index sequences, const Angles& angles, const Pass& pass) {
    const Var<float> n = rms_norm(x, blocks[static_cast<std::size_t>(i)].attention_norm, config.norm_epsilon);
    const Var<float> q = rope(apply(slot(i, Projection::query), n, pass), angles);  // [heads · head_size, T]
    const Var<float> k = rope(apply(slot(i, Projection::key), n, pass), angles);    // [kv_heads · head_size, T]
    const Var<float> v = apply(slot(i, Projection::value), n, pass);
    const lowrank::AttentionShape shape{config.heads, config.kv_heads, config.head_size, sequences};
    Var<float> y = pass.cache ? cached_attention(*pass.cache, i, q, k, v, shape) : attention(q, k, v, shape);
    return std::move(x) + apply(slot(i, Projection::output), std::move(y), pass);
  }

  Var<float> add_mlp(Index i, Var<float> x, const Pass& pass) {
    const Var<float> m = rms_norm(x, blocks[static_cast<std::size_t>(i)].mlp_norm, config.norm_epsilon);
    Var<float> y = swiglu(apply(slot(i, Projection::gate), m, pass), apply(slot(i, Projection::up), m, pass));  // [intermediate, T]
    return std::move(x) + apply(slot(i, Projection::down), std::move(y), pass);
  }

  /// Attention of the new queries to all keys so far, the new ones included.
  Var<float> cached_attention(Cache& cache, Index i, const Var<float>& q, const Var<float>& k, const Var<float>& v,
                              const lowrank::AttentionShape& shape) const {
    cache.keys.resize(blocks.size()), cache.values.resize(blocks.size());
    const Index length = cache.length + k.cols();
    const auto append = [&](Activation<float>& all, const Activation<float>& fresh) {
      if (all.cols() < length) all.conservativeResize(config.kv_width(), std::max(length, 2 * all.cols()));
      all.middleCols(cache.length, fresh.cols()) = fresh;
      return all.leftCols(length);
    };
    const auto keys = append(cache.keys[static_cast<std::size_t>(i)], k.value());
    const auto values = append(cache.values[static_cast<std::size_t>(i)], v.value());
    return Var<float>(lowrank::attention_forward(q.value(), keys, values, shape).y);
  }

  /// How far each token's pairs turn: its position in its sequence decides; one table serves all heads and layers.
  Angles rope_angles(Index tokens, Index sequences, const Pass& pass) const {
    using lowrank::ValueError;
    lowrank::check<ValueError>(sequences > 0 && tokens > 0 && tokens % sequences == 0, "llama", tokens, " tokens do not divide into ",
                               sequences, " sequences of equal, positive length");
    lowrank::check<ValueError>(!pass.cache || sequences == 1, "llama", "a cache continues one sequence, not ", sequences);
    const Index start = pass.cache ? pass.cache->length : 0, length = tokens / sequences;
    lowrank::check<ValueError>(start + length <= config.context, "llama", "a sequence of ", start + length,
                               " tokens exceeds the context of ", config.context, "; shorten the text");
    std::vector<Index> positions(static_cast<std::size_t>(tokens));
    for (Index t = 0; t < tokens; ++t) positions[static_cast<std::size_t>(t)] = start + t % length;
    return std::make_shared<const lowrank::RopeTable<float>>(positions, config.rope);
  }
};

}  // namespace transformer
