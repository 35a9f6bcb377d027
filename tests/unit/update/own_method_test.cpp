#include <doctest/doctest.h>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/adapted.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/update/lora.hpp>

#include "../nn/nn_support.hpp"

// A method as a user writes one: docs/your_own_method.md.

using namespace lowrank;

namespace {

/// W X + t s B (A X), with the strength t of the whole update trained, too.
struct Strength {
  using Scalar = double;

  LoraWeights<double> lora;
  Parameter<double> t;           // [1, 1]
  Weight<double> diagonal = {};  // of M; lives as long as the plan is used

  Plan<double> plan(const PlanRequest<double>& request) {
    Plan<double> plan = lora.plan(request);
    diagonal.setConstant(lora.rank(), 1, t.value(0, 0));
    plan.middle = {diagonal.data(), diagonal.rows(), 1};  // M = t · 1
    plan.trains_middle = t.needs_grad();
    return plan;
  }
  void add_gradients(const PlanGradients<double>& gradients) {
    lora.add_gradients(gradients);
    if (t.needs_grad() && gradients.middle.size() > 0) t.gradient()(0, 0) += gradients.middle.sum();
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    lora.visit_parameters(visitor);
    visitor(t);
  }
  void set_trainable(bool trainable) {
    lora.set_trainable(trainable);
    t.trainable = trainable;
  }
};

}  // namespace

TEST_CASE("a method of the user's own trains like the library's") {
  Weight<double> w(6, 9);
  fill_normal(w, 0.5, Random(1));
  auto lora = make_lora<double>(9, 6, {.rank = 3, .seed = 2});
  fill_normal(lora.b.value, 0.5, Random(3));
  Strength method{std::move(lora), {}};
  method.t.name = "strength";
  method.t.value.setConstant(1, 1, 1.5);
  Adapted layer(Linear<double>(w), method);
  const auto x = nn_test::random_columns<double>(9, 4, 4);
  const auto report = gradcheck([&](const std::vector<Var<double>>& inputs) { return layer(inputs[0]); }, {x}, parameters(layer));
  CHECK_MESSAGE(report.worst < 1e-8, report.where);
}
