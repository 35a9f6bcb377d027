#pragma once

#include <algorithm>
#include <span>
#include <utility>

#include <lowrank/kernels/driver/gemm.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline kernels::Columns columns_of(const ActivationView<float>& x) { return {x.data(), x.outerStride(), x.rows()}; }
inline kernels::Columns rows_of(const Activation<float>& h, Index row, Index count) { return {h.data() + row, h.outerStride(), count}; }

/// The factor's numbers, rounded if that is what is computed with.
template <class Add>
void with_factor(const FactorView<float>& f, Compute compute, const Add& add) {
  if (compute != Compute::fp32 && f.rounded != nullptr)
    add(DenseSource<BFloat16>(f.rounded, f.rows, f.cols));
  else
    add(f.source());
}

}  // namespace detail

// ---- Many tokens, forward ------------------------------------------------------------------------------------------------------------

LOWRANK_INLINE PackedProducts::PackedProducts(const LayerGroup<float>& group, const ActivationView<float>& x)
    : group_(group),
      grain_(kernels::packed_grain(group.compute)),
      behind_(round_up(group.in, grain_)),
      packed_(behind_ + group.rank_b + grain_ * static_cast<Index>(group.joint.size()), group.tokens, group.compute) {
  packed_.put(0, detail::columns_of(x));
}

LOWRANK_INLINE Activation<float> PackedProducts::times_a() const {
  Activation<float> h(group_.rank_a, group_.tokens);
  kernels::Pieces down(group_.rank_a, group_.in);
  for (const auto& update : group_.joint) down.add(update.plan->a.source(), update.row_a, 0);
  packed_.multiply(down, 0, h.data(), h.outerStride());  // [Σ r, in] · [in, T]
  return h;
}

LOWRANK_INLINE void PackedProducts::times_w_and_b(const Activation<float>& h, std::vector<Activation<float>>& y) {
  for (std::size_t i = 0; i < group_.layers.size(); ++i) {
    if (!group_.is_joint(i)) continue;
    const LayerPlan<float>& layer = group_.layers[i];
    Index depth = group_.in, at = behind_;
    for (const auto& update : group_.joint_of(i)) {
      packed_.put(at, detail::rows_of(h, update.row_b, update.plan->b.cols));
      depth = at + update.plan->b.cols;
      at = round_up(depth, grain_);
    }
    kernels::Pieces map(layer.out, depth);
    map.add(layer.weight, 0, 0);
    at = behind_;
    for (const auto& update : group_.joint_of(i)) {
      map.add(update.plan->b.source(), 0, at, update.plan->scale);
      at = round_up(at + update.plan->b.cols, grain_);
    }
    y[i].resize(layer.out, group_.tokens);
    packed_.multiply(map, 0, y[i].data(), y[i].outerStride());  // [out, in + r'] · [in + r', T]
  }
}

// ---- Many tokens, backward -----------------------------------------------------------------------------------------------------------

LOWRANK_INLINE PackedGradients::Places::Places(const LayerGroup<float>& group, Index grain) {
  for (std::size_t i = 0; i < group.layers.size(); ++i) {
    g.push_back(depth);
    if (group.is_joint(i)) depth = round_up(depth + group.layers[i].out, grain);
    for (const auto& update : group.joint_of(i)) {
      u.push_back(depth);
      depth = round_up(depth + update.plan->a.rows, grain);
    }
  }
}

LOWRANK_INLINE PackedGradients::PackedGradients(const LayerGroup<float>& group)
    : group_(group), places_(group, kernels::packed_grain(group.compute)), packed_(places_.depth, group.tokens, group.compute) {}

LOWRANK_INLINE Activation<float> PackedGradients::times_b_transposed(const std::vector<Activation<float>>& g) {
  Activation<float> u(group_.rank_b, group_.tokens);
  for (std::size_t i = 0; i < group_.layers.size(); ++i) {
    if (!group_.is_joint(i)) continue;
    packed_.put(places_.g[i], detail::columns_of(g[i]));
    for (const auto& update : group_.joint_of(i)) {
      kernels::Pieces up(update.plan->b.cols, group_.layers[i].out);
      up.add(transposed(update.plan->b.source()), 0, 0, update.plan->scale);
      packed_.multiply(up, places_.g[i], u.data() + update.row_b, u.outerStride());  // [r', out] · [out, T]
    }
  }
  return u;
}

