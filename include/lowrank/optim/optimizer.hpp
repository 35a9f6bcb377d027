#pragma once

/// What all optimizers have in common: parameters in groups, steps, and state that can be saved.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/core/state_array.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Arrays of the parameter's size, one behind the other: what most rules remember of a parameter.
template <class S>
struct Moments {
  std::span<const char* const> names;
  Index rows, cols;
  std::vector<S> numbers = std::vector<S>(names.size() * static_cast<std::size_t>(rows * cols));

  /// The numbers of one of them.
  std::span<S> operator[](std::size_t i) {
    const auto size = static_cast<std::size_t>(rows * cols);
    return std::span<S>(numbers).subspan(i * size, size);
  }
  /// Calls f(name, numbers, shape) for each array.
  template <class F>
  void visit(const F& f) {
    for (std::size_t i = 0; i < names.size(); ++i) f(names[i], (*this)[i], std::vector<Index>{rows, cols});
  }
};

/// One step of a rule for one parameter [rows, cols].
template <class S>
struct ParameterStep {
  std::span<S> value;
  std::span<const S> grad;
  Index rows, cols;
  Index step;  ///< counts from 1
};

/// Parameters in groups, each with its options, and what the rule remembers of them.
///
/// A Rule has Options (with learning_rate), `check_options(options)`, `memory<S>(options, rows, cols)` (what it remembers of a parameter,
/// with a `visit(f)` like Moments') and `update<S>(options, ParameterStep, memory)`. Parameters are found where they are at each step, also
/// when they moved or their values were assigned; one that has ended or changed its shape is an Error that names it. To be moved, not
/// copied: a copy would step the parameters of the original.
template <class Rule, class S>
class Optimizer {
 public:
  using Options = typename Rule::Options;
  using Memory = decltype(Rule::template memory<S>(std::declval<const Options&>(), Index(), Index()));

  /// Throws ValueError for options out of range and for a parameter that is given twice.
  explicit Optimizer(std::vector<ParameterRef<S>> parameters, Options options = {}) { add_group(std::move(parameters), options); }
  Optimizer(const Optimizer&) = delete;  // a copy would step the parameters of the original: make one from parameters(copy of the model)
  Optimizer& operator=(const Optimizer&) = delete;
  Optimizer(Optimizer&&) noexcept = default;
  Optimizer& operator=(Optimizer&&) noexcept = default;

  /// More parameters with options of their own, for example norms and biases with weight_decay = 0. Throws the same.
  void add_group(std::vector<ParameterRef<S>> parameters, Options options);

  /// One update of every parameter from its gradient; gradients are left as they are. The same for any number of threads. Throws Error when
  /// a parameter has ended, ShapeError when it has another shape than before; then nothing was changed.
  void step();

  /// Clears every gradient, ready for the next batch.
  void zero_grad();

  /// Learning rate of all groups from the next step on.
  void set_learning_rate(double learning_rate);
  /// Share of each group's own learning rate, as it was given, from the next step on: for schedules.
  void set_learning_rate_share(double share);
  double learning_rate(std::size_t group = 0) const { return groups_.at(group).learning_rate; }

  /// Steps taken; part of the state (bias correction counts them).
  Index steps() const { return steps_; }
  /// Throws ValueError for a negative number.
  void set_steps(Index steps);

  /// Views of all state in a fixed order with distinct names: "3/lora_A.weight/first_moment" (position and name of the parameter, what the
  /// numbers are), steps and learning rates. To resume, fill them; io/checkpoint.hpp does.
  std::vector<StateArray> state();
  /// Calls f(parameter, group, memory) for each parameter, in order: for an optimizer that steps elsewhere with this one's options and
  /// state.
  template <class F>
  void visit_entries(const F& f) {
    for (Entry& entry : entries_) f(entry.parameter, entry.group, entry.memory);
  }
  const Options& options(std::size_t group) const { return groups_.at(group); }
  std::size_t groups() const { return groups_.size(); }

  /// Bytes of state, the parameters and gradients not counted.
  std::size_t bytes() const;

 private:
  struct Entry {
    ParameterRef<S> parameter;
    std::size_t group;
    Memory memory;
    ParameterStep<S> step = {};
  };

  std::vector<StateArray> moments();

  std::vector<Options> groups_;
  std::vector<double> rates_;  // each group's learning rate as it was given
  std::vector<Entry> entries_;
  Index steps_ = 0;
};

