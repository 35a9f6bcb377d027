#pragma once

// Solutions of chapter 9, with the reason in a line or two.

#include <lowrank/ops/decompose.hpp>

struct Correction {
  Eigen::MatrixXd b, a;
};

// 9a, derivation. Q is what quantization made of W. The B [out, r] and A [r, in] for which Q + B A is nearest to W (LoftQ's beginning)?
// => Eckart and Young on what is missing, W - Q. How s is shared between the factors is a choice; √s each keeps them alike.
inline Correction best_correction(const Eigen::MatrixXd& w, [[maybe_unused]] const Eigen::MatrixXd& q, long r) {
  const lowrank::Svd best = lowrank::thin_svd(w - q).leading(r);
  const Eigen::VectorXd root = best.s.cwiseSqrt();
  return {best.u * root.asDiagonal(), root.asDiagonal() * best.v.transpose()};
}

// 9b, prediction. Bytes in training: a base of so many weights in NF4 with double quantization (blocks of 64, groups of 256 scales), and so
// many trained numbers in fp32, each with a gradient and AdamW's two moments. Activations not counted.
// => 4 + 8/64 + 32/(64·256) bits a weight, 16 bytes a trained number.
inline double training_bytes([[maybe_unused]] double weights, [[maybe_unused]] double trained) {
  return weights * (4 + 8.0 / 64 + 32.0 / (64 * 256)) / 8 + 16 * trained;
}
