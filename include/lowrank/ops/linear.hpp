#pragma once

#include <lowrank/ops/product.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Linear map Y = W X. W [out, in] any source, X [in, T] gives Y [out, T]. Throws ShapeError.
template <Source W, MatrixLike X, class S = ScalarOf<X>>
Activation<S> linear_forward(const W& source, const X& x, Compute compute = Compute::fp32) {
  return multiply(source, x, compute);
}

/// Linear map with a bias [out] on every token: Y = W X + b 1ᵀ.
template <Source W, MatrixLike X, class S = ScalarOf<X>>
Activation<S> linear_forward(const W& source, const X& x, const VectorView<S>& bias, Compute compute = Compute::fp32) {
  check<ShapeError>(bias.size() == source.rows(), "linear_forward", "bias is [", bias.size(), "] but the source is [", source.rows(), ", ",
                    source.cols(), "]; the bias must have one number an output");
  Activation<S> y = bias.replicate(1, x.cols());
  accumulate_product(y, source, x, S(1), compute);
  return y;
}

/// dX = Wᵀ G for G = dL/dY [out, T]; gives [in, T].
template <Source W, MatrixLike G, class S = ScalarOf<G>>
Activation<S> linear_backward_input(const W& source, const G& g, Compute compute = Compute::fp32) {
  return multiply_transposed(source, g, compute);
}

/// dW += G Xᵀ for G = dL/dY [out, T] and the forward's X [in, T].
template <MatrixLike G, class S = ScalarOf<G>>
void linear_backward_weight(WeightRef<S> dw, const G& g, const ActivationView<S>& x) {
  accumulate_outer(dw, g, x);
}

/// db += G 1: the sum over the tokens of G [out, T].
template <MatrixLike G, class S = ScalarOf<G>>
void linear_backward_bias(std::type_identity_t<Eigen::Ref<Vector<S>>> db, const G& g) {
  check<ShapeError>(db.size() == g.rows(), "linear_backward_bias", "db is [", db.size(), "] but g is [", g.rows(), ", ", g.cols(),
                    "]; db must have one number a row of g");
  for (Index t = 0; t < g.cols(); ++t) db += g.col(t);
}

}  // namespace lowrank::inline LOWRANK_ABI
