#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/autograd/var.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
// Adds an array or an Eigen expression to an array, in place.
template <class Value, class More>
void accumulate(Value& into, const More& more) {
  into += more;
}
void accumulate(Activation<float>& into, const Activation<float>& more);
}  // namespace detail

/// What a recorded operation's backward function sees: G = dL/dY of its output and a way to pass gradients on to its inputs.
///
/// Inputs are counted as they were given to record(). What add() gets for an input that needs no gradient is dropped.
template <class S, class Device = Cpu>
class GradientFlow {
 public:
  using Value = ArrayOn<S, Device>;
  /// A value's shape, and its gradient once there is one.
  struct Slot {
    Index rows, cols;
    std::optional<Value> gradient;
  };

  GradientFlow(Value gradient, std::span<Slot* const> inputs) : gradient_(std::move(gradient)), inputs_(inputs) {}

  /// G [rows, cols] of the output.
  const Value& gradient() const { return gradient_; }
  /// G itself, to be changed or moved on; gradient() is empty afterwards.
  Value take() { return std::move(gradient_); }
  /// Whether input i needs its gradient; ask before an expensive product.
  bool needs(std::size_t i) const { return inputs_[i] != nullptr; }
  /// What is there of input i's gradient, for an operation that adds to it where it lies; null where nothing is there yet.
  Value* sum_so_far(std::size_t i) { return inputs_[i] && inputs_[i]->gradient ? &*inputs_[i]->gradient : nullptr; }
  /// Adds to the gradient of input i: the first one is moved into the empty slot, later ones are added in place.
  void add(std::size_t i, Value&& more);
  /// The same for an array to keep or an expression, which is evaluated straight into the slot.
  template <class Expression>
  void add(std::size_t i, const Expression& more) {
    if (Slot* slot = inputs_[i]) {
      check_shape(*slot, more.rows(), more.cols(), i);
      slot->gradient ? detail::accumulate(*slot->gradient, more) : void(slot->gradient.emplace(more));
    }
  }

 private:
  static void check_shape(const Slot& slot, Index rows, Index cols, std::size_t i);

  Value gradient_;
  std::span<Slot* const> inputs_;
};

template <class S, class Device>
void GradientFlow<S, Device>::add(std::size_t i, Value&& more) {
  if (Slot* slot = inputs_[i]) {
    check_shape(*slot, more.rows(), more.cols(), i);
    slot->gradient ? detail::accumulate(*slot->gradient, more) : void(slot->gradient.emplace(std::move(more)));
  }
}
template <class S, class Device>
void GradientFlow<S, Device>::check_shape(const Slot& slot, Index rows, Index cols, std::size_t i) {
  check<ShapeError>(rows == slot.rows && cols == slot.cols, "backward", "the gradient of input ", i, " is [", rows, ", ", cols,
                    "] but the input is [", slot.rows, ", ", slot.cols, "]");
}

/// The numbers of the random streams that a recording used, so that it can be repeated with the same dropout masks.
struct Draws {
  std::vector<std::uint64_t> numbers;
};

/// Records operations and sweeps them backward, newest to oldest, in a loop.
///
/// A node holds no value: a closure with what its backward function needs, and a slot for dL/dY. Closures and gradients are freed as soon
/// as they are used. Operations on constants are not recorded. backward() ends a recording; the next operation begins a new one, so one
/// tape serves every training step. One thread at a time. A Var that is used when its tape has ended is an Error.
template <class S, class Device>
class Tape : private Handled {
 public:
  using Value = ArrayOn<S, Device>;
  using Variable = Var<S, Device>;
  using Flow = GradientFlow<S, Device>;

  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// A constant [rows, T] that knows this tape: layers with trainable parameters record themselves on it.
  Variable input(Value value) { return constant(detail::share(std::move(value))); }

  /// A leaf whose gradient is wanted; read it with gradient() after backward().
  Variable variable(Value value);

  /// A result Y of inputs. backward(flow) turns flow.gradient() = dL/dY into flow.add(i, dL/dX_i) and may add into parameters.
  ///
  /// Recorded only if an input needs a gradient or the operation uses a trainable parameter; else the closure is dropped and Y is a
  /// constant. Throws Error for an input of another tape or of a recording that has ended, and within a backward function: what that
  /// computes with Vars it records on a tape of its own.
  template <class Backward>
  Variable record(std::shared_ptr<Value> value, std::initializer_list<Variable> inputs, Backward backward, bool trainable = false) {
    if (!is_needed(inputs, trainable)) return constant(std::move(value));
    const Index rows = value->rows(), cols = value->cols();
    return push(std::move(value), rows, cols, inputs, std::make_unique<Recorded<Backward>>(std::move(backward)));
  }
  template <class Backward>
  Variable record(Value value, std::initializer_list<Variable> inputs, Backward backward, bool trainable = false) {
    return record(detail::share(std::move(value)), inputs, std::move(backward), trainable);
  }

