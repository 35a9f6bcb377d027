#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>
#include <string>
#include <vector>

#include <lowrank/autograd/parameter.hpp>
#include <lowrank/autograd/tape.hpp>
#include <lowrank/core/print.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Outcome of gradcheck: the largest |backward - finite difference| over the largest |finite difference| (or 1) of the same array.
struct GradcheckReport {
  double worst = 0;
  std::string where;  ///< "input 1 [3, 0]: backward 0.5, difference 0.25"
};

/// `GradcheckReport: worst 0.25 at input 1 number 3: backward 0.5, finite difference 0.25`.
inline std::string describe(const GradcheckReport& report) {
  return concat("GradcheckReport: worst ", report.worst, report.where.empty() ? "" : " at ", report.where);
}

namespace detail {
// L = sum(R ∘ Y) with fixed random R, so that each output element counts differently.
Activation<double> gradcheck_weights(Index rows, Index cols);

// Compares one array's gradient with central differences of loss(), changing one number at a time.
template <class Loss>
void gradcheck_array(const std::string& name, std::span<double> numbers, std::span<const double> backward, const Loss& loss,
                     GradcheckReport& report) {
  double largest = 1, worst = 0;
  std::string where;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double saved = numbers[i], step = 6e-6 * std::max(1.0, std::abs(saved));  // cube root of epsilon
    numbers[i] = saved + step;
    const double above = loss();
    numbers[i] = saved - step;
    const double below = loss();
    numbers[i] = saved;
    const double difference = (above - below) / (2 * step), error = std::abs(backward[i] - difference);
    largest = std::max(largest, std::abs(difference));
    if (error > worst || !is_finite(error)) {
      worst = error;
      where = concat(name, " number ", i, ": backward ", backward[i], ", finite difference ", difference);
    }
  }
  if (worst / largest > report.worst || !is_finite(worst)) report = {worst / largest, where};
}
}  // namespace detail

/// Checks the backward pass of any function of Vars, and of parameters that it uses, against central differences in double.
///
/// function(std::vector<Var<double>>) -> Var<double>, differentiable at the inputs and a pure function of them and the parameters.
/// A right backward pass gives worst below about 1e-8. Cost: two forward passes a number.
template <class Function, std::same_as<double> S = double>  // S: so that what nobody calls costs a compiler nothing
GradcheckReport gradcheck(const Function& function, std::vector<Activation<double>> inputs,
                          std::vector<ParameterRef<double>> parameters = {}) {
  Tape<S> tape;
  std::vector<Var<S>> vars;
  for (const auto& input : inputs) vars.push_back(tape.variable(input));
  for (auto& parameter : parameters) std::ranges::fill(parameter.grad(), 0.0);
  const Var<S> output = function(vars);
  const Activation<double> weights = detail::gradcheck_weights(output.rows(), output.cols());
  tape.backward(output, weights);

  const auto loss = [&] {
    Tape<S> trial;  // constants on a tape: what acts in training only (dropout) acts here
    std::vector<Var<S>> constants;
    for (const auto& input : inputs) constants.push_back(trial.input(input));
    return function(constants).value().cwiseProduct(weights).sum();
  };
  GradcheckReport report;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto& gradient = tape.gradient(vars[i]);
    const auto size = static_cast<std::size_t>(gradient.size());
    detail::gradcheck_array(concat("input ", i), {inputs[i].data(), size}, {gradient.data(), size}, loss, report);
  }
  for (auto& parameter : parameters) {
    const auto grad = parameter.grad();
    const std::vector<double> gradient(grad.begin(), grad.end());
    detail::gradcheck_array(parameter.name, parameter.value(), gradient, loss, report);
  }
  return report;
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/autograd/gradcheck.inl>
#endif
