#pragma once

/// The forward pass, once for all devices: model.cpp compiles it for the CPU, cuda.cpp for a GPU.

#include <algorithm>
#include <type_traits>

#include <lowrank/autograd/elementwise.hpp>
#include <lowrank/autograd/shape.hpp>

#include <transformer/model.hpp>

namespace transformer {

namespace detail {
/// Rows with adapters of their own: one for each sequence, and none that replaces whole layers.
template <class Device>
void check_rows(const Pass<Device>& pass, const Sequences& sequences) {
  using lowrank::ValueError;
  if (pass.row_loras.empty()) return;
  lowrank::check<ValueError>(pass.lora == nullptr && static_cast<Index>(pass.row_loras.size()) == sequences.count(), "transformer",
                             pass.row_loras.size(), " adapters for ", sequences.count(),
                             " sequences; give one for each, null for the bare base, and no other");
  lowrank::check<ValueError>(sequences.are_equal(), "transformer",
                             "sequences with adapters of their own must be equally long; fill the shorter ones up");
  for (LoraSet* set : pass.row_loras)
    lowrank::check<ValueError>(!set || !set->replaces(), "transformer",
                               "an adapter that replaces weights (modules_to_save, trained tokens) cannot serve single rows of a batch");
}

/// A step that GPUs do not have: f(x, …), or on a GPU an error that names the step.
template <class Step, class Device, class... Others>
Var<float, Device> on_cpu_only(const char* step, const Step& f, const Var<float, Device>& x, const Others&... others) {
  if constexpr (std::is_same_v<Device, Cpu>) return f(x, others...);
  lowrank::fail<lowrank::ValueError>("transformer", step, " is not there on GPUs; run this model with --device cpu");
}

/// factor · x.
template <class Device>
Var<float, Device> times(double factor, Var<float, Device> x) {
  return factor == 1 ? x : scale(std::move(x), static_cast<float>(factor));
}

/// f(gate) ⊙ up.
template <class Device>
Var<float, Device> gated(Gate gate, const Var<float, Device>& g, const Var<float, Device>& up) {
  if (gate == Gate::silu) return swiglu(g, up);
  return on_cpu_only(
      "a GELU gate", [](const auto& a, const auto& b) { return gelu_tanh(a) * b; }, g, up);
}
}  // namespace detail

template <class Device>
Var<float, Device> Transformer::hidden(std::span<const std::int32_t> ids, const Sequences& sequences, Pass<Device> pass) {
  const auto angles = rope_angles(static_cast<Index>(ids.size()), sequences, pass);
  detail::check_rows(pass, sequences);
  Var<float, Device> x = detail::times(config.embedding_scale, embed(ids, sequences, pass));  // [hidden, T]
  for (Index i = 0; i < config.layers; ++i) {
    const auto block = [this, i, sequences, angles, pass](Var<float, Device> in) {
      return add_mlp(i, add_attention(i, std::move(in), sequences, angles, pass), pass);
    };
    x = pass.recompute ? checkpoint(x, block) : block(std::move(x));
  }
  if (pass.cache) pass.cache->length += static_cast<Index>(ids.size());
  Parameter<float>& last = pass.lora ? pass.lora->norm(norm_index(config.layers, {}), final_norm) : final_norm;
  return rms_norm(x, last, config.norm_epsilon);
}

template <class Device>
Var<float, Device> Transformer::logits(std::span<const std::int32_t> ids, const Sequences& sequences, Pass<Device> pass) {
  return head_logits(hidden(ids, sequences, pass), pass);
}

template <class Device>
Var<float, Device> Transformer::next_logits(std::span<const std::int32_t> ids, Pass<Device> pass) {
  const Var<float, Device> states = hidden(ids, 1, pass);
  return head_logits(Var<float, Device>(lowrank::ArrayOn<float, Device>(states.value().rightCols(1))), pass);
}

template <class Device>
Var<float, Device> Transformer::loss(std::span<const std::int32_t> ids, std::span<const std::int32_t> targets, const Sequences& sequences,
                                     Pass<Device> pass) {
  Var<float, Device> states = hidden(ids, sequences, pass);
  if (updates_head(pass) || config.logit_cap > 0) return head_loss(states, targets, pass);
  return linear_cross_entropy(used(head_slot(), pass).base, detail::times(config.logit_scale, std::move(states)), targets);
}

template <class Device>
Var<float, Device> Transformer::head_logits(Var<float, Device> states, const Pass<Device>& pass) {
  const Var<float, Device> x = detail::times(config.logit_scale, std::move(states));
  Var<float, Device> y = apply(head_slot(), x, pass);
  if (auto* table = pass.lora ? pass.lora->table_update_of(head_slot()) : nullptr)
    y = detail::on_cpu_only(
        "a head that follows an update of its table",
        [table](const auto& of, const auto& in) { return lowrank::add_table_logits(of, in, *table); }, y, x);
  if (auto* own = pass.lora ? pass.lora->rows_of(head_slot()) : nullptr)
    y = detail::on_cpu_only(
        "a row of a head", [own](const auto& of, const auto& in) { return lowrank::replace_logits(of, in, *own); }, y, x);
  if (config.logit_cap == 0) return y;
  const auto cap = static_cast<float>(config.logit_cap);
  return detail::on_cpu_only(
      "a cap of logits", [cap](const auto& z) { return scale(tanh(scale(z, 1 / cap)), cap); }, y);
}

template <class Device>
Var<float, Device> Transformer::head_loss(const Var<float, Device>& states, std::span<const std::int32_t> targets,
                                          const Pass<Device>& pass) {
  const auto counted = [](std::span<const std::int32_t> some) {
    return static_cast<float>(std::count_if(some.begin(), some.end(), [](auto target) { return target != lowrank::ignored_target; }));
  };
  const Index tokens = states.cols();
  if constexpr (std::is_same_v<Device, Cpu>) {
    if (tokens > loss_slice && pass.row_loras.empty() && counted(targets) > 0) {
      Var<float> sum(Activation<float>::Zero(1, 1));
      for (Index begin = 0; begin < tokens; begin += loss_slice) {
        const Index count = std::min(loss_slice, tokens - begin);
        const auto some = targets.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
        if (counted(some) == 0) continue;
        const auto loss_of = [this, some, pass](const Var<float>& x) { return cross_entropy(head_logits(x, pass), some); };
        sum = sum + scale(checkpoint(slice_cols(states, begin, count), loss_of), counted(some) / counted(targets));
      }
      return sum;
    }
  }
  return cross_entropy(head_logits(states, pass), targets);
}

template <class Device>
bool Transformer::updates_head(const Pass<Device>& pass) const {
  const auto has_update = [&](LoraSet* set) {
    return set && (set->at(head_slot()) || set->table_update_of(head_slot()) || set->rows_of(head_slot()));
  };
  return has_update(pass.lora) || std::any_of(pass.row_loras.begin(), pass.row_loras.end(), has_update);
}

template <class Device>
Var<float, Device> Transformer::embed(std::span<const std::int32_t> ids, const Sequences& sequences, const Pass<Device>& pass) {
  const AdaptedLinear& table = used(embedding_slot(), pass);
  Var<float, Device> x = lowrank::embed(used(embedding_slot(), pass).base, pass.tape, ids);
  if (pass.lora) x = update_table(std::move(x), ids, 0, *pass.lora);
  if (auto* own = pass.lora ? pass.lora->rows_of(embedding_slot()) : nullptr)
    x = detail::on_cpu_only(
        "a row of a token table", [&](const auto& y) { return lowrank::replace_columns(y, ids, table.out_features(), *own); }, x);
  const Index length = static_cast<Index>(ids.size()) / sequences.count();
  for (std::size_t row = 0; row < pass.row_loras.size(); ++row) {
    const Index begin = static_cast<Index>(row) * length;
    if (LoraSet* set = pass.row_loras[row])
      x = update_table(std::move(x), ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length)), begin, *set);
  }
  return x;
}

