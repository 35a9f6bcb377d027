#pragma once

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/kernels/driver/packed.hpp>
#include <lowrank/ops/lora.hpp>

/// Low-rank layers that read the same X, such as query, key and value: X is packed once for all products of the forward pass, and each
/// G once for those of the backward pass. A single layer is a group of one.

namespace lowrank::inline LOWRANK_ABI {

/// A frozen weight W [out, in] of any type, and its update or none. Sees both where they lie: they must outlive it.
class AdaptedWeight {
 public:
  template <Source W>
  AdaptedWeight(const W& weight, std::optional<LowRank<float>> update) : AdaptedWeight(std::move(update), weight.rows(), weight.cols()) {
    weight_ = &weight;
    place_ = [](const AdaptedWeight& self, kernels::Pieces& pieces, Index row, Index depth, bool turned) {
      add(*static_cast<const W*>(self.weight_), pieces, row, depth, turned);
    };
  }
  AdaptedWeight(const DenseSource<float>& weight, std::optional<LowRank<float>> update)
      : AdaptedWeight(std::move(update), weight.rows(), weight.cols()) {
    dense_ = weight;
    place_ = [](const AdaptedWeight& self, kernels::Pieces& pieces, Index row, Index depth, bool turned) {
      add(self.dense_, pieces, row, depth, turned);
    };
  }

  Index out() const { return out_; }
  Index in() const { return in_; }
  Index rank() const { return update_ ? update_->a.rows() : 0; }
  const LowRank<float>& update() const { return *update_; }
  /// Factor of each row of the result [out], for DoRA; must outlive it.
  void scale_rows(const float* factors) { row_scale_ = factors; }
  const float* row_scale() const { return row_scale_; }

  /// Puts W, or its transpose, at (row, depth) of a product's left factor.
  void place(kernels::Pieces& pieces, Index row, Index depth) const { place_(*this, pieces, row, depth, false); }
  void place_transposed(kernels::Pieces& pieces, Index row, Index depth) const { place_(*this, pieces, row, depth, true); }

 private:
  AdaptedWeight(std::optional<LowRank<float>> update, Index out, Index in) : update_(std::move(update)), out_(out), in_(in) {
    if (update_) detail::check_update("lora_together", *update_, in_);
  }
  template <Source W>
  static void add(const W& weight, kernels::Pieces& pieces, Index row, Index depth, bool turned) {
    turned ? pieces.add_transposed(weight, row, depth) : pieces.add(weight, row, depth);
  }

  std::optional<LowRank<float>> update_;
  Index out_, in_;
  const void* weight_ = nullptr;
  const float* row_scale_ = nullptr;
  DenseSource<float> dense_{nullptr, 0, 0};
  void (*place_)(const AdaptedWeight& self, kernels::Pieces& pieces, Index row, Index depth, bool turned) = nullptr;
};

/// Yᵢ = Wᵢ X + sᵢ Bᵢ Hᵢ [outᵢ, T] of each layer, and H = [A₁ ; A₂ …] X [Σ r, T], which the backward pass needs.
struct LorasForward {
  std::vector<Activation<float>> y;
  Activation<float> h;
};

/// dX [in, T] of all layers together; of each layer with an update dA [r, in] and dB [out, r], of the others nothing.
struct LorasGradients {
  Activation<float> dx;
  std::vector<Weight<float>> da, db;
};

namespace detail {

inline kernels::Columns columns_of(const ActivationView<float>& x) { return {x.data(), x.outerStride(), x.rows()}; }

/// Where the parts of a group lie: Hᵢ and Uᵢ among the ranks, Gᵢ and Uᵢ below each other in the packed depth.
struct GroupPlaces {
  std::vector<Index> rank_row, g, u;
  Index rank = 0, depth = 0;

  GroupPlaces(std::span<const AdaptedWeight> layers, Index in, Index unit) {
    for (const AdaptedWeight& layer : layers) {
      check<ShapeError>(layer.in() == in, "lora_together", "x has ", in, " rows but a layer expects in = ", layer.in(),
                        "; x is [in, tokens]");
      rank_row.push_back(std::exchange(rank, rank + layer.rank()));
      g.push_back(depth);
      u.push_back(round_up(depth + layer.out(), unit));
      depth = round_up(u.back() + layer.rank(), unit);
    }
  }
};

/// Packs G and U = s Bᵀ G of each layer that has a G, writes U [Σ r, T], and places [Wᵢᵀ | Aᵢᵀ] in `back`.
inline void pack_gradients(std::span<const AdaptedWeight> layers, std::span<const Activation<float>> g, const GroupPlaces& places,
                           kernels::Packed& packed, kernels::Pieces& back, Activation<float>& u) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const AdaptedWeight& layer = layers[i];
    packed.put(places.g[i], columns_of(g[i]));
    layer.place_transposed(back, 0, places.g[i]);
    if (layer.rank() == 0) continue;
    kernels::Pieces up(layer.rank(), layer.out());
    up.add(transposed(layer.update().b_source()), 0, 0, layer.update().scale);
    float* rows = u.data() + places.rank_row[i];
    packed.multiply(up, places.g[i], rows, u.outerStride());  // s Bᵀ G   [r, T]
    packed.put(places.u[i], {rows, u.outerStride(), layer.rank()});
    back.add(transposed(layer.update().a_source()), 0, places.u[i]);
  }
}

}  // namespace detail

