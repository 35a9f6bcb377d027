#pragma once

#include <cmath>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE Factors shared_evenly(const Svd& svd, double scale) {
  const Eigen::VectorXd root = (svd.s / scale).cwiseSqrt();
  return {(root.asDiagonal() * svd.v.transpose()).cast<float>(), (svd.u * root.asDiagonal()).cast<float>(), scale};
}

LOWRANK_INLINE Factors stack(std::span<const Factors> parts) {
  const Factors& first = parts.front();
  const double common = std::abs(first.scale);
  const bool agree = common > 0 && std::all_of(parts.begin(), parts.end(), [&](const Factors& p) { return std::abs(p.scale) == common; });
  Index rank = 0;
  for (const Factors& part : parts) {
    check<ShapeError>(part.b.rows() == first.b.rows() && part.a.cols() == first.a.cols(), "stack", "one update is [", first.b.rows(), ", ",
                      first.a.cols(), "] but another [", part.b.rows(), ", ", part.a.cols(), ']');
    rank += part.a.rows();
  }
  Factors all{Weight<float>(rank, first.a.cols()), Weight<float>(first.b.rows(), rank), agree ? common : 1};
  Index at = 0;
  for (const Factors& part : parts) {
    const Index r = part.a.rows();
    const double factor = part.scale / all.scale;  // 1 or -1 where scales agree
    all.a.middleRows(at, r) = part.a;
    all.b.middleCols(at, r) = (factor * part.b.cast<double>()).cast<float>();
    at += r;
  }
  return all;
}

}  // namespace lowrank::inline LOWRANK_ABI
