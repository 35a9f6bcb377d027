#pragma once

// Solutions of chapter 10, with the reason in a line or two.

#include <cmath>
#include <Eigen/Core>

struct RowGradients {
  Eigen::VectorXd v;
  double m;
};

// 10a, derivation. A row of DoRA's weight is w = m v / ‖v‖ with v = (W + s B A)'s row, and g = dL/dw is given. dL/dv and dL/dm, with ‖v‖
// not taken for a constant?
// => Exercise 4a, m times: only what is orthogonal to v turns the row. m sees the part of g along it.
inline RowGradients dora_row_backward(const Eigen::VectorXd& v, [[maybe_unused]] double m, [[maybe_unused]] const Eigen::VectorXd& g) {
  const Eigen::VectorXd u = v.normalized();
  return {m / v.norm() * (g - u * u.dot(g)), u.dot(g)};
}

// 10b, prediction. How many numbers does LoRA of rank r train in one Llama block, all seven linear layers: q and o [d, d], k and v [kv, d],
// gate and up [f, d], down [d, f]?
// => r (in + out) for each.
inline long numbers_in_a_block([[maybe_unused]] long d, [[maybe_unused]] long kv, [[maybe_unused]] long f, [[maybe_unused]] long r) {
  return r * (2 * (d + d) + 2 * (kv + d) + 3 * (f + d));
}
