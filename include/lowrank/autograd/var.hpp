#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <lowrank/autograd/kept.hpp>
#include <lowrank/core/handle.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <class S = float, class Device = Cpu>
class Tape;

namespace detail {
// Every value that a Var holds is made here and nowhere else.
template <class Value>
std::shared_ptr<Value> share(Value value) {
  return std::make_shared<Value>(std::move(value));
}
}  // namespace detail

/// A value in a computation: a shared array and, where a gradient is wanted, its node on a tape.
///
/// Copies share the array. A Var made without a tape is a constant, so one model code trains and infers: without a tape nothing is
/// recorded or kept. The tape holds no values: an array lives as long as a Var or a recorded operation that needs it.
template <class S = float, class Device = Cpu>
class Var {
 public:
  using Scalar = S;
  using Value = ArrayOn<S, Device>;

  Var() = default;
  /// A constant without a tape.
  explicit Var(Value value) : Var(detail::share(std::move(value))) {}
  explicit Var(std::shared_ptr<Value> value) : value_(std::move(value)) {}

  /// The array [rows, cols]; of a temporary Var by value. Throws Error when it was moved away.
  const Value& value() const& { return *shared_value(); }
  Value value() && { return take(); }
  /// The array, shared.
  std::shared_ptr<const Value> shared() const { return shared_value(); }
  /// What a recorded operation keeps of its input: the array, unless the value says how it comes back.
  Kept<S, Device> kept() const;
  /// The same value, which need not be kept: restore() computes it again in the backward pass.
  Var restored_by(std::function<Value()> restore) &&;
  /// The same value, the result of a product: kept as bfloat16 in Compute::bf16.
  Var kept_as(Compute compute) &&;
  /// The same value with a restorer that the operation keeps, too.
  Var kept_by(std::shared_ptr<Restorer<S, Device>> restorer) && {
    restorer_ = std::move(restorer);
    return std::move(*this);
  }
  /// The array for a result that may overwrite it: moved out when nobody else holds it, else a copy. The Var keeps its node only.
  Value take();
  /// True when take() would move.
  bool is_last_owner() const { return value_.use_count() == 1; }

  Index rows() const { return shared_value()->rows(); }
  Index cols() const { return shared_value()->cols(); }
  /// The number of a [1, 1] value. Throws ShapeError.
  S item() const;

  bool requires_grad() const { return node_ >= 0; }
  /// Null for a constant without a tape. Throws Error when the tape has ended: a Var is used while its tape lives.
  Tape<S, Device>* tape() const;

 private:
  friend class Tape<S, Device>;

  Var(std::shared_ptr<Value> value, Handle<Handled> tape, Index node, Index recording)
      : value_(std::move(value)), tape_(std::move(tape)), node_(node), recording_(recording) {}

  const std::shared_ptr<Value>& shared_value() const;

  std::shared_ptr<Value> value_;
  std::shared_ptr<Restorer<S, Device>> restorer_;
  Handle<Handled> tape_;
  Index node_ = -1;       // position on the tape; -1 for a constant
  Index recording_ = -1;  // which of the tape's recordings the node belongs to
};

template <class S>
Var(Activation<S>) -> Var<S, Cpu>;

template <class S, class Device>
const std::shared_ptr<ArrayOn<S, Device>>& Var<S, Device>::shared_value() const {
  check<Error>(value_ != nullptr, "Var", "has no value: it was moved from or never set");
  return value_;
}
template <class S, class Device>
Kept<S, Device> Var<S, Device>::kept() const {
  return restorer_ ? Kept<S, Device>(restorer_) : Kept<S, Device>(shared());
}
template <class S, class Device>
Var<S, Device> Var<S, Device>::restored_by(std::function<Value()> restore) && {
  if (tape_.is_set()) restorer_ = std::make_shared<Restorer<S, Device>>(value_, std::move(restore));
  return std::move(*this);
}
template <class S, class Device>
Var<S, Device> Var<S, Device>::kept_as(Compute compute) && {
  if (tape_.is_set()) restorer_ = std::make_shared<Restorer<S, Device>>(value_, compute);
  return std::move(*this);
}
template <class S, class Device>
ArrayOn<S, Device> Var<S, Device>::take() {
  Value& value = *shared_value();
  Value taken = value_.use_count() == 1 ? std::move(value) : value;
  value_.reset();
  restorer_.reset();
  return taken;
}
template <class S, class Device>
S Var<S, Device>::item() const {
  check<ShapeError>(rows() == 1 && cols() == 1, "item", "the value is [", rows(), ", ", cols(), "] but a number is [1, 1]");
  return value()(0, 0);
}

#if defined(LOWRANK_COMPILED)
extern template class Var<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/var.inl>
#endif
