#include <transformer/initialize_lora.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <lowrank/adapters/eva.hpp>
#include <lowrank/adapters/initialize.hpp>
#include <lowrank/adapters/residual_matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/update/dora.hpp>

#include <transformer/batch.hpp>

namespace transformer {

using lowrank::AnyLinear;
using lowrank::AnyMatrix;
using lowrank::Factors;
using lowrank::Weight;

LoraStart parse_start(const std::string& name) {
  constexpr std::pair<const char*, LoraStart> names[] = {{"default", LoraStart::standard},      {"gaussian", LoraStart::gaussian},
                                                         {"orthogonal", LoraStart::orthogonal}, {"pissa", LoraStart::pissa},
                                                         {"pissa_fast", LoraStart::pissa_fast}, {"olora", LoraStart::olora},
                                                         {"loftq", LoraStart::loftq},           {"eva", LoraStart::eva},
                                                         {"lora_ga", LoraStart::lora_ga}};
  for (const auto& [text, start] : names)
    if (name == text) return start;
  lowrank::fail<lowrank::ValueError>("init", "there is no initialization ", name,
                                     "; give default, gaussian, orthogonal, pissa, pissa_fast, olora, loftq, eva or lora_ga");
}

namespace {

void set_base(Transformer& model, Index slot, AnyLinear base) {
  base.set_compute(model.layer(slot).base.compute());
  base.set_trainable(false);
  // A tied embedding stays as it is when the head changes.
  if (slot == model.head_slot() && !model.separate_head) model.separate_head = model.embedding;
  model.layer(slot).base = std::move(base);
}

/// The layer with W - s B A for W: dense weights stay dense, others keep their format.
AnyLinear without_update(const AdaptedLinear& layer, const Factors& update) {
  const auto& bias = layer.base.bias().value;
  if (const auto* dense = layer.base.get_if<lowrank::Linear<float>>())
    return AnyLinear(lowrank::Linear<float>(lowrank::residual_weight(dense->source(), update), bias));
  const auto& frozen = *layer.base.get_if<lowrank::SourceLinear<AnyMatrix>>();
  return AnyLinear(AnyMatrix(lowrank::ResidualMatrix(frozen.weight(), update)), bias);
}

LoraWeights<float>& weights_of(LoraSet& set, Index slot) { return *set.slots[static_cast<std::size_t>(slot)].lora(); }

void set_update(LoraSet& set, Index slot, Factors update) {
  weights_of(set, slot).a.value = std::move(update.a);
  weights_of(set, slot).b.value = std::move(update.b);
}

/// Begins where W itself decides: pissa, pissa_fast, olora.
Factors update_from_weight(const AdaptedLinear& layer, Index rank, double scale, const StartOptions& options) {
  Factors update;
  layer.base.visit([&](const auto& held) {
    const auto& source = held.source();
    update = options.start == LoraStart::pissa        ? lowrank::init_pissa(source, rank, scale)
             : options.start == LoraStart::pissa_fast ? lowrank::init_pissa_fast(source, rank, scale, {.seed = options.seed})
                                                      : lowrank::init_olora(source, rank, scale);
  });
  return update;
}

void start_from_weights(Transformer& model, StartedLora& started, const std::vector<Index>& slots, const StartOptions& options) {
  const std::vector<double> scales = [&] {
    std::vector<double> all;
    for (const Index s : slots) all.push_back(static_cast<double>(weights_of(started.lora, s).scale));
    return all;
  }();
  std::vector<Factors> updates(slots.size());
  lowrank::parallel_for(static_cast<Index>(slots.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    updates[at] = update_from_weight(model.layer(slots[at]), weights_of(started.lora, slots[at]).rank(), scales[at], options);
  });
  for (std::size_t i = 0; i < slots.size(); ++i) {
    set_base(model, slots[i], without_update(model.layer(slots[i]), updates[i]));
    set_update(started.lora, slots[i], std::move(updates[i]));
  }
  started.moved = started.lora;
}

void start_loftq(Transformer& model, LoraSet& lora, const std::vector<Index>& slots) {
  std::vector<lowrank::LoftQ<lowrank::Nf4<64>>> made(slots.size());
  lowrank::parallel_for(static_cast<Index>(slots.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    const LoraWeights<float>& weights = weights_of(lora, slots[at]);
    const Weight<float> w = dense_weight(model.layer(slots[at]));
    // One iteration: the base is quantize(W), which every loader of NF4 makes from W, so that the adapter needs no base of its own.
    made[at] = lowrank::init_loftq<lowrank::Nf4<64>>(lowrank::DenseSource<float>(w.data(), w.rows(), w.cols()), weights.rank(),
                                                     static_cast<double>(weights.scale));
  });
  for (std::size_t i = 0; i < slots.size(); ++i) {
    set_base(model, slots[i], AnyLinear(AnyMatrix(made[i].base), model.layer(slots[i]).base.bias().value));
    set_update(lora, slots[i], std::move(made[i].update));
  }
}

using Directions = std::map<Index, lowrank::IncrementalDirections>;

/// Inputs of the targets over some batches, by input_slot.
Directions input_directions(Transformer& model, LoraSet& lora, const std::vector<Index>& slots, Index kept, const StartOptions& options,
                            const std::vector<Example>& examples) {
  Directions directions;
  for (const Index s : slots)
    directions.try_emplace(model.config.input_slot(s), model.layer(s).in_features(), std::min(kept, model.layer(s).in_features()));
  BatchStream batches(examples, options.batch, options.seed);
  const auto observe = [&](Index slot, const Activation<float>& x) {
    const auto found = directions.find(slot);
    if (found != directions.end()) found->second.add(x);
  };
  for (Index i = 0; i < options.batches; ++i) {
    const Batch batch = batches.at(i);
    model.loss(batch.ids, batch.targets, batch.sequences, {.lora = &lora, .observe = observe});
  }
  return directions;
}

/// Gives each target's rank to where the inputs vary most; each scale stays what it was.
void redistribute(const Transformer& model, LoraConfig& config, const LoraSet& lora, const std::vector<Index>& slots,
                  const Directions& directions, double spread) {
  std::vector<Eigen::VectorXd> shares;
  Index budget = 0, most = 0;
  for (const Index s : slots) {
    const Index rank = lora.slots[static_cast<std::size_t>(s)].lora()->rank();
    const auto widest = static_cast<Index>(spread * static_cast<double>(rank));
    budget += rank;
    most = std::max(most, widest);
    const Eigen::VectorXd all = directions.at(model.config.input_slot(s)).shares();
    shares.push_back(all.head(std::min({all.size(), model.layer(s).out_features(), widest})));
  }
  const std::vector<Index> ranks = lowrank::redistribute_ranks(shares, budget, most);
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::string path = model.config.path(slots[i]);
    const auto r = static_cast<double>(ranks[i]);
    const double scale = static_cast<double>(lora.slots[static_cast<std::size_t>(slots[i])].lora()->scale);
    config.rank_pattern.emplace_back(path, ranks[i]);
    config.alpha_pattern.emplace_back(path, scale * (config.use_rslora ? std::sqrt(r) : r));
  }
}

void start_eva(Transformer& model, LoraConfig& config, LoraSet& lora, const std::vector<Index>& slots, const StartOptions& options,
               const std::vector<Example>& examples) {
  Index widest = 0;
  for (const Index s : slots) widest = std::max(widest, weights_of(lora, s).rank());
  const auto kept = static_cast<Index>(options.rank_spread * static_cast<double>(widest)) + 8;
  const Directions directions = input_directions(model, lora, slots, kept, options, examples);
  if (options.rank_spread > 1) {
    redistribute(model, config, lora, slots, directions, options.rank_spread);
    lora = new_lora(model, config, lowrank::LoraInit::kaiming, options.seed);
  }
  for (const Index s : slots)
    set_update(lora, s,
               lowrank::init_eva(directions.at(model.config.input_slot(s)), model.layer(s).out_features(), weights_of(lora, s).rank()));
}

void start_lora_ga(Transformer& model, StartedLora& started, const std::vector<Index>& slots, const StartOptions& options,
                   const std::vector<Example>& examples) {
  Index widest = 0;
  for (const Index s : slots) widest = std::max(widest, weights_of(started.lora, s).rank());
  const std::vector<lowrank::Svd> gradients = gradient_directions(model, slots, 2 * widest, options, examples);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto scale = static_cast<double>(weights_of(started.lora, slots[i]).scale);
    Factors update = lowrank::init_lora_ga(gradients[i], weights_of(started.lora, slots[i]).rank(), scale);
    set_base(model, slots[i], without_update(model.layer(slots[i]), update));
    set_update(started.lora, slots[i], std::move(update));
  }
  started.moved = started.lora;
}

