#pragma once

// Exercises of chapter 9. Write the bodies; check with: sh examples/exercises/run.sh 09

#include <lowrank/ops/decompose.hpp>

struct Correction {
  Eigen::MatrixXd b, a;
};

// 9a, derivation. Q is what quantization made of W. The B [out, r] and A [r, in] for which Q + B A is nearest to W (LoftQ's beginning)?
inline Correction best_correction(const Eigen::MatrixXd& w, [[maybe_unused]] const Eigen::MatrixXd& q, long r) {
  return {Eigen::MatrixXd::Zero(w.rows(), r), Eigen::MatrixXd::Zero(r, w.cols())};  // your answer
}

// 9b, prediction. Bytes in training: a base of so many weights in NF4 with double quantization (blocks of 64, groups of 256 scales), and so
// many trained numbers in fp32, each with a gradient and AdamW's two moments. Activations not counted.
inline double training_bytes([[maybe_unused]] double weights, [[maybe_unused]] double trained) {
  return -1;  // your answer
}
