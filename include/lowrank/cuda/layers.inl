#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/ops.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda::detail {

/// A factor of a plan on the device.
LOWRANK_INLINE ParameterCopy& on_device(const FactorView<float>& factor) {
  check<ValueError>(factor.device != nullptr, "linear",
                    "a method whose factors are computed anew for each pass does not run on a GPU yet; use the CPU, or merge the adapter");
  return cuda::on_device(*factor.device, factor.data, factor.rows * factor.cols);
}

/// What an update adds on the device. Throws ValueError for what a GPU does not do yet.
LOWRANK_INLINE Plan<float> plan_here(const AnyLinear& layer, const UpdateRef& update, bool is_recorded) {
  const Plan<float> plan = update.plan({.layer = lowrank::detail::layer_view(layer), .is_recorded = is_recorded});
  check<ValueError>(!plan.mask, "linear", "dropout of an adapter's input does not run on a GPU yet; train with dropout = 0, or on the CPU");
  check<ValueError>(plan.is_additive() && plan.has_factors() && !plan.has_delta() && plan.middle.empty(), "linear",
                    "only updates that are a sum W + s B A run on a GPU yet; use the CPU, or merge the adapter first");
  check<ShapeError>(plan.a.cols == layer.in_features() && plan.b.rows == layer.out_features(), "update", "A is [", plan.a.rows, ", ",
                    plan.a.cols, "], B is [", plan.b.rows, ", ", plan.b.cols, "] but the layer is [", layer.out_features(), ", ",
                    layer.in_features(), ']');
  return plan;
}

/// C += scale · Σₜ L Rᵀ into a parameter's gradient.
LOWRANK_INLINE void add_outer_gradient(Machine& machine, const FactorView<float>& factor, const Rounded& left, const Rounded& right,
                                       Index tokens, float scale) {
  OuterProduct outer;
  outer.left = left.operand(), outer.right = right.operand();
  outer.tokens = narrow(tokens), outer.scale = scale, outer.c = on_device(factor).gradient();
  add_outer(machine, outer, machine.scratch());
}

/// What one layer's backward pass reads: [W | s B] and X, A X, all as the products read them.
struct LayerRecord {
  AnyLinear* layer;
  std::optional<Plan<float>> plan;
  Rounded a, b;                      ///< A, s B
  std::shared_ptr<const Rounded> x;  ///< where A is trained
  Rounded h;

  bool trains() const { return layer->bias().needs_grad() || (plan && plan->trains()); }

  /// y = W X + b + s B (A X); A X comes to lie in the rows of X, `place` numbers into their room.
  DeviceActivation forward(const std::shared_ptr<const Rounded>& input, Index place, Index tokens, Machine& machine) {
    const ChunkedView& w = cuda::on_device(*layer);
    Parameter<float>& bias = layer->bias();
    const float* const added = bias.empty() ? nullptr : cuda::on_device(bias).value();
    if (!plan) return product(machine, w, false, *input, tokens, nullptr, nullptr, added);
    a = Rounded(machine, on_device(plan->a).value(), plan->a.rows, plan->a.cols);
    b = Rounded(machine, on_device(plan->b).value(), plan->b.rows, plan->b.cols, plan->scale);
    h = Rounded(*input, place, product(machine, a.view(), false, *input, tokens));   // A X   [r, T]
    DeviceActivation y = product(machine, w, false, *input, tokens, &b, &h, added);  // [W | s B] [X ; A X]
    if (plan->trains_a) x = input;
    if (!plan->bias.empty())
      machine.launch(AddToColumns{on_device(plan->bias).value(), plan->scale, narrow(y.rows()), narrow(tokens), y.data()});
    return y;
  }

  template <class Flow>
  void backward(Flow& flow) {
    const DeviceActivation& g = flow.gradient();
    Machine& machine = g.machine();
    if (layer->bias().needs_grad()) add_bias_gradient(cuda::on_device(layer->bias()), g, 1);
    const Rounded g16(g, plan ? Rounded::room_of(plan->a.rows) : 0);
    const ChunkedView& w = cuda::on_device(*layer);
    if (!plan) {
      add_transposed(flow, machine, w, g16, nullptr, nullptr);
      return;
    }
    if (plan->trains_bias) add_bias_gradient(on_device(plan->bias), g, plan->scale);
    const Rounded u(g16, 0, product(machine, b.view(), true, g16, g.cols()));                 // s Bᵀ G   [r, T]
    add_transposed(flow, machine, w, g16, &a, &u);                                            // Wᵀ G + Aᵀ U
    if (plan->trains_a) add_outer_gradient(machine, plan->a, u, *x, g.cols(), 1);             // U Xᵀ
    if (plan->trains_b) add_outer_gradient(machine, plan->b, g16, h, g.cols(), plan->scale);  // s G (A X)ᵀ
  }

