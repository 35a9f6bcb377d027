#pragma once

// Exercises of chapter 5. Write the bodies; check with: sh examples/exercises/run.sh 05

#include <Eigen/Core>

struct FactorGradients {
  Eigen::MatrixXd a, b;
};

// 5a, derivation. W' = W + s B A and D = dL/dW' [out, in]. The gradients of A [r, in] and B [out, r]?
inline FactorGradients factor_gradients([[maybe_unused]] const Eigen::MatrixXd& d, const Eigen::MatrixXd& b, const Eigen::MatrixXd& a,
                                        [[maybe_unused]] double s) {
  return {Eigen::MatrixXd::Zero(a.rows(), a.cols()), Eigen::MatrixXd::Zero(b.rows(), b.cols())};  // your answer
}

// 5b, prediction. B = 0, and one step of gradient descent with the learning rate η is taken. By what has W + s B A changed?
inline Eigen::MatrixXd first_change(const Eigen::MatrixXd& d, [[maybe_unused]] const Eigen::MatrixXd& a, [[maybe_unused]] double s,
                                    [[maybe_unused]] double eta) {
  return Eigen::MatrixXd::Zero(d.rows(), d.cols());  // your answer
}
