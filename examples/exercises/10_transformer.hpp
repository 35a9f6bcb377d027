#pragma once

// Exercises of chapter 10. Write the bodies; check with: sh examples/exercises/run.sh 10

#include <cmath>
#include <Eigen/Core>

struct RowGradients {
  Eigen::VectorXd v;
  double m;
};

// 10a, derivation. A row of DoRA's weight is w = m v / ‖v‖ with v = (W + s B A)'s row, and g = dL/dw is given. dL/dv and dL/dm, with ‖v‖
// not taken for a constant?
inline RowGradients dora_row_backward(const Eigen::VectorXd& v, [[maybe_unused]] double m, [[maybe_unused]] const Eigen::VectorXd& g) {
  return {Eigen::VectorXd::Zero(v.size()), 0};  // your answer
}

// 10b, prediction. How many numbers does LoRA of rank r train in one Llama block, all seven linear layers: q and o [d, d], k and v [kv, d],
// gate and up [f, d], down [d, f]?
inline long numbers_in_a_block([[maybe_unused]] long d, [[maybe_unused]] long kv, [[maybe_unused]] long f, [[maybe_unused]] long r) {
  return -1;  // your answer
}