 private:
  /// dX, added by the product itself where another layer's dX is there already.
  template <class Flow>
  static void add_transposed(Flow& flow, Machine& machine, const ChunkedView& w, const Rounded& g16, const Rounded* factor,
                             const Rounded* u) {
    if (!flow.needs(0)) return;
    const Index tokens = flow.gradient().cols();
    if (DeviceActivation* const sum = flow.sum_so_far(0); sum && sum->rows() == w.cols && sum->cols() == tokens)
      product_into(machine, w, true, g16, tokens, sum->data(), factor, u, nullptr, true);
    else
      flow.add(0, product(machine, w, true, g16, tokens, factor, u));
  }
  static void add_bias_gradient(ParameterCopy& bias, const DeviceActivation& g, float factor) {
    g.machine().launch(SumColumns{g.data(), factor, narrow(g.rows()), narrow(g.cols()), bias.gradient()});
  }
};

/// The updates of a batch's ranges: their factors as products read them, and which token has which.
class RangeUpdates {
 public:
  /// Throws ShapeError, ValueError.
  RangeUpdates(Machine& machine, const AnyLinear& base, std::span<const UpdateRange> ranges, Index tokens, bool is_recorded)
      : machine_(machine), tokens_(tokens) {
    std::vector<int> update_of_token(static_cast<std::size_t>(tokens), -1);
    for (const UpdateRange& range : ranges) {
      if (!range.update || range.count == 0) continue;
      check<ShapeError>(range.begin >= 0 && range.begin + range.count <= tokens, "update", "tokens [", range.begin, ", ",
                        range.begin + range.count, ") of a batch of ", tokens);
      const Plan<float> plan = plan_here(base, range.update, is_recorded);
      const auto number = static_cast<int>(parts_.size());
      std::fill_n(update_of_token.begin() + range.begin, range.count, number);
      parts_.push_back({plan,
                        {range.begin, range.count},
                        Rounded(machine, on_device(plan.a).value(), plan.a.rows, plan.a.cols),
                        Rounded(machine, on_device(plan.b).value(), plan.b.rows, plan.b.cols, plan.scale)});
      rank_ = std::max(rank_, plan.a.rows);
    }
    tiles_ = token_tiles(update_of_token, narrow(static_cast<Index>(parts_.size())), SmallTile::tokens);
  }

  bool empty() const { return parts_.empty(); }
  bool trains() const {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.plan.trains(); });
  }

  /// y += s_a B_a (A_a x) of each token's update a; keeps A x.
  void forward(const DeviceActivation& x, DeviceActivation& y) {
    x_ = Rounded(x);
    DeviceActivation h(rank_, tokens_);
    launch<false>(&Part::a, x_, narrow(rank_), h, false);
    h_ = Rounded(h);
    launch<false>(&Part::b, h_, narrow(y.rows()), y, true);
    for (const Part& part : parts_) {
      if (!part.plan.bias.empty())
        machine_.launch(AddToColumns{on_device(part.plan.bias).value(), part.plan.scale, narrow(y.rows()), narrow(part.tokens.count),
                                     y.data() + part.tokens.begin * y.rows()});
    }
  }

  /// Adds A_aᵀ (s_a B_aᵀ g) to dx, if given, and the gradients of the factors to theirs.
  void backward(const DeviceActivation& g, DeviceActivation* dx) {
    const Rounded g16(g);
    DeviceActivation u(rank_, tokens_);
    launch<true>(&Part::b, g16, narrow(rank_), u, false);  // s Bᵀ G   [r, T]
    const Rounded u16(u);
    if (dx) launch<true>(&Part::a, u16, narrow(dx->rows()), *dx, true);  // Aᵀ U
    for (const Part& part : parts_) {
      const Plan<float>& plan = part.plan;
      const auto [begin, count] = part.tokens;
      if (plan.trains_bias)
        machine_.launch(
            SumColumns{g.data() + begin * g.rows(), plan.scale, narrow(g.rows()), narrow(count), on_device(plan.bias).gradient()});
      if (plan.trains_a) add_outer_of(part, plan.a, u16.operand(), narrow(plan.a.rows), x_.operand(), x_.operand().depth, 1);  // U Xᵀ
      if (plan.trains_b)
        add_outer_of(part, plan.b, g16.operand(), g16.operand().depth, h_.operand(), narrow(plan.b.cols), plan.scale);  // s G Hᵀ
    }
  }

 private:
  struct Part {
    Plan<float> plan;
    TokenRange tokens;
    Rounded a, b;  ///< A, s B
  };

  /// y = factor_a · h of each token, or transposed.
  template <bool Transposed>
  void launch(Rounded Part::*factor, const Rounded& h, int rows, DeviceActivation& y, bool accumulates) const {
    std::vector<UpdateFactor> views;
    for (const Part& part : parts_) views.push_back((part.*factor).update(Transposed));
    const Memory on_views = machine_.uploaded(views.data(), views.size() * sizeof(views[0])),
                 on_tiles = machine_.uploaded(tiles_.data(), tiles_.size() * sizeof(tiles_[0]));
    Product p;
    p.h = h.operand();
    p.updates = reinterpret_cast<const UpdateFactor*>(on_views.get());
    p.tiles = reinterpret_cast<const TokenTile*>(on_tiles.get());
    p.tile_count = narrow(static_cast<Index>(tiles_.size()));
    p.y = y.data();
    p.ldy = p.rows = rows;
    p.tokens = narrow(tokens_);
    p.accumulate = accumulates;
    machine_.launch(ProductMany<4, Transposed, SmallTile>{p});  // without a base the bits of its codes do not matter
  }

  /// The gradient of a factor over its range's tokens: += scale · Σ left rightᵀ, of so many numbers of each.
  void add_outer_of(const Part& part, const FactorView<float>& factor, Operand left, int rows, Operand right, int cols, float scale) const {
    left.data += part.tokens.begin * left.stride, right.data += part.tokens.begin * right.stride;
    left.depth = rows, right.depth = cols;
    OuterProduct outer;
    outer.left = left, outer.right = right;
    outer.tokens = narrow(part.tokens.count), outer.scale = scale, outer.c = on_device(factor).gradient();
    add_outer(machine_, outer, machine_.scratch());
  }

  Machine& machine_;
  Index tokens_, rank_ = 0;
  std::vector<Part> parts_;
  std::vector<TokenTile> tiles_;
  Rounded x_, h_;
};