LOWRANK_INLINE Activation<float> PackedGradients::input_gradient(const std::vector<Activation<float>>&, const Activation<float>& u) {
  kernels::Pieces back(group_.in, places_.depth);
  std::size_t k = 0;
  for (std::size_t i = 0; i < group_.layers.size(); ++i) {
    if (!group_.is_joint(i)) continue;
    back.add_transposed(group_.layers[i].weight, 0, places_.g[i]);
    for (const auto& update : group_.joint_of(i)) {
      packed_.put(places_.u[k], detail::rows_of(u, update.row_a, update.plan->a.rows));
      back.add(transposed(update.plan->a.source()), 0, places_.u[k++]);
    }
  }
  Activation<float> dx(group_.in, group_.tokens);
  packed_.multiply(back, 0, dx.data(), dx.outerStride());  // Σ [in, out + r] · [out + r, T]
  return dx;
}

// ---- Few tokens ----------------------------------------------------------------------------------------------------------------------

LOWRANK_INLINE FewProducts::FewProducts(const LayerGroup<float>& group, const ActivationView<float>& x) : group_(group) {
  for (std::size_t i = 0; i < group.layers.size(); ++i)
    if (group.is_joint(i)) rows_ += group.layers[i].out;
  for (const auto& update : group.joint) has_middle_ |= !update.plan->middle.empty();
  kernels::Pieces down(group.rank_a + rows_, group.in);
  for (const auto& update : group.joint)
    detail::with_factor(update.plan->a, group.compute, [&](const auto& a) { down.add(a, update.row_a, 0); });
  Index row = group.rank_a;
  for (std::size_t i = 0; i < group.layers.size(); ++i) {
    if (!group.is_joint(i)) continue;
    down.add(group.layers[i].weight, row, 0);
    row += group.layers[i].out;
  }
  hy_.resize(group.rank_a + rows_, group.tokens);
  const kernels::Columns input = detail::columns_of(x);
  const std::span inputs(&input, 1);
  if (has_middle_)
    kernels::multiply(down, inputs, group.tokens, hy_.data(), hy_.outerStride(), {.compute = group.compute});
  else
    kernels::multiply_through(down, up(), inputs, group.tokens, hy_.data(), hy_.outerStride(), group.compute);
}

LOWRANK_INLINE kernels::Pieces FewProducts::up() const {
  kernels::Pieces up(rows_, group_.rank_b);
  Index row = 0;
  for (std::size_t i = 0; i < group_.layers.size(); ++i) {
    if (!group_.is_joint(i)) continue;
    for (const auto& update : group_.joint_of(i))
      detail::with_factor(update.plan->b, group_.compute, [&](const auto& b) { up.add(b, row, update.row_b, update.plan->scale); });
    row += group_.layers[i].out;
  }
  return up;
}

LOWRANK_INLINE Activation<float> FewProducts::times_a() const { return hy_.topRows(group_.rank_a); }

LOWRANK_INLINE void FewProducts::times_w_and_b(const Activation<float>& h, std::vector<Activation<float>>& y) {
  Index row = group_.rank_a;
  if (has_middle_) {
    const kernels::Columns hidden = detail::rows_of(h, 0, group_.rank_b);
    const kernels::Options options{.compute = group_.compute, .accumulate = true};
    kernels::multiply(up(), std::span(&hidden, 1), group_.tokens, hy_.data() + row, hy_.outerStride(), options);
  }
  for (std::size_t i = 0; i < group_.layers.size(); ++i) {
    if (!group_.is_joint(i)) continue;
    const Index out = group_.layers[i].out;
    if (row == 0 && out == hy_.rows()) return void(y[i] = std::move(hy_));  // the only one, without updates
    y[i].resize(out, group_.tokens);
    for (Index t = 0; t < group_.tokens; ++t) std::copy_n(hy_.col(t).data() + row, out, y[i].col(t).data());
    row += out;
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
