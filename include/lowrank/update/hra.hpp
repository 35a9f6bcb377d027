#pragma once

/// HRA: W H₁ … H_r X + b with reflections H_i = 1 − 2 û_i û_iᵀ, û_i = u_i / ‖u_i‖, U trained (Yuan et al. 2024, "Bridging the gap between
/// low-rank and orthogonal adaptation via Householder reflection adaptation").
///
/// In compact form the map is X ↦ X − Û T Ûᵀ X with T⁻¹ = ½ + striu(Ûᵀ Û), two products of rank r.

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/product/dense.hpp>
#include <lowrank/update/entry.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X ↦ X − Û T Ûᵀ X for columns Û [in, r].
template <class S>
class ReflectionMap : public InputMap<S> {
 public:
  /// With T of the product H₁ … H_r for unit columns, or, for orthonormal ones, T = 2.
  ReflectionMap(Activation<S> unit, bool is_orthonormal)
      : unit_(std::move(unit)), t_(S(2) * Activation<S>::Identity(unit_.cols(), unit_.cols())), is_fixed_(is_orthonormal) {
    if (is_fixed_) return;
    const Activation<S> gram = transposed_times<S>(unit_, unit_);
    for (Index j = 1; j < unit_.cols(); ++j)  // T grows by a column for each reflection
      t_.col(j).head(j) = S(-2) * times<S>(t_.topLeftCorner(j, j), gram.col(j).head(j));
  }
  Activation<S> operator()(const ActivationView<S>& x) const override {
    return x - times<S>(unit_, times<S>(t_, transposed_times<S>(unit_, x)));
  }
  Activation<S> transposed(const ActivationView<S>& g) const override {
    return g - times<S>(unit_, transposed_times<S>(t_, transposed_times<S>(unit_, g)));
  }

  /// dL/dÛ for X and V = dL/d(map X) [in, T]. With Z = Ûᵀ X, Q = Ûᵀ V: −(V Zᵀ Tᵀ + X Qᵀ T), and what comes through T.
  Activation<S> gradient(const ActivationView<S>& x, const ActivationView<S>& v) const {
    const Activation<S> z = transposed_times<S>(unit_, x), q = transposed_times<S>(unit_, v);
    Activation<S> d = -(times_transposed<S>(v, times<S>(t_, z)) + times_transposed<S>(x, transposed_times<S>(t_, q)));
    if (is_fixed_) return d;
    const Activation<S> dt = -times_transposed<S>(q, z);
    Activation<S> df = -transposed_times<S>(t_, times_transposed<S>(dt, t_));       // of F = T⁻¹
    for (Index j = 0; j < df.cols(); ++j) df.col(j).tail(df.rows() - j).setZero();  // strictly upper
    d += times<S>(unit_, df + Activation<S>(df.transpose()));
    return d;
  }

 private:
  Activation<S> unit_, t_;
  bool is_fixed_;
};

namespace detail {

/// U = Q R by Gram and Schmidt's process, a column after the other; Q takes U's place, and R [r, r] comes back, upper, its diagonal
/// positive. Throws ValueError where a column depends on those before it.
template <class S>
Activation<S> orthonormalize(Activation<S>& u) {
  Activation<S> r = Activation<S>::Zero(u.cols(), u.cols());
  for (Index i = 0; i < u.cols(); ++i) {
    for (Index j = 0; j < i; ++j) {
      r(j, i) = u.col(j).dot(u.col(i));
      u.col(i) -= r(j, i) * u.col(j);
    }
    r(i, i) = u.col(i).norm();
    check<ValueError>(is_finite(r(i, i)) && r(i, i) > 0, "hra", "column ", i,
                      " of hra_u depends on those before it; apply_GS needs directions of their own");
    u.col(i) /= r(i, i);
  }
  return r;
}

/// dL/dU of that from dL/dQ: (dQ + Q copyltu(−dQᵀ Q)) R⁻ᵀ, copyltu the lower triangle, mirrored.
template <class S>
Activation<S> orthonormalize_backward(const Activation<S>& q, const Activation<S>& r, const Activation<S>& dq) {
  Activation<S> m = -transposed_times<S>(dq, q);
  for (Index j = 0; j < m.cols(); ++j)
    for (Index i = 0; i < j; ++i) m(i, j) = m(j, i);
  Activation<S> du = dq + times<S>(q, m);
  for (Index j = du.cols(); j-- > 0;) {  // of dU Rᵀ = …, the last column first
    for (Index k = j + 1; k < du.cols(); ++k) du.col(j) -= r(j, k) * du.col(k);
    du.col(j) /= r(j, j);
  }
  return du;
}

}  // namespace detail

