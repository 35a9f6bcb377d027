#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/core/random.hpp>

/// What the tests of operations on Vars share: numbers, and their gradients against finite differences.
namespace autograd_tests {

using lowrank::Activation;
using lowrank::Index;
using lowrank::ParameterRef;
using lowrank::Random;
using lowrank::Var;
using Vars = std::vector<Var<double>>;

inline Activation<double> drawn(Index rows, Index cols, std::uint64_t seed, float low = -1, float high = 1) {
  Random numbers(seed);
  return Activation<double>::NullaryExpr(rows, cols, [&] { return static_cast<double>(numbers.uniform(low, high)); });
}

/// A differentiable f: central differences in double are right to about epsilon^(2/3) = 4e-11 times its curvature.
template <class F>
void check_differences(const F& f, std::vector<Activation<double>> inputs, std::vector<ParameterRef<double>> parameters = {}) {
  const auto report = lowrank::gradcheck(f, std::move(inputs), std::move(parameters));
  INFO(report.where);
  CHECK(report.worst < 2e-9);
}

/// |a - b| within a few roundings of double, relative to the largest number.
inline void check_equal(const Activation<double>& a, const Activation<double>& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  if (a.size() == 0) return;
  CHECK((a - b).cwiseAbs().maxCoeff() <= 32 * 2.3e-16 * std::max(1.0, b.cwiseAbs().maxCoeff()));
}

/// The text of the error that f() throws.
template <class Error, class F>
std::string text_of_error(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace autograd_tests
