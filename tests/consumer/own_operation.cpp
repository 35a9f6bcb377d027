// A stranger's operation with a parameter of its own, checked and trained: docs/your_own_operation.md.
#include <cmath>
#include <cstdio>
#include <numbers>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/optim/adamw.hpp>

namespace mine {

using namespace lowrank;

/// y = x + sin²(a x) / a, with a trained a [1, 1]: learns what is periodic. Ziyin et al. 2020, "Neural networks fail to learn periodic
/// functions".
template <class S>
Var<S> snake(const Var<S>& x, Parameter<S>& a) {
  const S f = a.value(0, 0);
  Activation<S> y = x.value().unaryExpr([f](S v) { return v + std::sin(f * v) * std::sin(f * v) / f; });
  const auto backward = [x = x.kept(), a = Handle(a), f](auto& flow) {
    const Activation<S>& g = flow.gradient();
    const Activation<S>& v = *x.get();
    if (flow.needs(0)) flow.add(0, g.cwiseProduct((S(1) + (S(2) * f * v.array()).sin()).matrix()));  // G (1 + sin 2ax)
    if (a->needs_grad()) {
      const auto rate = v.array() * (S(2) * f * v.array()).sin() / f - (f * v.array()).sin().square() / (f * f);
      a->gradient()(0, 0) += (g.array() * rate).sum();
    }
  };
  return record(std::move(y), {x}, backward, a.needs_grad());
}

template <class S>
Parameter<S> make_rate(S value) {
  Parameter<S> a;
  a.name = "a";
  a.value.setConstant(1, 1, value);
  return a;
}

}  // namespace mine

int main() {
  using namespace lowrank;

  Parameter<double> rate = mine::make_rate(1.7);
  Activation<double> numbers(4, 3);
  fill_normal(numbers, 1, Random(1));
  const auto report =
      gradcheck([&](const std::vector<Var<double>>& inputs) { return mine::snake(inputs[0], rate); }, {numbers}, {reference(rate)});
  std::printf("gradients: off by %.1e %s\n", report.worst, report.where.c_str());

  // sin(3 x) from a hidden layer of 32.
  Linear<float> first(1, 32, {.bias = true, .seed = 2}), second(32, 1, {.bias = true, .seed = 3});
  Parameter<float> a = mine::make_rate(1.0f);
  Activation<float> x = Activation<float>::Random(1, 64) * 3.0f, target = (3.0f * x.array()).sin().matrix();
  auto all = parameters(first);
  for (auto& parameter : parameters(second)) all.push_back(parameter);
  all.push_back(reference(a));
  AdamW<float> optimizer{all, {.learning_rate = 0.02}};
  float loss = 0, begin = 0;
  for (int step = 0; step < 300; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    const Var<float> error = mse(second(mine::snake(first(tape.input(x)), a)), target);
    loss = error.item();
    if (step == 0) begin = loss;
    tape.backward(error);
    optimizer.step();
  }
  std::printf("loss %.3f -> %.3f, a = %.2f\n", static_cast<double>(begin), static_cast<double>(loss), static_cast<double>(a.value(0, 0)));
  return report.worst < 1e-8 && loss < 0.2f * begin ? 0 : 1;
}
