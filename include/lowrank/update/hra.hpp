#pragma once

/// HRA: W H₁ … H_r X + b with reflections H_i = 1 − 2 û_i û_iᵀ, û_i = u_i / ‖u_i‖, U trained (Yuan et al. 2024, "Bridging the gap between
/// low-rank and orthogonal adaptation via Householder reflection adaptation").
///
/// In compact form the map is X ↦ X − Û T Ûᵀ X with T⁻¹ = ½ + striu(Ûᵀ Û), two products of rank r.

#include <cmath>
#include <cstdint>
#include <memory>

#include <lowrank/core/random.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/method.hpp>
#include <lowrank/update/entry.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// X ↦ H₁ … H_r X for the unit columns of Û [in, r].
template <class S>
class ReflectionMap : public InputMap<S> {
 public:
  explicit ReflectionMap(Activation<S> unit) : unit_(std::move(unit)), t_(Activation<S>::Zero(unit_.cols(), unit_.cols())) {
    for (Index j = 0; j < unit_.cols(); ++j) {  // T grows by a column for each reflection
      t_(j, j) = S(2);
      if (j > 0) t_.col(j).head(j) = S(-2) * (t_.topLeftCorner(j, j) * (unit_.leftCols(j).transpose() * unit_.col(j))).eval();
    }
  }
  Activation<S> operator()(const ActivationView<S>& x) const override { return x - unit_ * (t_ * (unit_.transpose() * x)); }
  Activation<S> transposed(const ActivationView<S>& g) const override { return g - unit_ * (t_.transpose() * (unit_.transpose() * g)); }

  /// dL/dÛ for X and V = dL/d(map X) [in, T]. With Z = Ûᵀ X, Q = Ûᵀ V: −(V Zᵀ Tᵀ + X Qᵀ T), and what comes through T.
  Activation<S> gradient(const ActivationView<S>& x, const ActivationView<S>& v) const {
    const Activation<S> z = unit_.transpose() * x, q = unit_.transpose() * v;
    Activation<S> d = -(v * (z.transpose() * t_.transpose()) + x * (q.transpose() * t_));
    const Activation<S> dt = -q * z.transpose();
    Activation<S> df = -t_.transpose() * dt * t_.transpose();                       // of F = T⁻¹
    for (Index j = 0; j < df.cols(); ++j) df.col(j).tail(df.rows() - j).setZero();  // strictly upper
    d += unit_ * (df + Activation<S>(df.transpose()));
    return d;
  }

 private:
  Activation<S> unit_, t_;
};

/// The numbers of one HRA update. A method (update/method.hpp).
template <class S = float>
struct HraWeights {
  using Scalar = S;

  Parameter<S> u;  ///< [in, r]

  Plan<S> plan(const PlanRequest<S>&) {
    Plan<S> plan;
    plan.input_map = std::make_shared<const ReflectionMap<S>>(unit());
    plan.trains_input_map = u.needs_grad();
    return plan;
  }
  void add_gradients(const PlanGradients<S>& gradients) {
    if (gradients.mapped.size() == 0 || !u.needs_grad()) return;
    const Activation<S> hat = unit();
    Activation<S> d = ReflectionMap<S>(hat).gradient(gradients.x, gradients.mapped);
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
    for (Index i = 0; i < hat.cols(); ++i) {
      const S length = hat.col(i).norm();
      check<ValueError>(length > 0, "hra", "column ", i, " of hra_u is zero; a reflection needs a direction");
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
  Weight<S> half(in, rank / 2);
  fill_uniform(half, 1.0 / std::sqrt(static_cast<double>(rank / 2)), Random(seed, stream));
  HraWeights<S> update;
  update.u.name = "hra_u";
  update.u.value.resize(in, rank);
  for (Index i = 0; i < rank; ++i) update.u.value.col(i) = half.col(i / 2);
  return update;
}

/// HRA as files know it. Throws ValueError for apply_GS, which takes other reflections.
inline Method hra_method() {
  static constexpr std::string_view names[] = {"hra_u"};
  const auto fields = [] {
    return std::vector<Field>{{"r", 8.0},          {"apply_GS", false}, {"bias", "none"},        {"init_weights", true, false},
                              {"exclude_modules"}, {"layers_pattern"},  {"layers_to_transform"}, {"modules_to_save"},
                              {"target_modules"}};
  };
  const auto make = [](const UpdateSite& site, const MethodFields& given, const SharedTensors&) -> AnyUpdate {
    check<ValueError>(!field(given, "apply_GS", false), "hra", "apply_GS is true; reflections that are made orthogonal are not supported");
    return make_hra<float>(site.layer.in, static_cast<Index>(field<double>(given, "r", 8)), site.seed, site.stream);
  };
  return {"HRA", "hra", "", fields, names, 1, {}, make};
}

}  // namespace lowrank::inline LOWRANK_ABI
