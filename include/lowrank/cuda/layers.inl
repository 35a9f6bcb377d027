#pragma once

#include <algorithm>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/ops.hpp>
#include <lowrank/cuda/rounded.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace cuda::detail {

/// Throws ValueError for what a GPU does not do yet.
LOWRANK_INLINE void check_update_here(const LoraWeights<float>& update, bool is_recorded) {
  check<ValueError>(!update.is_dora(), "linear", "DoRA does not run on a GPU yet; use the CPU, or merge the adapter first");
  check<ValueError>(!is_recorded || update.dropout == 0, "linear",
                    "dropout of an adapter's input does not run on a GPU yet; train with dropout = 0, or on the CPU");
}
LOWRANK_INLINE void check_use_here(const LayerUse& use, bool is_recorded) {
  check<ValueError>(!use.layer->base.weight_trainable(), "linear",
                    "the layer's weight is trainable; on a GPU weights are frozen and updates train: call set_trainable(false)");
  if (use.update) check_update_here(*use.update, is_recorded);
}

/// C += scale · Σₜ L Rᵀ into a parameter's gradient.
LOWRANK_INLINE void add_outer_gradient(Machine& machine, Parameter<float>& parameter, const Rounded& left, const Rounded& right,
                                       Index tokens, float scale) {
  OuterProduct outer;
  outer.left = left.operand(), outer.right = right.operand();
  outer.tokens = narrow(tokens), outer.scale = scale, outer.c = cuda::on_device(parameter).gradient();
  add_outer(machine, outer, machine.scratch());
}

/// What one layer's backward pass reads: [W | s B] and X, A X, all as the products read them.
struct LayerRecord {
  LayerUse use;
  Rounded a, b;                      ///< A, s B
  std::shared_ptr<const Rounded> x;  ///< where A is trained
  Rounded h;

  /// y = W X + b + s B (A X); A X comes to lie in the rows of X, `place` numbers into their room.
  DeviceActivation forward(const std::shared_ptr<const Rounded>& input, Index place, Index tokens, Machine& machine) {
    const ChunkedView& w = cuda::on_device(use.layer->base);
    Parameter<float>& bias = use.layer->base.bias();
    const float* const added = bias.empty() ? nullptr : cuda::on_device(bias).value();
    if (!use.update) return product(machine, w, false, *input, tokens, nullptr, nullptr, added);
    LoraWeights<float>& u = *use.update;
    a = Rounded(machine, cuda::on_device(u.a).value(), u.rank(), u.a.cols());
    b = Rounded(machine, cuda::on_device(u.b).value(), u.b.rows(), u.rank(), u.scale);
    h = Rounded(*input, place, product(machine, a.view(), false, *input, tokens));   // A X   [r, T]
    DeviceActivation y = product(machine, w, false, *input, tokens, &b, &h, added);  // [W | s B] [X ; A X]
    if (u.a.needs_grad()) x = input;
    if (!u.bias.empty()) machine.launch(AddToColumns{cuda::on_device(u.bias).value(), u.scale, narrow(y.rows()), narrow(tokens), y.data()});
    return y;
  }

  template <class Flow>
  void backward(Flow& flow) {
    const DeviceActivation& g = flow.gradient();
    Machine& machine = g.machine();
    add_bias_gradient(use.layer->base.bias(), g, 1);
    const Rounded g16(g, use.update ? Rounded::room_of(use.update->rank()) : 0);
    const ChunkedView& w = cuda::on_device(use.layer->base);
    if (!use.update) {
      add_transposed(flow, machine, w, g16, nullptr, nullptr);
      return;
    }
    LoraWeights<float>& update = *use.update;
    add_bias_gradient(update.bias, g, update.scale);
    const Rounded u(g16, 0, product(machine, b.view(), true, g16, g.cols()));                          // s Bᵀ G   [r, T]
    add_transposed(flow, machine, w, g16, &a, &u);                                                     // Wᵀ G + Aᵀ U
    if (update.a.needs_grad()) add_outer_gradient(machine, update.a, u, *x, g.cols(), 1);              // U Xᵀ
    if (update.b.needs_grad()) add_outer_gradient(machine, update.b, g16, h, g.cols(), update.scale);  // s G (A X)ᵀ
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
  static void add_bias_gradient(Parameter<float>& bias, const DeviceActivation& g, float factor) {
    if (bias.needs_grad())
      g.machine().launch(SumColumns{g.data(), factor, narrow(g.rows()), narrow(g.cols()), cuda::on_device(bias).gradient()});
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
      check_range(base, range, tokens, is_recorded);
      LoraWeights<float>& u = *range.update;
      const auto number = static_cast<int>(parts_.size());
      std::fill_n(update_of_token.begin() + range.begin, range.count, number);
      parts_.push_back({range, Rounded(machine, on_device(u.a).value(), u.rank(), u.a.cols()),
                        Rounded(machine, on_device(u.b).value(), u.b.rows(), u.rank(), u.scale)});
      rank_ = std::max(rank_, u.rank());
    }
    tiles_ = token_tiles(update_of_token, narrow(static_cast<Index>(parts_.size())), SmallTile::tokens);
  }

