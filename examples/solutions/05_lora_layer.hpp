#pragma once

// Solutions of chapter 5, with the reason in a line or two.

#include <Eigen/Core>

struct FactorGradients {
  Eigen::MatrixXd a, b;
};

// 5a, derivation. W' = W + s B A and D = dL/dW' [out, in]. The gradients of A [r, in] and B [out, r]?
// => dL = tr(Dᵀ dW') with dW' = s (dB A + B dA).
inline FactorGradients factor_gradients([[maybe_unused]] const Eigen::MatrixXd& d, const Eigen::MatrixXd& b, const Eigen::MatrixXd& a,
                                        [[maybe_unused]] double s) {
  return {s * b.transpose() * d, s * d * a.transpose()};
}

// 5b, prediction. B = 0, and one step of gradient descent with the learning rate η is taken. By what has W + s B A changed?
// => B = 0 makes dL/dA zero, so A stays; B becomes -η s D Aᵀ. The full gradient step is seen through AᵀA, of rank r.
inline Eigen::MatrixXd first_change(const Eigen::MatrixXd& d, [[maybe_unused]] const Eigen::MatrixXd& a, [[maybe_unused]] double s,
                                    [[maybe_unused]] double eta) {
  return -eta * s * s * d * a.transpose() * a;
}