template <class Device>
Var<float, Device> Transformer::update_table(Var<float, Device> x, std::span<const std::int32_t> ids, Index begin, LoraSet& set) {
  lowrank::AnyUpdate* const update = set.at(embedding_slot());
  if (update == nullptr) return x;
  x = add_embedding_update(std::move(x), ids, begin, *update->lora());
  auto* const dora = update->get_if<lowrank::DoraWeights<float>>();
  if (dora == nullptr) return x;
  const AdaptedLinear* const copy = set.copy_of(embedding_slot());
  const lowrank::WeightView table = (copy ? *copy : embedding).base.source();
  const auto scale_columns = [&](const auto& y) {
    return lowrank::scale_embedding(y, begin, static_cast<Index>(ids.size()), table, *dora);
  };
  return detail::on_cpu_only("DoRA of a token table", scale_columns, x);
}

template <class Device>
Var<float, Device> Transformer::apply(Index slot, Var<float, Device> x, const Pass<Device>& pass) {
  return apply_each(slot, 1, x, pass).front();
}

template <class Device>
std::vector<Var<float, Device>> Transformer::apply_each(Index first_slot, Index count, const Var<float, Device>& x,
                                                        const Pass<Device>& pass) {
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
std::vector<Var<float, Device>> Transformer::maps(Index i, std::span<const Projection> wanted, const Var<float, Device>& x,
                                                  const Pass<Device>& pass) {
  const bool is_mlp = wanted.front() == Projection::gate;
  if (!config.fused) return apply_each(slot(i, wanted.front()), static_cast<Index>(wanted.size()), x, pass);
  const Var<float, Device> all = apply(slot(i, is_mlp ? Projection::gate_up : Projection::query_key_value), x, pass);
  std::vector<Var<float, Device>> parts;
  Index row = 0;
  for (const Projection projection : wanted) {
    const Index rows = config.out_features(projection);
    parts.push_back(detail::on_cpu_only(
        "a fused map", [&](const auto& whole) { return slice_rows(whole, row, rows); }, all));
    row += rows;
  }
  return parts;
}

template <class Device>
Var<float, Device> Transformer::normed(Index i, NormPlace place, Var<float, Device> x, const Pass<Device>& pass) {
  if (!config.has(place)) return x;
  Parameter<float>& own = blocks[static_cast<std::size_t>(i)].norm(place);
  Parameter<float>& weight = pass.lora ? pass.lora->norm(norm_index(i, place), own) : own;
  const Index rows = x.rows(), cols = x.cols(), size = config.norm_size(place);
  if (rows == size) return rms_norm(x, weight, config.norm_epsilon);
  const auto norm_heads = [&](const auto& all) {  // [heads · size, T] is [size, heads · T]
    return reshape(rms_norm(reshape(all, size, rows / size * cols), weight, config.norm_epsilon), rows, cols);
  };
  return detail::on_cpu_only("a norm of each head", norm_heads, x);
}

template <class Device>
Var<float, Device> Transformer::add_attention(Index i, Var<float, Device> x, const Sequences& sequences, const Angles& angles,
                                              const Pass<Device>& pass) {
  static constexpr Projection wanted[] = {Projection::query, Projection::key, Projection::value};
  const auto qkv = maps(i, wanted, normed(i, NormPlace::attention_input, x, pass), pass);
  Var<float, Device> q = normed(i, NormPlace::query, qkv[0], pass);  // [heads · head_size, T]
  Var<float, Device> k = normed(i, NormPlace::key, qkv[1], pass);    // [kv_heads · head_size, T]
  if (config.kind(i).turns) {
    const auto& turn = config.kind(i).windowed && angles.windowed ? angles.windowed : angles.all;
    q = rope(q, turn), k = rope(k, turn);
  }
  Var<float, Device> y = attend_layer(i, q, k, qkv[2], sequences, pass);
  y = apply(slot(i, Projection::output), std::move(y), pass);
  return std::move(x) + detail::times(config.residual_scale, normed(i, NormPlace::attention_output, std::move(y), pass));
}

template <class Device>
Var<float, Device> Transformer::add_mlp(Index i, Var<float, Device> x, const Pass<Device>& pass) {
  static constexpr Projection wanted[] = {Projection::gate, Projection::up};
  auto gate_up = maps(i, wanted, normed(i, NormPlace::mlp_input, x, pass), pass);
  Var<float, Device> y = detail::gated(config.gate, gate_up[0], gate_up[1]);  // [intermediate, T]
  gate_up.clear();
  y = apply(slot(i, Projection::down), std::move(y), pass);
  return std::move(x) + detail::times(config.residual_scale, normed(i, NormPlace::mlp_output, std::move(y), pass));
}

template <class Device>
Var<float, Device> Transformer::attend_layer(Index i, const Var<float, Device>& q, const Var<float, Device>& k, const Var<float, Device>& v,
                                             const Sequences& sequences, const Pass<Device>& pass) const {
  const lowrank::AttentionShape shape{.heads = config.heads,
                                      .kv_heads = config.kv_heads,
                                      .head_size = config.head_size,
                                      .batch = sequences,
                                      .window = config.kind(i).windowed ? config.window : 0,
                                      .scale = config.attention_scale,
                                      .cap = config.attention_cap};
  const lowrank::Compute compute = layer(config.block_slots() * i).base.compute();
  if (!pass.cache) return attention(q, k, v, shape, compute);
  return Var<float, Device>(attend(*pass.cache, config.layers, i, q.value(), k.value(), v.value(), shape, compute));
}

template <class Device>
Transformer::Angles Transformer::rope_angles(Index tokens, const Sequences& sequences, const Pass<Device>& pass) const {
  using lowrank::ValueError;
  lowrank::check<ValueError>(tokens > 0, "transformer", "there is no token; give at least one");
  lowrank::check<ValueError>(!pass.cache || sequences.count() == 1, "transformer", "a cache continues one sequence, not ",
                             sequences.count());
  const std::vector<Index> positions = sequences.positions("transformer", tokens, pass.cache ? pass.cache->length : 0);
  const Index longest = *std::max_element(positions.begin(), positions.end()) + 1;
  lowrank::check<ValueError>(longest <= config.context, "transformer", "a sequence of ", longest, " tokens exceeds the context of ",
                             config.context, "; shorten the text");
  lowrank::check<ValueError>(
      sequences.are_equal() || config.growth.kind == RopeGrowth::Kind::none || longest <= config.growth.original_context, "transformer",
      "one of several texts has ", longest, " tokens, and beyond ", config.growth.original_context,
      " this model's positions follow the length of the text; give texts of equal length, or shorter ones");
  const auto table = [&](const lowrank::RopeOptions& options) {
    return std::make_shared<const lowrank::RopeTable<float>>(positions, options);
  };
  return {table(config.rope_of(longest)), config.local_rope.empty() ? nullptr : table(config.local_rope.front())};
}

}  // namespace transformer
