#pragma once

/// The library's only door to Eigen/Core: the shapes of the paper as Eigen types.

#include <limits>
#include <type_traits>

#include <lowrank/core/types.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#elif defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#elif defined(__clang__)
#pragma clang diagnostic pop
#endif

namespace lowrank::inline LOWRANK_ABI {

static_assert(std::is_same_v<Index, Eigen::Index>);

/// Size known at run time only. Eigen's own name, so that both namespaces can be used together.
using Eigen::Dynamic;

namespace detail {
// Eigen allows a one-column matrix in column-major order only, and a one-row matrix in row-major order only.
constexpr int row_major_unless_column(int rows, int cols) { return cols == 1 && rows != 1 ? Eigen::ColMajor : Eigen::RowMajor; }
constexpr int column_major_unless_row(int rows, int cols) { return rows == 1 && cols != 1 ? Eigen::RowMajor : Eigen::ColMajor; }

/// Whether every number of a matrix in memory is finite; unlike Eigen's allFinite with -ffast-math too.
template <class Derived>
bool all_finite(const Eigen::DenseBase<Derived>& m) {
  for (Index j = 0; j < m.outerSize(); ++j)
    for (Index i = 0; i < m.innerSize(); ++i)
      if (!is_finite(m.derived().coeffRef(Derived::IsRowMajor ? j : i, Derived::IsRowMajor ? i : j))) return false;
  return true;
}
}  // namespace detail

/// A weight W [out, in], row-major: the bytes of PyTorch, safetensors and GGUF.
template <class Scalar, int Out = Dynamic, int In = Dynamic>
using Weight = Eigen::Matrix<Scalar, Out, In, detail::row_major_unless_column(Out, In)>;

/// An activation X [in, T], column-major: one token a column (the bytes of PyTorch's [T, in]).
template <class Scalar, int In = Dynamic, int Tokens = Dynamic>
using Activation = Eigen::Matrix<Scalar, In, Tokens, detail::column_major_unless_row(In, Tokens)>;

/// A vector [n]: a bias, a norm's weight, a row scale.
template <class Scalar, int Size = Dynamic>
using Column = Eigen::Matrix<Scalar, Size, 1>;

/// A weight in memory that someone else owns.
template <class Scalar>
using WeightMap = Eigen::Map<Weight<Scalar>>;
/// The same, to read.
template <class Scalar>
using ConstWeightMap = Eigen::Map<const Weight<Scalar>>;
/// An activation in memory that someone else owns.
template <class Scalar>
using ActivationMap = Eigen::Map<Activation<Scalar>>;
/// The same, to read.
template <class Scalar>
using ConstActivationMap = Eigen::Map<const Activation<Scalar>>;

}  // namespace lowrank::inline LOWRANK_ABI

/// The 16-bit types as scalars of Eigen: Weight<Half> can be printed, cast and added.
template <lowrank::SmallFloat T>
struct Eigen::NumTraits<T> : Eigen::GenericNumTraits<T> {
  enum { RequireInitialization = 0 };
  static constexpr T dummy_precision() { return T(16.0f * static_cast<float>(std::numeric_limits<T>::epsilon())); }
};
