#pragma once

/// The forward pass, once for all devices: model.cpp compiles it for the CPU, cuda.cpp for a GPU.

#include <algorithm>

#include <transformer/model.hpp>

namespace transformer {

namespace detail {
/// Rows with adapters of their own: one for each sequence, and none that replaces whole layers.
template <class Device>
void check_rows(const Pass<Device>& pass, Index sequences) {
  using lowrank::ValueError;
  if (pass.row_loras.empty()) return;
  lowrank::check<ValueError>(pass.lora == nullptr && static_cast<Index>(pass.row_loras.size()) == sequences, "llama", pass.row_loras.size(),
                             " adapters for ", sequences, " sequences; give one for each, null for the bare base, and no other");
  for (LoraSet* set : pass.row_loras)
    lowrank::check<ValueError>(!set || set->copies.empty(), "llama",
                               "an adapter that replaces whole layers (modules_to_save) cannot serve single rows of a batch");
}
}  // namespace detail

template <class Device>
Var<float, Device> Llama::hidden(std::span<const std::int32_t> ids, Index sequences, Pass<Device> pass) {
  const auto angles = rope_angles(static_cast<Index>(ids.size()), sequences, pass);
  detail::check_rows(pass, sequences);
  Var<float, Device> x = embed(ids, sequences, pass);  // [hidden, T]
  for (Index i = 0; i < config.layers; ++i) {
    const auto block = [this, i, sequences, angles, pass](Var<float, Device> in) {
      return add_mlp(i, add_attention(i, std::move(in), sequences, angles, pass), pass);
    };
    x = pass.recompute ? checkpoint(x, block) : block(std::move(x));
  }
  if (pass.cache) pass.cache->length += static_cast<Index>(ids.size());
  return rms_norm(x, final_norm, config.norm_epsilon);
}

template <class Device>
Var<float, Device> Llama::logits(std::span<const std::int32_t> ids, Index sequences, Pass<Device> pass) {
  return apply(head_slot(), hidden(ids, sequences, pass), pass);
}

template <class Device>
Var<float, Device> Llama::next_logits(std::span<const std::int32_t> ids, Pass<Device> pass) {
  const Var<float, Device> states = hidden(ids, 1, pass);
  return apply(head_slot(), Var<float, Device>(lowrank::ArrayOn<float, Device>(states.value().rightCols(1))), pass);
}

template <class Device>
Var<float, Device> Llama::loss(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, Index sequences,
                               Pass<Device> pass) {
  Var<float, Device> states = hidden(ids, sequences, pass);
  if (updates_head(pass)) return cross_entropy(apply(head_slot(), std::move(states), pass), targets);
  return linear_cross_entropy(used(head_slot(), pass).base, states, targets);
}

template <class Device>
bool Llama::updates_head(const Pass<Device>& pass) const {
  const auto has_update = [&](LoraSet* set) { return set && set->at(head_slot()); };
  return has_update(pass.lora) || std::any_of(pass.row_loras.begin(), pass.row_loras.end(), has_update);
}

template <class Device>
Var<float, Device> Llama::embed(std::span<const std::int32_t> ids, Index sequences, const Pass<Device>& pass) {
  Var<float, Device> x = lowrank::embed(used(embedding_slot(), pass).base, pass.tape, ids);
  const auto update = [this](LoraSet* set) { return set && set->at(embedding_slot()) ? set->at(embedding_slot())->lora() : nullptr; };
  if (auto* own = update(pass.lora)) x = add_embedding_update(std::move(x), ids, 0, *own);
  const Index length = static_cast<Index>(ids.size()) / sequences;
  for (std::size_t row = 0; row < pass.row_loras.size(); ++row) {
    const Index begin = static_cast<Index>(row) * length;
    if (auto* own = update(pass.row_loras[row]))
      x = add_embedding_update(std::move(x), ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length)), begin, *own);
  }
  return x;
}

template <class Device>
Var<float, Device> Llama::apply(Index slot, Var<float, Device> x, const Pass<Device>& pass) {
  return apply_each(slot, 1, x, pass).front();
}

