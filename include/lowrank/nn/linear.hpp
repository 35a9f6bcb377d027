#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>

#include <lowrank/core/shape.hpp>
#include <lowrank/nn/recorded_group.hpp>
#include <lowrank/update/init.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How a fresh Linear is made: weight and bias drawn from U(-1/√in, 1/√in) by seed and stream.
struct LinearOptions {
  bool bias = false;
  std::uint64_t seed = 0, stream = 0;
};

/// Dense layer Y = W X + b with a trainable weight [Out, In]; sizes static or Dynamic.
///
/// With static sizes Y = W X is plain Eigen on static matrices. A value: copies and moves own their numbers.
template <class S = float, int In = Dynamic, int Out = Dynamic>
class Linear {
  static_assert(std::is_same_v<S, float> || std::is_same_v<S, double>,
                "Linear<S, In, Out>: S must be float or double; for bfloat16 or half weights use FrozenLinear");

 public:
  using Scalar = S;
  static constexpr std::string_view kind = "Linear";
  static constexpr int static_in_features = In, static_out_features = Out;
  static constexpr bool is_static = In != Dynamic && Out != Dynamic;

  /// Weight [out, in], bias [out] or none.
  template <std::convertible_to<Weight<S, Out, In>> Matrix>
  explicit Linear(Matrix&& matrix, Column<S> bias = {}) {
    Weight<S, Out, In> weight = std::forward<Matrix>(matrix);
    check<ShapeError>(bias.size() == 0 || bias.size() == weight.rows(), "linear", "bias is [", bias.size(), "] but the weight is [",
                      weight.rows(), ", ", weight.cols(), "]; the bias must have one number an output");
    weight_.name = "weight";
    weight_.value = std::move(weight);
    bias_.name = "bias";
    bias_.value = bias;
  }
  /// A fresh layer of run-time sizes.
  Linear(Index in, Index out, LinearOptions options = {}) requires(!is_static) : Linear(drawn(in, out, options)) {}
  /// A fresh layer of static sizes.
  explicit Linear(LinearOptions options = {}) requires(is_static) : Linear(drawn(In, Out, options)) {}

  Index in_features() const { return weight_.cols(); }
  Index out_features() const { return weight_.rows(); }

  /// W X + b for X [in, T], without a tape. Throws ShapeError.
  template <MatrixLike X>
  auto operator()(const X& x) const {
    auto y = product(x);
    if constexpr (!detail::Misfit<X, S, In>)
      if (!bias_.empty()) y.colwise() += detail::vector_of(bias_);
    return y;
  }
  /// The same, recorded. Keeps X for dW = G Xᵀ only while the weight is trainable.
  Var<S> operator()(const Var<S>& x) & {
    if (!weight_trainable()) return detail::adapted(*this, {}, {}, x);
    detail::check_input("linear", x.rows(), x.cols(), in_features());
    if (x.tape() != nullptr) detail::check_gradient_compute("linear", compute_);
    auto y = multiply(source(), x.value(), compute_);
    detail::add_bias(y, bias_);
    const auto backward = [x = x.kept(), w = Handle(weight_), b = Handle(bias_), compute = compute_](auto& flow) {
      const auto& g = flow.gradient();
      detail::add_bias_gradient(*b, g);
      accumulate_outer(WeightMap<S>(w->gradient().data(), w->rows(), w->cols()), g, *x.get());  // G Xᵀ   [out, in]
      if (flow.needs(0)) flow.add(0, multiply_transposed(source_of(*w), g, compute));           // Wᵀ G   [in, T]
    };
    return record(std::move(y), {x}, backward, true).kept_as(compute_);
  }
  Var<S> operator()(const Var<S>& x) && = delete;  // the recording refers to the layer: give the layer a name first

  /// W X [out, T].
  template <MatrixLike X>
  auto product(const X& x) const {
    detail::check_input("linear", x.rows(), x.cols(), in_features());
    if constexpr (detail::Misfit<X, S, In>) {
      return detail::refuse<X, S, In>();
    } else if constexpr (is_static) {
      return Activation<S, Out, X::ColsAtCompileTime>(weight_.value * x);
    } else {
      return multiply(source(), x, compute_);
    }
  }
  /// Wᵀ G [in, T].
  template <MatrixLike G>
  auto transposed_product(const G& g) const {
    detail::check_input("linear transposed", g.rows(), g.cols(), out_features());
    if constexpr (detail::Misfit<G, S, Out>) {
      return detail::refuse<G, S, Out>();
    } else if constexpr (is_static) {
      return Activation<S, In, G::ColsAtCompileTime>(weight_.value.transpose() * g);
    } else {
      return multiply_transposed(source(), g, compute_);
    }
  }

  /// The weight where it lies.
  DenseSource<S> source() const& { return source_of(weight_); }
  auto source() const&& = delete;  // a source refers to the layer's numbers: give the layer a name first
  std::size_t weight_bytes() const { return static_cast<std::size_t>(weight_.size()) * sizeof(S); }
  Parameter<S, Out, In>& weight() { return weight_; }
  const Parameter<S, Out, In>& weight() const { return weight_; }
  /// Empty when the layer has none.
  Parameter<S>& bias() { return bias_; }
  const Parameter<S>& bias() const { return bias_; }

  bool weight_trainable() const { return weight_.trainable; }
  void set_trainable(bool trainable) { weight_.trainable = bias_.trainable = trainable; }
  Compute compute() const { return compute_; }
  void set_compute(Compute compute) { compute_ = compute; }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_layer(visitor, *this);
    visitor(weight_);
    if (!bias_.empty()) visitor(bias_);
  }

 private:
  static DenseSource<S> source_of(const Parameter<S, Out, In>& weight) { return {weight.value.data(), weight.rows(), weight.cols()}; }
  static Linear drawn(Index in, Index out, const LinearOptions& options) {
    element_count("linear", "the weight [out, in]", {out, in}, 1);
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    Weight<S, Out, In> weight(out, in);
    fill_uniform(weight, bound, Random(options.seed, options.stream, Role::weight));
    Column<S> bias(options.bias ? out : 0);
    fill_uniform(bias, bound, Random(options.seed, options.stream, Role::bias));
    return Linear(std::move(weight), std::move(bias));
  }

  Parameter<S, Out, In> weight_;
  Parameter<S> bias_;
  Compute compute_ = Compute::fp32;
};

template <class S, int Out, int In, int Order, int MaxOut, int MaxIn>
Linear(Eigen::Matrix<S, Out, In, Order, MaxOut, MaxIn>) -> Linear<S, In, Out>;
template <class S, int Out, int In, int Order, int MaxOut, int MaxIn>
Linear(Eigen::Matrix<S, Out, In, Order, MaxOut, MaxIn>, Column<S>) -> Linear<S, In, Out>;

}  // namespace lowrank::inline LOWRANK_ABI