/// Gradients of the probes' A and B, summed over the batches.
void probe(Transformer& model, LoraSet& probes, const StartOptions& options, const std::vector<Example>& examples) {
  for (auto& weights : probes.slots)
    if (weights) weights.lora()->a.gradient().setZero(), weights.lora()->b.gradient().setZero();
  BatchStream batches(examples, options.batch, options.seed);
  Tape<float> tape;
  for (Index i = 0; i < options.batches; ++i) {
    const Batch batch = batches.at(i);
    tape.backward(model.loss(batch.ids, batch.targets, batch.sequences, {.tape = &tape, .lora = &probes, .recompute = true}));
  }
}

Weight<float> basis(const Weight<float>& m) { return lowrank::thin_qr(m.cast<double>()).q.cast<float>(); }

/// Sets one factor of every probe to an orthonormal basis of the other's gradient, and that other factor to zero.
void turn(LoraSet& probes, const std::vector<Index>& slots, bool to_b) {
  lowrank::parallel_for(static_cast<Index>(slots.size()), [&](Index i) {
    LoraWeights<float>& p = weights_of(probes, slots[static_cast<std::size_t>(i)]);
    if (to_b) {
      p.b.value = basis(p.b.grad);  // Q of dL/dW Aᵀ   [out, k]
      p.a.value.setZero();
    } else {
      p.a.value = basis(p.a.grad.transpose()).transpose();  // of (Bᵀ dL/dW)ᵀ   [k, in]
      p.b.value.setZero();
    }
    p.a.trainable = to_b;
    p.b.trainable = !to_b;
  });
}

}  // namespace

