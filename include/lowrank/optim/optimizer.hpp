#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One array of an optimizer's state, to be written to a checkpoint or filled from one.
template <class S>
struct StateArray {
  std::string name;  ///< "3/lora_A.weight/first_moment": position and name of the parameter, what the numbers are
  std::span<S> numbers;
  Index rows, cols;
};

/// Parameters in groups, each with its options, and what the rule remembers of them.
///
/// A Rule has Options (with learning_rate), `moments(options)` (the names of the arrays it keeps of each parameter) and
/// `update(options, step, value, grad, memory)`. Refers to parameters that must stay where they are.
template <class Rule, class S>
class Optimizer {
 public:
  using Options = typename Rule::Options;

  explicit Optimizer(std::vector<ParameterRef<S>> parameters, Options options = {}) { add_group(std::move(parameters), options); }

  /// More parameters with options of their own, for example norms and biases with weight_decay = 0.
  void add_group(std::vector<ParameterRef<S>> parameters, Options options);

  /// One update of every parameter from its gradient; gradients are left as they are. The same for any number of threads.
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
  void set_steps(Index steps) { steps_ = steps; }

  /// Views of all state, in a fixed order with distinct names: save them with steps(); to resume, fill them and call set_steps().
  std::vector<StateArray<S>> state();
  /// Calls f(parameter, group, memory) for each parameter, in order: for an optimizer that steps elsewhere with this one's options and
  /// state.
  template <class F>
  void visit_entries(const F& f) {
    for (Entry& entry : entries_) f(entry.parameter, entry.group, std::span<S>(entry.memory));
  }
  const Options& options(std::size_t group) const { return groups_.at(group); }
  std::size_t groups() const { return groups_.size(); }

  /// Bytes of state, the parameters and gradients not counted.
  std::size_t bytes() const;

 private:
  struct Entry {
    ParameterRef<S> parameter;
    std::size_t group;
    std::vector<S> memory;
  };

  std::vector<Options> groups_;
  std::vector<double> rates_;  // each group's learning rate as it was given
  std::vector<Entry> entries_;
  Index steps_ = 0;
};

template <class Rule, class S>
void Optimizer<Rule, S>::add_group(std::vector<ParameterRef<S>> parameters, Options options) {
  Rule::check_options(options);
  for (auto& parameter : parameters) {
    check<ShapeError>(parameter.value.size() == parameter.grad.size(), "optimizer", "the gradient of '", parameter.name, "' has ",
                      parameter.grad.size(), " numbers but the parameter ", parameter.value.size());
    std::vector<S> memory(parameter.value.size() * Rule::moments(options).size());
    entries_.push_back({std::move(parameter), groups_.size(), std::move(memory)});
  }
  groups_.push_back(options);
  rates_.push_back(options.learning_rate);
}

template <class Rule, class S>
void Optimizer<Rule, S>::step() {
  ++steps_;
  parallel_for(static_cast<Index>(entries_.size()), [&](Index i) {
    Entry& entry = entries_[static_cast<std::size_t>(i)];
    Rule::template update<S>(groups_[entry.group], steps_, entry.parameter.value, entry.parameter.grad, entry.memory);
  });
}

template <class Rule, class S>
void Optimizer<Rule, S>::zero_grad() {
  for (Entry& entry : entries_) std::fill(entry.parameter.grad.begin(), entry.parameter.grad.end(), S(0));
}

template <class Rule, class S>
void Optimizer<Rule, S>::set_learning_rate(double learning_rate) {
  for (Options& group : groups_) group.learning_rate = learning_rate;
}

template <class Rule, class S>
void Optimizer<Rule, S>::set_learning_rate_share(double share) {
  for (std::size_t i = 0; i < groups_.size(); ++i) groups_[i].learning_rate = share * rates_[i];
}

template <class Rule, class S>
std::vector<StateArray<S>> Optimizer<Rule, S>::state() {
  std::vector<StateArray<S>> arrays;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    const std::size_t size = entry.parameter.value.size();
    std::size_t offset = 0;
    for (const char* moment : Rule::moments(groups_[entry.group])) {
      arrays.push_back({concat(i, '/', entry.parameter.name, '/', moment), std::span<S>(entry.memory).subspan(offset, size),
                        entry.parameter.rows, entry.parameter.cols});
      offset += size;
    }
  }
  return arrays;
}

template <class Rule, class S>
std::size_t Optimizer<Rule, S>::bytes() const {
  std::size_t total = 0;
  for (const Entry& entry : entries_) total += entry.memory.size() * sizeof(S);
  return total;
}

namespace detail {
void check_rate(const char* rule, double learning_rate, double weight_decay);
}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/optimizer.inl>
#endif