template <class Device>
std::vector<Var<float, Device>> Llama::apply_each(Index first_slot, Index count, const Var<float, Device>& x, const Pass<Device>& pass) {
  if (pass.observe) pass.observe(first_slot, to_host(x.value()));
  const auto rows = static_cast<Index>(pass.row_loras.size()), length = rows > 0 ? x.cols() / rows : 0;
  std::vector<lowrank::LayerUse> uses;
  for (Index slot = first_slot; slot < first_slot + count; ++slot) {
    lowrank::LayerUse& use = uses.emplace_back(lowrank::LayerUse{&used(slot, pass), pass.lora ? pass.lora->at(slot) : nullptr});
    for (Index row = 0; row < rows; ++row)
      if (LoraSet* set = pass.row_loras[static_cast<std::size_t>(row)]) use.ranges.push_back({row * length, length, set->at(slot)});
  }
  return forward_together(uses, x);
}

template <class Device>
Var<float, Device> Llama::add_attention(Index i, Var<float, Device> x, Index sequences, const Angles& angles, const Pass<Device>& pass) {
  const Var<float, Device> n = rms_norm(x, blocks[static_cast<std::size_t>(i)].attention_norm, config.norm_epsilon);
  const auto qkv = apply_each(slot(i, Projection::query), 3, n, pass);
  const Var<float, Device> q = rope(qkv[0], angles);  // [heads · head_size, T]
  const Var<float, Device> k = rope(qkv[1], angles);  // [kv_heads · head_size, T]
  const Var<float, Device>& v = qkv[2];
  const lowrank::AttentionShape shape{config.heads, config.kv_heads, config.head_size, sequences};
  Var<float, Device> y = pass.cache ? cached_attention(*pass.cache, i, q, k, v, shape)
                                    : attention(q, k, v, shape, layer(slot(i, Projection::query)).base.compute());
  return std::move(x) + apply(slot(i, Projection::output), std::move(y), pass);
}

template <class Device>
Var<float, Device> Llama::add_mlp(Index i, Var<float, Device> x, const Pass<Device>& pass) {
  const Var<float, Device> m = rms_norm(x, blocks[static_cast<std::size_t>(i)].mlp_norm, config.norm_epsilon);
  auto gate_up = apply_each(slot(i, Projection::gate), 2, m, pass);
  Var<float, Device> y = swiglu(gate_up[0], gate_up[1]);  // [intermediate, T]
  gate_up.clear();
  return std::move(x) + apply(slot(i, Projection::down), std::move(y), pass);
}

template <class Device>
Var<float, Device> Llama::cached_attention(Cache<Device>& cache, Index i, const Var<float, Device>& q, const Var<float, Device>& k,
                                           const Var<float, Device>& v, const lowrank::AttentionShape& shape) const {
  return Var<float, Device>(
      attend(cache, config.layers, i, q.value(), k.value(), v.value(), shape, layer(slot(i, Projection::query)).base.compute()));
}

template <class Device>
Llama::Angles Llama::rope_angles(Index tokens, Index sequences, const Pass<Device>& pass) const {
  using lowrank::ValueError;
  lowrank::check<ValueError>(sequences > 0 && tokens > 0 && tokens % sequences == 0, "llama", tokens, " tokens do not divide into ",
                             sequences, " sequences of equal, positive length");
  lowrank::check<ValueError>(!pass.cache || sequences == 1, "llama", "a cache continues one sequence, not ", sequences);
  const Index start = pass.cache ? pass.cache->length : 0, length = tokens / sequences;
  lowrank::check<ValueError>(start + length <= config.context, "llama", "a sequence of ", start + length, " tokens exceeds the context of ",
                             config.context, "; shorten the text");
  std::vector<Index> positions(static_cast<std::size_t>(tokens));
  for (Index t = 0; t < tokens; ++t) positions[static_cast<std::size_t>(t)] = start + t % length;
  return std::make_shared<const lowrank::RopeTable<float>>(positions, config.rope);
}

}  // namespace transformer
