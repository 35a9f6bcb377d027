#pragma once

// Solutions of chapter 3, with the reason in a line or two.

#include <cmath>
#include <limits>
#include <Eigen/Core>

// 3a, derivation. p = softmax(z), p_i = exp(z_i) / Σ_j exp(z_j), and g = dL/dp is given. dL/dz?
// => dp_i/dz_j = p_i (δ_ij - p_j), so dL/dz_j = p_j (g_j - Σ_i p_i g_i).
inline Eigen::VectorXd softmax_backward(const Eigen::VectorXd& p, [[maybe_unused]] const Eigen::VectorXd& g) {
  return p.array() * (g.array() - p.dot(g));
}

// 3b, prediction. The second derivative by (f(x + h) - 2 f(x) + f(x - h)) / h² in double: which h gives the smallest error, up to a factor
// of three, for a function whose derivatives are all about 1?
// => The formula errs by h² / 12, rounding by about 4 ε / h²; the sum is least where h⁴ = 48 ε.
inline double best_step_of_second_difference() { return std::pow(48 * std::numeric_limits<double>::epsilon(), 0.25); }