namespace detail {
void check_rate(const char* rule, double learning_rate, double weight_decay);
void check_betas(const char* rule, double beta1, double beta2);
}  // namespace detail

template <class Rule, class S>
void Optimizer<Rule, S>::add_group(std::vector<ParameterRef<S>> parameters, Options options) {
  Rule::check_options(options);
  std::vector<Entry> added;
  for (auto& parameter : parameters) {
    const auto is_given = [&](const Entry& entry) { return entry.parameter.is_same(parameter); };
    check<ValueError>(std::ranges::none_of(entries_, is_given) && std::ranges::none_of(added, is_given), "optimizer", "the parameter '",
                      parameter.name, "' is given twice; it would be stepped twice");
    Memory memory = Rule::template memory<S>(options, parameter.rows, parameter.cols);
    added.push_back({std::move(parameter), groups_.size(), std::move(memory)});
  }
  entries_.insert(entries_.end(), std::move_iterator(added.begin()), std::move_iterator(added.end()));
  groups_.push_back(options);
  rates_.push_back(options.learning_rate);
}

template <class Rule, class S>
void Optimizer<Rule, S>::step() {
  for (Entry& entry : entries_) {
    const auto view = entry.parameter.view();
    entry.step = {view.value, view.grad, entry.parameter.rows, entry.parameter.cols, steps_ + 1};
  }
  ++steps_;
  const PhaseScope scope(Phase::optimizer);
  parallel_for(static_cast<Index>(entries_.size()), [&](Index i) {
    Entry& entry = entries_[static_cast<std::size_t>(i)];
    Rule::template update<S>(groups_[entry.group], entry.step, entry.memory);
  });
}

template <class Rule, class S>
void Optimizer<Rule, S>::zero_grad() {
  const PhaseScope scope(Phase::optimizer);
  parallel_for(static_cast<Index>(entries_.size()),
               [&](Index i) { std::ranges::fill(entries_[static_cast<std::size_t>(i)].parameter.grad(), S(0)); });
}

template <class Rule, class S>
void Optimizer<Rule, S>::set_learning_rate(double learning_rate) {
  detail::check_rate("optimizer", learning_rate, 0);
  for (Options& group : groups_) group.learning_rate = learning_rate;
}

template <class Rule, class S>
void Optimizer<Rule, S>::set_learning_rate_share(double share) {
  detail::check_rate("optimizer", share, 0);
  for (std::size_t i = 0; i < groups_.size(); ++i) groups_[i].learning_rate = share * rates_[i];
}

template <class Rule, class S>
void Optimizer<Rule, S>::set_steps(Index steps) {
  check<ValueError>(steps >= 0, "optimizer", "steps = ", steps, "; the number of steps taken cannot be negative");
  steps_ = steps;
}

namespace detail {
// A count of steps and learning rates, as a file may hold them.
const char* fault_of_steps(std::span<const std::byte> bytes);
const char* fault_of_rates(std::span<const std::byte> bytes);
}  // namespace detail

template <class Rule, class S>
std::vector<StateArray> Optimizer<Rule, S>::state() {
  std::vector<StateArray> arrays = moments();
  arrays.push_back(state_array("steps", steps_));
  arrays.back().fault = detail::fault_of_steps;
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    arrays.push_back(state_array(concat("group ", group, "/learning_rate"), groups_[group].learning_rate));
    arrays.back().fault = detail::fault_of_rates;
  }
  arrays.push_back(state_array("given_learning_rates", std::span(rates_), {static_cast<Index>(rates_.size())}));
  arrays.back().fault = detail::fault_of_rates;
  return arrays;
}

template <class Rule, class S>
std::vector<StateArray> Optimizer<Rule, S>::moments() {
  std::vector<StateArray> arrays;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].memory.visit([&](const char* name, auto numbers, std::vector<Index> shape) {
      arrays.push_back(state_array(concat(i, '/', entries_[i].parameter.name, '/', name), numbers, std::move(shape)));
    });
  }
  return arrays;
}

template <class Rule, class S>
std::size_t Optimizer<Rule, S>::bytes() const {
  std::size_t total = 0;
  for (const StateArray& array : const_cast<Optimizer&>(*this).moments()) total += array.bytes.size();
  return total;
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/optimizer.inl>
#endif
