#pragma once

#include <algorithm>
#include <utility>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

/// Throws ValueError for what a GPU does not run yet.
LOWRANK_INLINE void check_plan(const Plan<float>& plan) {
  check<ValueError>(!plan.mask, "linear", "dropout of an update's input does not run on a GPU yet; train with dropout = 0, or on the CPU");
  check<ValueError>(plan.is_additive() && !plan.has_delta(), "linear",
                    "a GPU runs updates that are a sum W + s B M A, and this one is more; use the CPU, or merge the adapter first");
  for (const FactorView<float>* factor : {&plan.a, &plan.b, &plan.middle, &plan.bias})
    check<ValueError>(
        factor->empty() || factor->device != nullptr, "linear",
        "a GPU runs updates whose factors are parameters, and this one makes its own for each pass; use the CPU, or merge the ",
        "adapter first");
}

/// A plan's factor on the device.
LOWRANK_INLINE ParameterCopy& on_device(const FactorView<float>& factor) {
  return cuda::on_device(*factor.device, factor.data, factor.rows * factor.cols);
}

/// Rows of an operand from a token on, `depth` numbers each.
LOWRANK_INLINE Operand window(const Rounded& x, Index begin, Index depth) {
  const Operand all = x.operand();
  return {all.data + begin * all.stride, all.stride, narrow(depth)};
}

}  // namespace detail

LOWRANK_INLINE LayerPass::LayerPass(AnyLinear& layer, const LayerGroup<float>& group, std::size_t number)
    : machine_(Machine::current()), layer_(layer), w_(on_device(layer)), tokens_(group.tokens), plans_(group.layers[number].plans) {
  const LayerPlan<float>& plan = group.layers[number];
  for (const Plan<float>& each : plans_) detail::check_plan(each);
  const auto joint = group.joint_of(number);
  for (const auto& part : plan.parts) {
    const Plan<float>& own = plans_[part.plan];
    if (part.tokens.count == 0) continue;
    if (!whole_ && !joint.empty() && joint.front().plan == &plan.plans[part.plan])
      whole_ = part_of(own, part.tokens);
    else
      add_to_rounds(part_of(own, part.tokens));
  }
  for (Round& round : rounds_) {
    std::vector<int> update_of_token(static_cast<std::size_t>(tokens_), -1);
    for (std::size_t i = 0; i < round.parts.size(); ++i) {
      const Part& part = round.parts[i];
      if (part.plan->has_factors()) std::fill_n(update_of_token.begin() + part.tokens.begin, part.tokens.count, static_cast<int>(i));
      round.rank = std::max(round.rank, part.plan->b.cols);
    }
    round.tiles = token_tiles(update_of_token, static_cast<int>(round.parts.size()), SmallTile::tokens);
  }
}

LOWRANK_INLINE LayerPass::Part LayerPass::part_of(const Plan<float>& plan, TokenRange tokens) const {
  if (!plan.has_factors()) return {&plan, tokens, {}, {}};
  Rounded b(machine_, detail::on_device(plan.b).value(), plan.b.rows, plan.b.cols, plan.scale);
  if (!plan.middle.empty()) return {&plan, tokens, Rounded(times_middle(plan)), std::move(b)};
  return {&plan, tokens, Rounded(machine_, detail::on_device(plan.a).value(), plan.a.rows, plan.a.cols), std::move(b)};
}

LOWRANK_INLINE DeviceActivation LayerPass::times_middle(const Plan<float>& plan) const {
  const float *const a = detail::on_device(plan.a).value(), *const m = detail::on_device(plan.middle).value();
  if (plan.middle.cols > 1) {  // Aᵀ Mᵀ
    const Rounded a16(machine_, a, plan.a.rows, plan.a.cols), m16(machine_, m, plan.middle.rows, plan.middle.cols);
    return product(machine_, a16.view(), true, m16, plan.middle.rows);
  }
  DeviceActivation ma(plan.a.cols, plan.a.rows);
  machine_.launch(ScaleTokens{a, m, detail::narrow(plan.a.cols), detail::narrow(plan.a.rows), false, ma.data()});
  return ma;
}

