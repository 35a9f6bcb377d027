#pragma once

#include <cmath>
#include <cstdint>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How a fresh adapter's A is drawn; B is zero, so that the layer begins as its base.
enum class LoraInit {
  kaiming,   ///< U(-1/√in, 1/√in): Kaiming uniform with a = √5, the default of PEFT
  gaussian,  ///< N(0, 1/r²)
};

/// Fills with U(-bound, bound), by rows; the same numbers for static and dynamic sizes, on every platform.
template <class Matrix>
void fill_uniform(Matrix& matrix, double bound, Random random) {
  using S = typename Matrix::Scalar;
  for (Index i = 0; i < matrix.rows(); ++i) {
    for (Index j = 0; j < matrix.cols(); ++j) matrix(i, j) = static_cast<S>(bound * (2.0 * static_cast<double>(random.uniform()) - 1.0));
  }
}

/// Fills with N(0, deviation²), by rows.
template <class Matrix>
void fill_normal(Matrix& matrix, double deviation, Random random) {
  using S = typename Matrix::Scalar;
  for (Index i = 0; i < matrix.rows(); ++i) {
    for (Index j = 0; j < matrix.cols(); ++j) matrix(i, j) = static_cast<S>(deviation * static_cast<double>(random.normal()));
  }
}

/// Draws A [r, in] of a fresh adapter.
template <class Matrix>
void init_lora_a(Matrix& a, LoraInit init, Random random) {
  if (init == LoraInit::gaussian) {
    fill_normal(a, 1.0 / static_cast<double>(a.rows()), random);
  } else {
    fill_uniform(a, 1.0 / std::sqrt(static_cast<double>(a.cols())), random);
  }
}

}  // namespace lowrank::inline LOWRANK_ABI