  bool empty() const { return parts_.empty(); }
  bool needs_grad() const {
    return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.range.update->needs_grad(); });
  }

  /// y += s_a B_a (A_a x) of each token's update a; keeps A x.
  void forward(const DeviceActivation& x, DeviceActivation& y) {
    x_ = Rounded(x);
    DeviceActivation h(rank_, tokens_);
    launch<false>(&Part::a, x_, narrow(rank_), h, false);
    h_ = Rounded(h);
    launch<false>(&Part::b, h_, narrow(y.rows()), y, true);
    for (const Part& part : parts_) {
      LoraWeights<float>& u = *part.range.update;
      if (!u.bias.empty())
        machine_.launch(AddToColumns{on_device(u.bias).value(), u.scale, narrow(y.rows()), narrow(part.range.count),
                                     y.data() + part.range.begin * y.rows()});
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
      const auto [begin, count, update] = part.range;
      if (update->bias.needs_grad())
        machine_.launch(
            SumColumns{g.data() + begin * g.rows(), update->scale, narrow(g.rows()), narrow(count), on_device(update->bias).gradient()});
      add_outer_of(part, update->a, u16.operand(), narrow(update->rank()), x_.operand(), x_.operand().depth, 1);               // U Xᵀ
      add_outer_of(part, update->b, g16.operand(), g16.operand().depth, h_.operand(), narrow(update->rank()), update->scale);  // s G Hᵀ
    }
  }

 private:
  struct Part {
    UpdateRange range;
    Rounded a, b;  ///< A, s B
  };

  static void check_range(const AnyLinear& base, const UpdateRange& range, Index tokens, bool is_recorded) {
    const LoraWeights<float>& u = *range.update;
    check<ShapeError>(range.begin >= 0 && range.begin + range.count <= tokens, "update_ranges", "tokens [", range.begin, ", ",
                      range.begin + range.count, ") of a batch of ", tokens);
    check<ShapeError>(u.a.cols() == base.in_features() && u.b.rows() == base.out_features(), "update_ranges", "A is [", u.a.rows(), ", ",
                      u.a.cols(), "], B is [", u.b.rows(), ", ", u.b.cols(), "] but the layer is [", base.out_features(), ", ",
                      base.in_features(), ']');
    check_update_here(u, is_recorded);
  }

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
  void add_outer_of(const Part& part, Parameter<float>& parameter, Operand left, int rows, Operand right, int cols, float scale) const {
    if (!parameter.needs_grad()) return;
    left.data += part.range.begin * left.stride, right.data += part.range.begin * right.stride;
    left.depth = rows, right.depth = cols;
    OuterProduct outer;
    outer.left = left, outer.right = right;
    outer.tokens = narrow(part.range.count), outer.scale = scale, outer.c = on_device(parameter).gradient();
    add_outer(machine_, outer, machine_.scratch());
  }

  Machine& machine_;
  Index tokens_, rank_ = 0;
  std::vector<Part> parts_;
  std::vector<TokenTile> tiles_;
  Rounded x_, h_;
};

}  // namespace cuda::detail

LOWRANK_INLINE std::vector<Var<float, Cuda>> forward_together(std::span<const LayerUse> uses, const Var<float, Cuda>& x) {
  for (const LayerUse& use : uses) {
    detail::check_input("linear", x.rows(), x.cols(), use.layer->in_features());
    cuda::detail::check_use_here(use, x.tape() != nullptr);
  }
  Index room = 0, place = 0;
  for (const LayerUse& use : uses)
    if (use.update) room += cuda::Rounded::room_of(use.update->rank());
  const auto input = std::make_shared<const cuda::Rounded>(x.value(), room);
  std::vector<Var<float, Cuda>> outputs;
  for (const LayerUse& use : uses) {
    auto layer = std::make_shared<cuda::detail::LayerRecord>();
    layer->use = use;
    const bool trains = use.layer->base.bias().needs_grad() || (use.update && use.update->needs_grad());
    auto y = layer->forward(input, place, x.cols(), x.value().machine());
    if (use.update) place += cuda::Rounded::room_of(use.update->rank());
    auto output = record(
        std::move(y), {x}, [layer](auto& flow) { layer->backward(flow); }, trains);
    outputs.push_back(std::move(output).kept_as(use.layer->base.compute()));
  }
  return outputs;
}

LOWRANK_INLINE Var<float, Cuda> add_updates(Var<float, Cuda> y, const Var<float, Cuda>& x, const AdaptedLinear& layer,
                                            std::span<const UpdateRange> ranges) {
  const auto updates = std::make_shared<cuda::detail::RangeUpdates>(x.value().machine(), layer.base, ranges, x.cols(), x.tape() != nullptr);
  if (updates->empty()) return y;
  cuda::DeviceActivation z = y.take();
  updates->forward(x.value(), z);
  const auto backward = [updates, rows = x.rows()](auto& flow) {
    if (flow.needs(1)) {
      auto dx = cuda::DeviceActivation::Zero(rows, flow.gradient().cols());
      updates->backward(flow.gradient(), &dx);
      flow.add(1, std::move(dx));
    } else {
      updates->backward(flow.gradient(), nullptr);
    }
    flow.add(0, flow.take());
  };
  return record(std::move(z), {y, x}, backward, updates->needs_grad()).kept_as(layer.base.compute());
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