  /// Adds dL/dP to the grad of every trainable parameter P, and gives every leaf its gradient. L is [1, 1].
  ///
  /// Ends the recording. Throws ShapeError when the loss is not a number, Error when it is a constant or was swept before.
  void backward(const Variable& loss);
  /// The same from any output Y with a given G = dL/dY of its shape.
  void backward(const Variable& output, Value gradient);

  /// dL/dX [rows, cols] of a leaf, after backward() and until the next one; zero when the loss does not depend on it. Throws Error.
  const Value& gradient(const Variable& leaf) const;

  /// Drops everything recorded and every leaf gradient; memory for nodes is kept for reuse.
  void clear();

  /// The next number of a counter of random streams; a repeated recording gets those of the first one, and leaves the counter.
  std::uint64_t draw(std::uint64_t& counter);
  /// From now on every number drawn is written down, or taken from what was written down. For checkpoint().
  void record_draws(Draws& draws) { recorded_ = &draws; }
  void repeat_draws(const Draws& draws) { repeated_ = &draws; }

  /// Operations and leaves of the current recording.
  Index size() const { return static_cast<Index>(nodes_.size()); }

 private:
  struct Closure {
    virtual ~Closure() = default;
    virtual void run(Flow& flow) = 0;
  };
  template <class Backward>
  struct Recorded final : Closure {
    explicit Recorded(Backward&& f) : backward(std::move(f)) {}
    void run(Flow& flow) override { backward(flow); }
    Backward backward;
  };
  struct Node {
    typename Flow::Slot slot;
    std::unique_ptr<Closure> closure;  // null for a leaf
    std::size_t first_input, inputs;   // range in inputs_
    bool is_leaf;
  };
  struct Leaf {
    Index node;
    Value gradient;
  };

  friend Variable;

  Variable constant(std::shared_ptr<Value> value) { return Variable(std::move(value), Handle<Handled>(*this), -1, -1); }
  bool is_needed(std::initializer_list<Variable> inputs, bool trainable) const;
  void check_current(const char* operation, const Variable& var) const;

  Variable push(std::shared_ptr<Value> value, Index rows, Index cols, std::initializer_list<Variable> inputs,
                std::unique_ptr<Closure> closure);
  void check_not_sweeping(const char* operation) const;
  void sweep(Index last);
  void keep_leaves();
  void end_recording();

  std::vector<Node> nodes_;
  std::vector<Index> inputs_;  // node of every input of every node, -1 for a constant
  std::vector<Leaf> leaves_;   // of the last sweep, by node
  Index recording_ = 0, swept_ = -1;
  bool is_sweeping_ = false;
  Draws* recorded_ = nullptr;
  const Draws* repeated_ = nullptr;
  std::size_t drawn_ = 0;
};

template <class S, class Device>
Var<S, Device> Tape<S, Device>::variable(Value value) {
  const Index rows = value.rows(), cols = value.cols();
  return push(detail::share(std::move(value)), rows, cols, {}, nullptr);
}

template <class S, class Device>
void Tape<S, Device>::backward(const Variable& loss) {
  check<ShapeError>(loss.rows() == 1 && loss.cols() == 1, "backward", "the loss is [", loss.rows(), ", ", loss.cols(),
                    "] but must be a number; take sum() or a loss of it, or give the gradient to start from");
  backward(loss, Value::Ones(1, 1));
}

template <class S, class Device>
void Tape<S, Device>::backward(const Variable& output, Value gradient) {
  check<Error>(output.tape() == this || output.tape() == nullptr, "backward", "the loss belongs to another tape");
  check<Error>(output.requires_grad(), "backward", "the loss is a constant: nothing that it was computed from needs a gradient");
  check_not_sweeping("backward");
  check_current("backward", output);
  Node& last = nodes_[static_cast<std::size_t>(output.node_)];
  check<ShapeError>(gradient.rows() == last.slot.rows && gradient.cols() == last.slot.cols, "backward", "the gradient is [",
                    gradient.rows(), ", ", gradient.cols(), "] but the output is [", last.slot.rows, ", ", last.slot.cols, "]");
  last.slot.gradient.emplace(std::move(gradient));
  is_sweeping_ = true;
  try {
    sweep(output.node_);
  } catch (...) {
    is_sweeping_ = false;
    clear();
    throw;
  }
  is_sweeping_ = false;
}

template <class S, class Device>
const ArrayOn<S, Device>& Tape<S, Device>::gradient(const Variable& leaf) const {
  check<Error>(leaf.tape() == this && leaf.requires_grad(), "gradient", "the Var is no leaf of this tape; make it with variable()");
  check<Error>(leaf.recording_ == swept_, "gradient", "call backward() first; only the last sweep's gradients are kept");
  const auto found = std::lower_bound(leaves_.begin(), leaves_.end(), leaf.node_, [](const Leaf& l, Index n) { return l.node < n; });
  check<Error>(found != leaves_.end() && found->node == leaf.node_, "gradient",
               "gradients of interior values are freed in the sweep; only a variable() keeps its own");
  return found->gradient;
}

