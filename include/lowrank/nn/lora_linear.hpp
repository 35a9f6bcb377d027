#pragma once

/// LoRA as a layer, with sizes and rank static or known at run time.

#include <string_view>
#include <utility>

#include <lowrank/nn/adapted.hpp>
#include <lowrank/product/static.hpp>
#include <lowrank/update/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Any linear layer with a trainable low-rank update: Y = W X + b + s B (A X).
template <class Base, int Rank = Dynamic>
class LoraLinear {
  static_assert(
      LinearLayer<Base>,
      "LoraLinear<Base, Rank>: Base must be a linear layer: Linear, FrozenLinear, QuantizedLinear, AnyLinear, LoraLinear, or a type "
      "of yours that meets the concept LinearLayer (nn/linear_layer.hpp lists what it must have)");

 public:
  explicit LoraLinear(const Base&, const LoraOptions& = {}) {}
};

namespace detail {
template <class Base, int Rank>
using LoraOf = LoraWeights<typename Base::Scalar, Rank, static_in<Base>(), static_out<Base>()>;
}

/// The layer itself, for a Base that is one.
///
///   LoraLinear layer{QuantizedLinear{q}, {.rank = 16, .alpha = 32}};
/// A is drawn, B = 0, so the layer begins as its base. Rank static or Dynamic. Hu et al. 2021.
template <LinearLayer Base, int Rank>
class LoraLinear<Base, Rank> : public Adapted<Base, detail::LoraOf<Base, Rank>> {
  static_assert(Rank == Dynamic || Rank > 0, "LoraLinear<Base, Rank>: Rank must be positive or Dynamic");
  using Parent = Adapted<Base, detail::LoraOf<Base, Rank>>;

 public:
  using typename Parent::Scalar;
  static constexpr std::string_view kind = "LoraLinear";
  static constexpr int static_in_features = detail::static_in<Base>(), static_out_features = detail::static_out<Base>();
  static constexpr bool is_static = static_in_features != Dynamic && static_out_features != Dynamic;

  explicit LoraLinear(Base base, const LoraOptions& options = {})
      : Parent(std::move(base),
               make_lora<Scalar, Rank, static_in_features, static_out_features>(base.in_features(), base.out_features(), options)) {}

  /// W X + b + s B (A X) for X [in, T], without a tape; of static sizes where those of the layer are. Throws ShapeError.
  template <MatrixLike X>
  auto operator()(const X& x) const {
    detail::check_input("lora_linear", x.rows(), x.cols(), this->in_features());
    if constexpr (detail::Misfit<X, Scalar, static_in_features>) {
      return detail::refuse<X, Scalar, static_in_features>();
    } else if constexpr (is_static) {
      using Result = Activation<Scalar, static_out_features, X::ColsAtCompileTime>;
      return this->is_merged() ? Result(this->merged()(x)) : static_forward(this->base(), this->update(), x);
    } else {
      return Parent::operator()(x);
    }
  }
  /// The same, recorded; dropout is active on a tape. Keeps X and A X.
  Var<Scalar> operator()(const Var<Scalar>& x) & {
    detail::check_input("lora_linear", x.rows(), x.cols(), this->in_features());
    return Parent::operator()(x);
  }
  Var<Scalar> operator()(const Var<Scalar>& x) && = delete;  // the recording refers to the layer: give the layer a name first

  /// Backward pass without a tape, for static sizes: adds dA and dB to the gradients and gives dX [in, T]. X and G of static sizes: then
  /// nothing is allocated, and the time is the same for any numbers.
  template <MatrixLike X, MatrixLike G>
  auto backward(const X& x, const G& g) requires(static_in_features != Dynamic && static_out_features != Dynamic) {
    check<Error>(!this->is_merged(), "lora_linear", "backward(x, g) is for a layer that is not merged; unmerge it");
    return static_backward(this->base(), this->update(), x, g);
  }
};

template <class Base>
LoraLinear(Base) -> LoraLinear<Base>;
template <class Base>
LoraLinear(Base, LoraOptions) -> LoraLinear<Base>;

}  // namespace lowrank::inline LOWRANK_ABI
