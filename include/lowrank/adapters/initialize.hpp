#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/quant/matrix.hpp>

/// Beginnings of an update beyond a drawn A and B = 0. Those that are not zero move part of the weight into the adapter: the base becomes
/// W - s B A, so that the layer begins as it was, and to_plain_update gives the trained adapter for the weight as it was before.

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

void check_initial(const char* operation, Index out, Index in, Index rank, double scale);

Weight<float> dense_copy(const WeightView& w);

/// s B A [out, in].
Weight<float> dense_product(const Factors& update);

}  // namespace detail

/// W - s B A: the base of a layer whose update begins with `update`. W [out, in] any source; a dense fp32 result.
Weight<float> residual_weight(const WeightView& w, const Factors& update);

/// A trained update for the weight as it was before its initialization: s (B A - B₀ A₀) = s [B, -B₀] [A; A₀], exactly. Throws ShapeError.
Factors to_plain_update(const Factors& initial, const Factors& trained);

/// PiSSA: the r largest singular directions of W, s B A = U_r S_r V_rᵀ. Moves them out of the base. Cost: a full SVD. Throws ValueError.
/// Meng et al. 2024, "PiSSA: Principal singular values and singular vectors adaptation".
Factors init_pissa(const WeightView& w, Index rank, double scale);

/// PiSSA by a randomized SVD: some 2 + 2 q products of the weight with r + 8 columns, and no dense copy. Base + update is still W.
Factors init_pissa_fast(const WeightView& w, Index rank, double scale, const RandomizedSvdOptions& options = {});

/// OLoRA: B the first r columns of Q and A the first r rows of R in W = Q R. Moves s B A out of the base.
///
/// Only r columns of W are decomposed: they alone decide the first r columns of Q, and R_r = Q_rᵀ W. Cost: 2 out in r FLOPs. Throws
/// ValueError. Büyükakyüz 2024, "OLoRA: Orthonormal low-rank adaptation".
Factors init_olora(const WeightView& w, Index rank, double scale);

/// Orthogonal: rows of A and columns of B that meet at right angles, so that B A = 0 though neither is; the base stays.
///
/// Q a random rotation [r, r], N₁ [in, r/2], N₂ [out, r/2] Gaussian: A = (N₁ Q_even)ᵀ / 10, B = N₂ Q_odd / 10 of its even and odd rows.
/// Throws ValueError for an odd rank.
Factors init_orthogonal(Index out, Index in, Index rank, std::uint64_t seed, std::uint64_t stream = 0);

/// LoRA-GA: the first step of the adapter follows the gradient G = dL/dW of the full weight.
///
/// With G = U S Vᵀ: A = V_{1…r}ᵀ, B = U_{r+1…2r} · out^¼ / √γ ("stable" scale), moved out of the base. Then dL/dB = s G Aᵀ and
/// dL/dA = s Bᵀ G move W along the best approximation of G of rank 2r. `gradient` holds at least 2r singular triplets, for example of
/// randomized_svd; `stable_gamma` γ. The directions of B have length one, so the size of the gradient, which depends on the batch and the
/// loss, does not matter. Throws ValueError. Wang, Yu, Li 2024, "LoRA-GA: Low-rank adaptation with gradient approximation".
Factors init_lora_ga(const Svd& gradient, Index rank, double scale, double stable_gamma = 16);

/// A weight as a quantized base and the update that makes up for its rounding.
template <class Format>
struct LoftQ {
  Factors update;
  QuantizedMatrix<Format> base;
  std::vector<double> errors;  ///< ‖W - Q - s B A‖ / ‖W‖ after each iteration that was an improvement
};

/// LoftQ: alternates Q = quantize(W - s B A) and s B A = the best approximation of W - Q; the base becomes Q.
///
/// The second step is optimal but the first is not, since a block's scale moves with its largest weight, so the iteration stops where the
/// error no longer falls, and the best is returned. PEFT forgets 1/s; here it is in B and A. With one iteration Q is quantize(W), the base
/// that any loader makes. Throws ValueError. Li et al. 2023, "LoftQ: LoRA-fine-tuning-aware quantization".
template <class Format>
LoftQ<Format> init_loftq(const WeightView& w, Index rank, double scale, Index iterations = 1) {
  detail::check_initial("init_loftq", w.rows(), w.cols(), rank, scale);
  check<ValueError>(iterations > 0, "init_loftq", "iterations = ", iterations, "; it must be at least 1");
  const Weight<float> dense = detail::dense_copy(w);
  Weight<float> rest = dense;  // W - s B A
  const double norm = std::max(dense.cast<double>().norm(), 1e-300);
  LoftQ<Format> best;
  for (Index i = 0; i < iterations; ++i) {
    QuantizedMatrix<Format> q = quantize<Format>(rest);
    const Weight<float> missing = dense - dequantize(q);
    Factors update = shared_evenly(leading_svd(missing, rank), scale);
    const Weight<float> product = detail::dense_product(update);
    const double error = (missing - product).cast<double>().norm() / norm;
    if (!best.errors.empty() && error >= best.errors.back()) break;
    best.errors.push_back(error);
    best.update = std::move(update);
    best.base = std::move(q);
    rest = dense - product;
  }
  return best;
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/initialize.inl>
#endif
