#pragma once

/// Element-wise work on arrays of float, between products: what a target supplies, and the loops in terms of its vectors.
///
/// A target writes a struct Floats (a few vector operations) and includes elementwise.inl inside its region, which makes the loops with its
/// instructions; so a loop is written once, and no file needs a compile flag. Arrays need no alignment. Results depend on the target only.

#include <cstdint>

#include <lowrank/core/types.hpp>

#if defined(__clang__)
#define LOWRANK_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define LOWRANK_UNROLL _Pragma("GCC unroll 32")
#else
#define LOWRANK_UNROLL
#endif

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Which part of a vector a load or store touches: all of it, or its first numbers.
struct Whole {};
struct First {
  Index count;
};

/// The numbers of one AdamW step that all elements share.
struct AdamWStep {
  float decay, rate, correction, beta2, epsilon, toward1, toward2;
};

/// Rows of numbers, `stride` apart, against a few columns at a time: what a query does with keys and values. Element is float or BFloat16,
/// which is a float once it is read. A number's bits do not depend on what is computed beside it.
template <class Element>
struct RowLoops {
  /// out[c out_stride + j] = Σ rows[j stride + i] x[c n + i], j < count, c < columns, i < n.
  void (*dots)(const Element* rows, Index stride, Index count, const float* x, Index columns, Index n, float* out, Index out_stride);
  /// y[c n + i] += Σ weights[c weight_stride + j] rows[j stride + i].
  void (*add_weighted)(const Element* rows, Index stride, Index count, const float* weights, Index weight_stride, Index columns, Index n,
                       float* y);
};

struct Elementwise {
  /// The largest of x, −∞ when empty.
  float (*largest)(const float* x, Index n);
  /// Σ x.
  float (*sum)(const float* x, Index n);
  /// Σ x².
  float (*sum_of_squares)(const float* x, Index n);
  /// out = e^(x − shift), which may be x; returns Σ out. Relative error below 2·10⁻⁷; 0 for x − shift < −87.3.
  float (*exponential)(const float* x, float shift, Index n, float* out);
  /// x ← factor x.
  void (*scale)(float factor, Index n, float* x);
  /// y ← y + factor x.
  void (*add)(const float* x, float factor, Index n, float* y);
  /// y = factor x ∘ w: a token of RMSNorm.
  void (*weighted)(const float* x, const float* w, float factor, Index n, float* y);
  /// Σ w g x.
  float (*triple_sum)(const float* w, const float* g, const float* x, Index n);
  /// y = rho w ∘ g − along x: a token of RMSNorm's gradient.
  void (*norm_gradient)(const float* w, const float* g, const float* x, float rho, float along, Index n, float* y);
  /// y = gate σ(gate) ∘ up.
  void (*swiglu)(const float* gate, const float* up, Index n, float* y);
  /// dgate = g ∘ up ∘ σ (1 + gate (1 − σ)), dup = g ∘ gate σ.
  void (*swiglu_backward)(const float* gate, const float* up, const float* g, Index n, float* dgate, float* dup);
  /// y = e^(x − shift), d = y ∘ (d − along): probabilities and the gradient of the scores they came from.
  void (*softmax_backward)(const float* x, float shift, float along, Index n, float* y, float* d);
  /// Turns the pairs (x[2 j], x[2 j + 1]) by the angles, j < half; direction −1 turns back.
  void (*rotate_neighbours)(const float* x, const float* cos, const float* sin, Index half, float direction, float* y);
  /// The same for the pairs (x[j], x[j + half]).
  void (*rotate_halves)(const float* x, const float* cos, const float* sin, Index half, float direction, float* y);
  /// out = the bits of x as bfloat16, to nearest, ties to even; NaN stays NaN.
  void (*to_bfloat16)(const float* x, Index n, std::uint16_t* out);
  /// optim/adamw.hpp, element by element.
  void (*adamw)(const AdamWStep& step, const float* g, Index n, float* value, float* first, float* second);
  RowLoops<float> float_rows;
  RowLoops<BFloat16> bfloat16_rows;
  /// The same in Compute::bf16: where a target multiplies bfloat16, x and weights are rounded to it, and bits are its own.
  RowLoops<BFloat16> bfloat16_products;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
