#pragma once

#include <optional>
#include <utility>

#include <lowrank/nn/lora.hpp>

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

/// The layer itself, for a Base that is one.
///
///   LoraLinear layer{QuantizedLinear{q}, {.rank = 16, .alpha = 32}};
/// Freezes the base; A is drawn, B = 0, so the layer begins as its base. A value: copies share a quantized base's bytes and own A and B.
/// Layers nest. Rank static or Dynamic. Hu et al. 2021.
template <LinearLayer Base, int Rank>
class LoraLinear<Base, Rank> {
  static_assert(Rank == Dynamic || Rank > 0, "LoraLinear<Base, Rank>: Rank must be positive or Dynamic");

 public:
  using Scalar = typename Base::Scalar;
  static constexpr int static_in_features = detail::static_in<Base>(), static_out_features = detail::static_out<Base>();
  using Update = LoraWeights<Scalar, Rank, static_in_features, static_out_features>;

  explicit LoraLinear(Base base, const LoraOptions& options = {})
      : base_(std::move(base)),
        update_(make_lora<Scalar, Rank, static_in_features, static_out_features>(base_.in_features(), base_.out_features(), options)) {
    base_.set_trainable(false);
    if constexpr (HasSource<Base>) {
      if (options.use_dora) make_dora(base_, update_);
    } else {
      check<ValueError>(!options.use_dora, "lora_linear",
                        "DoRA needs a base whose weight can be read: Linear, FrozenLinear, QuantizedLinear");
    }
  }

  Index in_features() const { return base_.in_features(); }
  Index out_features() const { return base_.out_features(); }
  Index rank() const { return update_.rank(); }

  /// W X + b + s B (A X) for X [in, T], without a tape: nothing is kept, nothing dropped out. Throws ShapeError.
  template <MatrixLike X>
  auto operator()(const X& x) const {
    detail::check_scalar<X, Scalar>();
    using Result = decltype(adapted_forward(base_, update_, x));
    return is_merged() ? Result((*merged_)(x)) : adapted_forward(base_, update_, x);
  }
  /// The same, recorded; dropout is active on a tape. Keeps X and A X.
  template <class Device>
  Var<Scalar, Device> operator()(const Var<Scalar, Device>& x) {
    if (!is_merged()) return adapted_forward(base_, update_, x);
    check<Error>(x.tape() == nullptr, "lora_linear", "the layer is merged, so its update cannot be trained; unmerge it first");
    return Var<Scalar, Device>((*merged_)(x.value()));
  }

  /// Backward pass without a tape, for static sizes: adds dA = U Xᵀ and dB = s G (A X)ᵀ to the gradients, U = s Bᵀ G, and gives
  /// dX = Wᵀ G + Aᵀ U [in, T]. X and G of static sizes: then nothing is allocated, and the time is the same for any numbers.
  template <MatrixLike X, MatrixLike G>
  auto backward(const X& x, const G& g) requires(static_in_features != Dynamic && static_out_features != Dynamic) {
    check<Error>(!update_.is_dora() && !is_merged(), "lora_linear", "backward(x, g) is for plain LoRA that is not merged; use a tape");
    const auto h = (update_.a.value * x).eval();                                // [r, in] · [in, T]
    const auto u = (update_.scale * (update_.b.value.transpose() * g)).eval();  // [r, out] · [out, T]
    if (update_.a.needs_grad()) update_.a.gradient().noalias() += u * x.transpose();
    if (update_.b.needs_grad()) update_.b.gradient().noalias() += update_.scale * (g * h.transpose());
    auto dx = base_.transposed_product(g);
    dx.noalias() += update_.a.value.transpose() * u;
    return dx;
  }

  /// (W + s B A) X [out, T].
  template <MatrixLike X>
  Activation<Scalar> product(const X& x) const {
    if (is_merged()) return merged_->product(x);
    Activation<Scalar> y = base_.product(x);
    accumulate_product(y, update_.view().b_source(), multiply(update_.view().a_source(), x, compute()), update_.scale, compute());
    if (update_.is_dora()) y.array().colwise() *= gain().array();
    return y;
  }
  /// (W + s B A)ᵀ G [in, T].
  template <MatrixLike G>
  Activation<Scalar> transposed_product(const G& gradient) const {
    Activation<Scalar> g = gradient;
    if (is_merged()) return merged_->transposed_product(g);
    if (update_.is_dora()) g.array().colwise() *= gain().array();
    Activation<Scalar> x = base_.transposed_product(g);
    accumulate_transposed_product(x, update_.view().a_source(), multiply_transposed(update_.view().b_source(), g, compute()), update_.scale,
                                  compute());
    return x;
  }

  Parameter<Scalar, Rank, static_in_features>& a() { return update_.a; }
  const Parameter<Scalar, Rank, static_in_features>& a() const { return update_.a; }
  Parameter<Scalar, static_out_features, Rank>& b() { return update_.b; }
  const Parameter<Scalar, static_out_features, Rank>& b() const { return update_.b; }
  Scalar scale() const { return update_.scale; }
  void set_scale(Scalar scale) { update_.scale = scale; }
  Update& update() { return update_; }
  const Update& update() const { return update_; }
  /// While merged the layer is this base with the update in it; base() is still the one that it was made from. See adapters/merge.hpp.
  bool is_merged() const { return merged_.has_value(); }
  const Base& merged() const { return *merged_; }
  void set_merged(Base merged) { merged_.emplace(std::move(merged)); }
  void reset_merged() { merged_.reset(); }

  /// DoRA's m [out], the length of each row; empty for plain LoRA.
  Parameter<Scalar>& magnitude() { return update_.magnitude; }
  const Parameter<Scalar>& magnitude() const { return update_.magnitude; }
  Base& base() { return base_; }
  const Base& base() const { return base_; }

  /// Freezes the base and the update, or makes the update trainable; the base stays frozen (base().set_trainable() frees it).
  void set_trainable(bool trainable) {
    if (!trainable) base_.set_trainable(false);
    update_.set_trainable(trainable);
  }
  Compute compute() const { return detail::compute_of(base_); }
  void set_compute(Compute compute) { base_.set_compute(compute); }

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    base_.visit_parameters(visitor);
    update_.visit_parameters(visitor);
  }

 private:
  /// m / n of DoRA.
  Vector<Scalar> gain() const {
    if constexpr (HasSource<Base>) {
      if (update_.gain.size() == 0) return dora_gain(update_.magnitude.value, dora_norms(base_, update_));
    }
    return update_.gain;
  }

  Base base_;
  Update update_;
  std::optional<Base> merged_;
};

template <class Base>
LoraLinear(Base) -> LoraLinear<Base>;
template <class Base>
LoraLinear(Base, LoraOptions) -> LoraLinear<Base>;

}  // namespace lowrank::inline LOWRANK_ABI