/// Low-rank layers over one X [in, T]: H = [A₁ ; A₂ …] X, then Yᵢ = [Wᵢ | sᵢ Bᵢ] · [X ; Hᵢ], by rows
/// times a factor if one is given.
///
/// Cost: Σ 2 out in T + 2 r (in + out) T FLOPs, one pass over each W. Throws ShapeError. Hu et al. 2021, eq. 3.
inline LorasForward lora_forward_together(std::span<const AdaptedWeight> layers, const ActivationView<float>& x, Compute compute) {
  const Index in = x.rows(), tokens = x.cols(), unit = kernels::packed_unit(compute), behind = round_up(in, unit);
  const detail::GroupPlaces places(layers, in, unit);
  kernels::Packed packed(behind + places.rank, tokens, compute);
  packed.put(0, detail::columns_of(x));
  LorasForward forward;
  for (const AdaptedWeight& layer : layers) forward.y.emplace_back(layer.out(), tokens);
  forward.h.resize(places.rank, tokens);
  kernels::Pieces down(places.rank, in);
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (layers[i].rank() > 0) down.add(layers[i].update().a_source(), places.rank_row[i], 0);
  packed.multiply(down, 0, forward.h.data(), forward.h.outerStride());  // [Σ r, in] · [in, T]
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const AdaptedWeight& layer = layers[i];
    kernels::Pieces map(layer.out(), layer.rank() > 0 ? behind + layer.rank() : in);
    layer.place(map, 0, 0);
    if (layer.rank() > 0) {
      map.add(layer.update().b_source(), 0, behind, layer.update().scale);
      packed.put(behind, {forward.h.data() + places.rank_row[i], forward.h.outerStride(), layer.rank()});
    }
    packed.multiply(map, 0, forward.y[i].data(), forward.y[i].outerStride(), {.row_scale = layer.row_scale()});
  }
  return forward;
}

/// Gradients of lora_forward_together for Gᵢ = dL/dYᵢ [outᵢ, T]: with Uᵢ = sᵢ Bᵢᵀ Gᵢ,
/// dX = Σ [Wᵢᵀ | Aᵢᵀ] · [Gᵢ ; Uᵢ], dAᵢ = Uᵢ Xᵀ, dBᵢ = sᵢ Gᵢ Hᵢᵀ. dX is empty unless asked for; X
/// is empty where no A is trained: then dA is not computed. Rows of Gᵢ that were scaled are given scaled. Throws ShapeError.
inline LorasGradients lora_backward_together(std::span<const AdaptedWeight> layers, const ActivationView<float>& x,
                                             const Activation<float>& h, std::span<const Activation<float>> g, bool need_dx,
                                             Compute compute) {
  const Index in = layers.front().in(), tokens = g.front().cols();
  const detail::GroupPlaces places(layers, in, kernels::packed_unit(compute));
  Activation<float> u(places.rank, tokens);
  LorasGradients gradients;
  {
    kernels::Packed packed(places.depth, tokens, compute);
    kernels::Pieces back(in, places.depth);
    detail::pack_gradients(layers, g, places, packed, back, u);
    if (need_dx) {
      gradients.dx.resize(in, tokens);
      packed.multiply(back, 0, gradients.dx.data(), gradients.dx.outerStride());  // Σ Wᵀ G + Aᵀ U   [in, T]
    }
  }
  const bool need_da = places.rank > 0 && x.size() > 0;
  Weight<float> da = Weight<float>::Zero(need_da ? places.rank : 0, in);
  if (need_da) accumulate_outer(da, u, x, 1.0f, compute);  // U Xᵀ   [Σ r, in]
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Index r = layers[i].rank(), row = places.rank_row[i];
    gradients.da.emplace_back(need_da ? Weight<float>(da.middleRows(row, r)) : Weight<float>());
    gradients.db.emplace_back(Weight<float>::Zero(layers[i].out(), r));
    if (r > 0)
      accumulate_outer(gradients.db[i], g[i], ActivationView<float>(h.middleRows(row, r)), layers[i].update().scale, compute);  // s G Hᵀ
  }
  return gradients;
}

/// lora_forward for many tokens, as a group of one. Same result, X packed once.
template <Source W>
LoraForward<float> lora_forward_packed(const W& source, const LowRank<float>& update, const ActivationView<float>& x, Compute compute) {
  const AdaptedWeight layer(source, update);
  auto forward = lora_forward_together(std::span(&layer, 1), x, compute);
  return {std::move(forward.y.front()), std::move(forward.h)};
}

/// lora_backward for many tokens, as a group of one. Same result, G packed once.
template <Source W>
LoraGradients<float> lora_backward_packed(const W& source, const LowRank<float>& update, const ActivationView<float>& x,
                                          const Activation<float>& h, const Activation<float>& g, Compute compute) {
  const AdaptedWeight layer(source, update);
  auto gradients = lora_backward_together(std::span(&layer, 1), x, h, std::span(&g, 1), true, compute);
  return {std::move(gradients.dx), std::move(gradients.da.front()), std::move(gradients.db.front())};
}

}  // namespace lowrank::inline LOWRANK_ABI