/// The numbers of one HRA update. A method (update/method.hpp).
template <class S = float>
struct HraWeights {
  using Scalar = S;

  Parameter<S> u;               ///< [in, r]
  bool orthogonalizes = false;  ///< the columns are made orthogonal first ("apply_GS"): W (1 − 2 Q Qᵀ)

  Plan<S> plan(const PlanRequest<S>&) & {
    Plan<S> plan;
    plan.input_map = std::make_shared<const ReflectionMap<S>>(unit(), orthogonalizes);
    plan.trains_input_map = u.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.mapped.size() == 0 || !u.needs_grad()) return;
    if (orthogonalizes) {
      Activation<S> q = u.value;
      const Activation<S> r = detail::orthonormalize<S>(q);
      u.gradient() += detail::orthonormalize_backward<S>(q, r, ReflectionMap<S>(q, true).gradient(gradients.x, gradients.mapped));
      return;
    }
    const Activation<S> hat = unit(), d = ReflectionMap<S>(hat, false).gradient(gradients.x, gradients.mapped);
    for (Index i = 0; i < d.cols(); ++i)  // through the norms
      u.gradient().col(i) += (d.col(i) - hat.col(i) * hat.col(i).dot(d.col(i))) / u.value.col(i).norm();
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(u);
  }
  void set_trainable(bool trainable) { u.trainable = trainable; }

 private:
  Activation<S> unit() const {
    Activation<S> hat = u.value;
    if (orthogonalizes) return detail::orthonormalize<S>(hat), hat;
    for (Index i = 0; i < hat.cols(); ++i) {
      const S length = hat.col(i).norm();
      check<ValueError>(is_finite(length) && length > 0, "hra", "column ", i, " of hra_u is zero; a reflection needs a direction");
      hat.col(i) /= length;
    }
    return hat;
  }
};

/// A fresh update of a layer with `in` inputs: each drawn vector twice, so that the reflections undo each other. Throws ValueError for an
/// odd rank.
template <class S = float>
HraWeights<S> make_hra(Index in, Index rank, std::uint64_t seed = 0, std::uint64_t stream = 0) {
  check<ValueError>(rank > 0 && rank % 2 == 0, "hra", "rank = ", rank, "; it must be even and positive, as reflections begin in pairs");
  element_count("hra", "hra_u [in, rank]", {in, rank});
  const Index pairs = rank / 2;
  Weight<S> half(in, pairs);
  fill_uniform(half, 1.0 / std::sqrt(static_cast<double>(pairs)), Random(seed, stream, Role::hra));
  HraWeights<S> update;
  update.u.name = "hra_u";
  update.u.value.resize(in, rank);
  for (Index i = 0; i < rank; ++i) update.u.value.col(i) = half.col(i / 2);
  return update;
}

/// The same with columns that are made orthogonal. Such reflections cannot undo each other: the layer does not begin as its base. Throws
/// ValueError for more columns than inputs.
template <class S = float>
HraWeights<S> make_orthogonal_hra(Index in, Index rank, std::uint64_t seed = 0, std::uint64_t stream = 0) {
  check<ValueError>(rank > 0 && rank <= in, "hra", "rank = ", rank, " for in = ", in, "; orthogonal directions are 1 to in");
  element_count("hra", "hra_u [in, rank]", {in, rank});
  HraWeights<S> update;
  update.orthogonalizes = true;
  update.u.name = "hra_u";
  update.u.value.resize(in, rank);
  fill_uniform(update.u.value, 1.0 / std::sqrt(static_cast<double>(rank)), Random(seed, stream, Role::hra));
  return update;
}

/// HRA as files know it.
Method hra_method();

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/hra.inl>
#endif