std::vector<lowrank::Svd> gradient_directions(Transformer& model, const std::vector<Index>& slots, Index rank, const StartOptions& options,
                                              const std::vector<Example>& examples) {
  constexpr Index oversampling = 8;
  LoraSet probes{std::vector<lowrank::AnyUpdate>(static_cast<std::size_t>(model.slots()))};
  for (const Index s : slots) {
    const Index in = model.layer(s).in_features(), out = model.layer(s).out_features(), k = std::min({rank + oversampling, in, out});
    Weight<float> sample(k, in);
    fill_normal(sample, 1, lowrank::Random(options.seed, static_cast<std::uint64_t>(s)));
    probes.slots[static_cast<std::size_t>(s)] =
        LoraWeights<float>{.a = {"probe A", std::move(sample)}, .b = {"probe B", Weight<float>::Zero(out, k)}};
    weights_of(probes, s).a.trainable = false;
  }
  probe(model, probes, options, examples);
  turn(probes, slots, true);
  probe(model, probes, options, examples);  // one power iteration
  turn(probes, slots, false);
  probe(model, probes, options, examples);
  turn(probes, slots, true);
  probe(model, probes, options, examples);
  std::vector<lowrank::Svd> directions(slots.size());
  lowrank::parallel_for(static_cast<Index>(slots.size()), [&](Index i) {
    const LoraWeights<float>& p = weights_of(probes, slots[static_cast<std::size_t>(i)]);
    const lowrank::Svd small = lowrank::thin_svd(p.a.grad.cast<double>());  // Qᵀ dL/dW   [k, in]
    directions[static_cast<std::size_t>(i)] =
        lowrank::Svd{lowrank::times<double>(p.b.value.cast<double>(), small.u), small.s, small.v}.leading(rank);
  });
  return directions;
}