LOWRANK_INLINE void LayerPass::add_to_rounds(Part part) {
  const auto overlaps = [&](const Part& other) {
    return part.tokens.begin < other.tokens.begin + other.tokens.count && other.tokens.begin < part.tokens.begin + part.tokens.count;
  };
  const auto free = std::find_if(rounds_.begin(), rounds_.end(),
                                 [&](const Round& round) { return std::none_of(round.parts.begin(), round.parts.end(), overlaps); });
  Round& round = free == rounds_.end() ? rounds_.emplace_back() : *free;
  round.parts.push_back(std::move(part));
}

LOWRANK_INLINE bool LayerPass::trains() const {
  return layer_.bias().needs_grad() || std::any_of(plans_.begin(), plans_.end(), [](const auto& plan) { return plan.trains(); });
}

LOWRANK_INLINE DeviceActivation LayerPass::forward(const std::shared_ptr<const Rounded>& x, Index place) {
  if (std::any_of(plans_.begin(), plans_.end(), [](const auto& plan) { return plan.trains_a || plan.trains_middle; })) x_ = x;
  if (whole_) h_ = Rounded(*x, place, product(machine_, whole_->a.view(), false, *x, tokens_));  // A X   [r, T]
  const float* const bias = layer_.bias().empty() ? nullptr : cuda::on_device(layer_.bias()).value();
  DeviceActivation y = product(machine_, w_, false, *x, tokens_, whole_ ? &whole_->b : nullptr, &h_, bias);  // [W | s B] [X ; A X]
  if (whole_) add_bias(*whole_, y);
  for (Round& round : rounds_) {
    DeviceActivation h(round.rank, tokens_);
    multiply_tiles(round, &Part::a, false, *x, h, false);
    round.h = Rounded(h);
    multiply_tiles(round, &Part::b, false, round.h, y, true);  // Y += s B (A X)
    for (const Part& part : round.parts) add_bias(part, y);
  }
  return y;
}

LOWRANK_INLINE void LayerPass::backward(GradientFlow<float, Cuda>& flow) const {
  const DeviceActivation& g = flow.gradient();
  const int rows = detail::narrow(g.rows());
  if (layer_.bias().needs_grad())
    machine_.launch(SumColumns{g.data(), 1, rows, detail::narrow(tokens_), cuda::on_device(layer_.bias()).gradient()});
  const Rounded g16(g, room());
  for (const Round& round : rounds_) {
    DeviceActivation u32(round.rank, tokens_);
    multiply_tiles(round, &Part::b, true, g16, u32, false);  // s Bᵀ G   [r, T]
    const Rounded u(u32);
    if (flow.needs(0)) {
      auto dx = DeviceActivation::Zero(layer_.in_features(), tokens_);
      multiply_tiles(round, &Part::a, true, u, dx, true);  // Aᵀ U
      flow.add(0, std::move(dx));
    }
    for (const Part& part : round.parts) add_gradients(part, g, g16, u, round.h);
  }
  if (!whole_) return add_input_gradient(flow, g16, nullptr);
  const Rounded u(g16, 0, product(machine_, whole_->b.view(), true, g16, tokens_));  // s Bᵀ G   [r, T]
  add_input_gradient(flow, g16, &u);
  add_gradients(*whole_, g, g16, u, h_);
}

/// dX += Wᵀ G + Aᵀ U, by the product itself where another layer's dX is there already.
LOWRANK_INLINE void LayerPass::add_input_gradient(GradientFlow<float, Cuda>& flow, const Rounded& g16, const Rounded* u) const {
  if (!flow.needs(0)) return;
  const Rounded* const a = u ? &whole_->a : nullptr;
  if (DeviceActivation* const sum = flow.sum_so_far(0); sum && sum->rows() == w_.cols && sum->cols() == tokens_)
    product_into(machine_, w_, true, g16, tokens_, sum->data(), a, u, nullptr, true);
  else
    flow.add(0, product(machine_, w_, true, g16, tokens_, a, u));
}