/// Y = layer(X) becomes each range's adapted output, recorded.
LOWRANK_INLINE Var<float, Cuda> add_updates(Var<float, Cuda> y, const Var<float, Cuda>& x, const AnyLinear& layer,
                                            std::span<const UpdateRange> ranges) {
  const auto updates = std::make_shared<RangeUpdates>(x.value().machine(), layer, ranges, x.cols(), x.tape() != nullptr);
  if (updates->empty()) return y;
  DeviceActivation z = y.take();
  updates->forward(x.value(), z);
  const auto backward = [updates, rows = x.rows()](auto& flow) {
    if (flow.needs(1)) {
      auto dx = DeviceActivation::Zero(rows, flow.gradient().cols());
      updates->backward(flow.gradient(), &dx);
      flow.add(1, std::move(dx));
    } else {
      updates->backward(flow.gradient(), nullptr);
    }
    flow.add(0, flow.take());
  };
  return record(std::move(z), {y, x}, backward, updates->trains()).kept_as(layer.compute());
}

}  // namespace cuda::detail

LOWRANK_INLINE std::vector<Var<float, Cuda>> forward_together(std::span<const LayerUse> uses, const Var<float, Cuda>& x) {
  std::vector<std::shared_ptr<cuda::detail::LayerRecord>> layers;
  Index room = 0, place = 0;
  for (const LayerUse& use : uses) {
    detail::check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    check<ValueError>(!use.layer->base.weight_trainable(), "linear",
                      "the layer's weight is trainable; on a GPU weights are frozen and updates train: call set_trainable(false)");
    layers.push_back(std::make_shared<cuda::detail::LayerRecord>());
    layers.back()->layer = &use.layer->base;
    if (!use.update) continue;
    layers.back()->plan = cuda::detail::plan_here(use.layer->base, use.update, x.tape() != nullptr);
    room += cuda::Rounded::room_of(layers.back()->plan->a.rows);
  }
  const auto input = std::make_shared<const cuda::Rounded>(x.value(), room);
  std::vector<Var<float, Cuda>> outputs;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const auto& layer = layers[i];
    auto value = layer->forward(input, place, x.cols(), x.value().machine());
    if (layer->plan) place += cuda::Rounded::room_of(layer->plan->a.rows);
    auto y = record(
                 std::move(value), {x}, [layer](auto& flow) { layer->backward(flow); }, layer->trains())
                 .kept_as(layer->layer->compute());
    outputs.push_back(cuda::detail::add_updates(std::move(y), x, *layer->layer, uses[i].ranges));
  }
  return outputs;
}

LOWRANK_INLINE Var<float, Cuda> add_embedding_update(Var<float, Cuda>, std::span<const std::int32_t>, Index, LoraWeights<float>&) {
  fail<ValueError>("embedding_lora", "an update of the token table does not run on a GPU yet; leave embed_tokens out, or use the CPU");
}

LOWRANK_INLINE Var<float, Cuda> embed(AnyLinear& table, Tape<float, Cuda>* tape, std::span<const std::int32_t> ids) {
  for (std::size_t t = 0; t < ids.size(); ++t)
    check<ValueError>(ids[t] >= 0 && ids[t] < table.out_features(), "embedding", "id ", ids[t], " at token ", t, " is outside [0, ",
                      table.out_features(), "); the ids belong to another vocabulary");
  check<ValueError>(!table.weight_trainable(), "embedding", "the token table is trainable; on a GPU it is frozen: use the CPU");
  auto& machine = cuda::Machine::current();
  cuda::DeviceActivation x(table.in_features(), static_cast<Index>(ids.size()));
  const cuda::Memory numbers = machine.uploaded(ids.data(), ids.size_bytes(), true);
  machine.launch(cuda::EmbeddingForward{cuda::on_device(table), reinterpret_cast<const std::int32_t*>(numbers.get()),
                                        cuda::detail::narrow(x.cols()), x.data()});
  return tape ? tape->input(std::move(x)) : Var<float, Cuda>(std::move(x));
}

}  // namespace lowrank::inline LOWRANK_ABI