StartedLora start_lora(Transformer& model, LoraConfig& config, const StartOptions& options, const std::vector<Example>& examples) {
  const auto init = options.start == LoraStart::gaussian ? lowrank::LoraInit::gaussian : lowrank::LoraInit::kaiming;
  StartedLora started{new_lora(model, config, init, options.seed)};
  const std::vector<Index> slots = target_slots(model, config);
  const bool is_drawn = options.start == LoraStart::standard || options.start == LoraStart::gaussian;
  lowrank::check<lowrank::ValueError>(is_drawn || !slots.empty(), "init",
                                      "this initialization is for linear layers, and none is a target; use default or gaussian");
  const bool is_lora = slots.empty() || started.lora.at(slots.front())->lora() != nullptr;
  lowrank::check<lowrank::ValueError>(options.start == LoraStart::standard || is_lora, "init",
                                      "this initialization is for the factors of LoRA and DoRA; leave --init away with another method");
  switch (options.start) {
    case LoraStart::standard:
    case LoraStart::gaussian:
      break;
    case LoraStart::orthogonal:
      for (const Index s : slots)
        set_update(started.lora, s,
                   lowrank::init_orthogonal(model.layer(s).out_features(), model.layer(s).in_features(), weights_of(started.lora, s).rank(),
                                            options.seed, static_cast<std::uint64_t>(s)));
      break;
    case LoraStart::pissa:
    case LoraStart::pissa_fast:
    case LoraStart::olora:
      start_from_weights(model, started, slots, options);
      break;
    case LoraStart::loftq:
      start_loftq(model, started.lora, slots);
      config.needs_base = "nf4";
      break;
    case LoraStart::eva:
      start_eva(model, config, started.lora, slots, options, examples);
      break;
    case LoraStart::lora_ga:
      start_lora_ga(model, started, slots, options, examples);
      break;
  }
  for (const Index s : slots) {
    auto* const update = started.lora.at(s)->get_if<lowrank::DoraWeights<float>>();
    if (!update) continue;
    const std::string name = update->magnitude.name;
    update->begin(lowrank::detail::layer_view(model.layer(s).base));  // lengths of the changed base
    update->magnitude.name = name;
  }
  return started;
}

LoraSet plain_lora(const StartedLora& started, LoraConfig& config) {
  if (!started.moved) return started.lora;
  LoraSet plain = started.lora;
  for (std::size_t s = 0; s + 1 < plain.slots.size(); ++s) {  // but the token table's
    LoraWeights<float>* const after = plain.slots[s].lora();
    if (!after) continue;
    const LoraWeights<float>& before = *started.moved->slots[s].lora();
    Factors update = lowrank::to_plain_update({before.a.value, before.b.value}, {after->a.value, after->b.value});
    after->a = {after->a.name, std::move(update.a)};
    after->b = {after->b.name, std::move(update.b)};
    if (auto* dora = plain.slots[s].get_if<lowrank::DoraWeights<float>>())  // of the base as it was
      dora->weight_squares = started.moved->slots[s].get_if<lowrank::DoraWeights<float>>()->weight_squares;
  }
  config.rank *= 2;
  config.alpha *= config.use_rslora ? std::sqrt(2.0) : 2.0;  // the scale stays
  for (auto& [key, rank] : config.rank_pattern) rank *= 2;
  for (auto& [key, alpha] : config.alpha_pattern) alpha *= config.use_rslora ? std::sqrt(2.0) : 2.0;
  return plain;
}

}  // namespace transformer