LOWRANK_INLINE void LayerPass::multiply_tiles(const Round& round, Rounded Part::*factor, bool transposed, const Rounded& h,
                                              DeviceActivation& y, bool accumulate) const {
  std::vector<UpdateFactor> factors;
  for (const Part& part : round.parts) factors.push_back((part.*factor).update(transposed));
  const Memory on_factors = machine_.uploaded(factors.data(), factors.size() * sizeof(UpdateFactor)),
               on_tiles = machine_.uploaded(round.tiles.data(), round.tiles.size() * sizeof(TokenTile));
  Product p;
  p.h = h.operand();
  p.updates = reinterpret_cast<const UpdateFactor*>(on_factors.get());
  p.tiles = reinterpret_cast<const TokenTile*>(on_tiles.get());
  p.tile_count = static_cast<int>(round.tiles.size());
  p.y = y.data();
  p.ldy = p.rows = detail::narrow(y.rows());
  p.tokens = detail::narrow(tokens_);
  p.accumulate = accumulate;
  // Without a base the bits of its codes do not matter.
  transposed ? machine_.launch(ProductMany<4, true, SmallTile>{p}) : machine_.launch(ProductMany<4, false, SmallTile>{p});
}

LOWRANK_INLINE void LayerPass::add_bias(const Part& part, DeviceActivation& y) const {
  const auto& [plan, tokens, a, b] = part;
  if (!plan->bias.empty())
    machine_.launch(AddToColumns{detail::on_device(plan->bias).value(), plan->scale, detail::narrow(y.rows()), detail::narrow(tokens.count),
                                 y.data() + tokens.begin * y.rows()});
}

/// dA += U Xᵀ, dB += s G (A X)ᵀ and the bias' sum of s G, over the tokens of a part.
LOWRANK_INLINE void LayerPass::add_gradients(const Part& part, const DeviceActivation& g, const Rounded& g16, const Rounded& u,
                                             const Rounded& h) const {
  const Plan<float>& plan = *part.plan;
  const auto [begin, count] = part.tokens;
  if (plan.trains_bias)
    machine_.launch(SumColumns{g.data() + begin * g.rows(), plan.scale, detail::narrow(g.rows()), detail::narrow(count),
                               detail::on_device(plan.bias).gradient()});
  if (!plan.middle.empty() && (plan.trains_a || plan.trains_middle)) {
    auto dma = DeviceActivation::Zero(plan.a.cols, plan.b.cols);
    add_outer_of(part.tokens, u, plan.b.cols, *x_, plan.a.cols, 1, dma.data());  // U Xᵀ
    add_middle_gradients(plan, dma);
  } else if (plan.trains_a) {
    add_outer_of(part.tokens, u, plan.a.rows, *x_, plan.a.cols, 1, detail::on_device(plan.a).gradient());  // U Xᵀ
  }
  if (plan.trains_b)
    add_outer_of(part.tokens, g16, plan.b.rows, h, plan.b.cols, plan.scale, detail::on_device(plan.b).gradient());  // s G (A X)ᵀ
}

/// dA += Mᵀ dMA, dM += dMA Aᵀ.
LOWRANK_INLINE void LayerPass::add_middle_gradients(const Plan<float>& plan, const DeviceActivation& dma) const {
  ParameterCopy &a = detail::on_device(plan.a), &m = detail::on_device(plan.middle);
  const int in = detail::narrow(plan.a.cols), rank = detail::narrow(plan.a.rows);
  if (plan.middle.cols > 1) {
    const Rounded dma16(dma);
    if (plan.trains_a) {
      const Rounded m16(machine_, m.value(), plan.middle.rows, plan.middle.cols);
      add_outer_of({0, plan.middle.rows}, m16, rank, dma16, in, 1, a.gradient());
    }
    const Rounded a16(machine_, a.value(), rank, in);
    if (plan.trains_middle) product_into(machine_, a16.view(), false, dma16, dma.cols(), m.gradient(), nullptr, nullptr, nullptr, true);
    return;
  }
  if (plan.trains_a) machine_.launch(ScaleTokens{dma.data(), m.value(), in, rank, true, a.gradient()});
  if (plan.trains_middle) machine_.launch(DotTokens{a.value(), dma.data(), in, rank, m.gradient()});
}

LOWRANK_INLINE void LayerPass::add_outer_of(TokenRange tokens, const Rounded& left, Index rows, const Rounded& right, Index cols,
                                            float scale, float* c) const {
  OuterProduct outer;
  outer.left = detail::window(left, tokens.begin, rows), outer.right = detail::window(right, tokens.begin, cols);
  outer.tokens = detail::narrow(tokens.count), outer.scale = scale, outer.c = c;
  add_outer(machine_, outer, machine_.scratch());
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