template <class S, class Device>
void Tape<S, Device>::clear() {
  check_not_sweeping("clear");
  end_recording();
  leaves_.clear();
  swept_ = -1;
}

template <class S, class Device>
std::uint64_t Tape<S, Device>::draw(std::uint64_t& counter) {
  if (repeated_) return repeated_->numbers.at(drawn_++);
  if (recorded_) recorded_->numbers.push_back(counter);
  return counter++;
}

template <class S, class Device>
bool Tape<S, Device>::is_needed(std::initializer_list<Variable> inputs, bool trainable) const {
  bool needed = trainable;
  for (const Variable& input : inputs) {
    check<Error>(input.tape() == nullptr || input.tape() == this, "record", "an input belongs to another tape; one computation, one tape");
    check_current("record", input);
    needed = needed || input.requires_grad();
  }
  return needed;
}

template <class S, class Device>
void Tape<S, Device>::check_not_sweeping(const char* operation) const {
  check<Error>(!is_sweeping_, operation,
               "the tape's backward pass is running; a backward function computes with arrays, or with Vars of a tape of its own");
}

template <class S, class Device>
void Tape<S, Device>::check_current(const char* operation, const Variable& var) const {
  check<Error>(!var.requires_grad() || var.recording_ == recording_, operation,
               "a Var is from a recording that has ended (each is swept once); run the forward pass again");
}

template <class S, class Device>
Var<S, Device> Tape<S, Device>::push(std::shared_ptr<Value> value, Index rows, Index cols, std::initializer_list<Variable> inputs,
                                     std::unique_ptr<Closure> closure) {
  check_not_sweeping("record");
  const bool is_leaf = closure == nullptr;
  nodes_.push_back({{rows, cols, std::nullopt}, std::move(closure), inputs_.size(), inputs.size(), is_leaf});
  for (const Variable& input : inputs) inputs_.push_back(input.node_);
  return Variable(std::move(value), Handle<Handled>(*this), size() - 1, recording_);
}

template <class S, class Device>
Tape<S, Device>* Var<S, Device>::tape() const {
  Handled* const tape = tape_.get();
  check<Error>(tape != nullptr || !tape_.is_set(), "Var", "its tape has ended; a Var is used while its tape lives");
  return static_cast<Tape<S, Device>*>(tape);
}

template <class S, class Device>
void Tape<S, Device>::sweep(Index last) {
  nodes_.erase(nodes_.begin() + last + 1, nodes_.end());  // what the loss does not depend on
  std::vector<typename Flow::Slot*> slots;
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    if (node->is_leaf) continue;
    const auto closure = std::move(node->closure);  // freed at the end of this turn, used or not
    if (!node->slot.gradient) continue;
    slots.assign(node->inputs, nullptr);
    for (std::size_t i = 0; i < node->inputs; ++i) {
      const Index input = inputs_[node->first_input + i];
      if (input >= 0) slots[i] = &nodes_[static_cast<std::size_t>(input)].slot;
    }
    Flow flow(std::move(*node->slot.gradient), slots);
    node->slot.gradient.reset();
    closure->run(flow);
  }
  keep_leaves();
  swept_ = recording_;
  end_recording();
}

template <class S, class Device>
void Tape<S, Device>::keep_leaves() {
  leaves_.clear();
  for (Index i = 0; i < size(); ++i) {
    Node& node = nodes_[static_cast<std::size_t>(i)];
    if (!node.is_leaf) continue;
    auto& gradient = node.slot.gradient;
    leaves_.push_back({i, gradient ? std::move(*gradient) : Value(Value::Zero(node.slot.rows, node.slot.cols))});
  }
}

template <class S, class Device>
void Tape<S, Device>::end_recording() {
  nodes_.clear();
  inputs_.clear();
  ++recording_;
}

/// Tape::record on the tape of the inputs; a constant when none has one.
template <class S, class Device, class Backward>
Var<S, Device> record(std::shared_ptr<ArrayOn<S, Device>> value, std::initializer_list<Var<S, Device>> inputs, Backward backward,
                      bool trainable = false) {
  for (const auto& input : inputs) {
    if (auto* tape = input.tape()) return tape->record(std::move(value), inputs, std::move(backward), trainable);
  }
  return Var<S, Device>(std::move(value));
}
template <class S, class Device, class Backward>
Var<S, Device> record(ArrayOn<S, Device> value, std::initializer_list<Var<S, Device>> inputs, Backward backward, bool trainable = false) {
  return record(detail::share(std::move(value)), inputs, std::move(backward), trainable);
}

#if defined(LOWRANK_COMPILED)
extern template class GradientFlow<float>;
extern template class Tape<float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/tape.inl>
#endif
