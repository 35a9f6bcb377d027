// A stranger's layer, adapted, checked and trained: docs/your_own_layer.md.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/autograd/functions.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/adamw.hpp>

namespace mine {

using namespace lowrank;

/// y = W x with a frozen W that is zero but for blocks on its diagonal: each group of inputs feeds its own group of outputs.
template <class S = float>
class GroupedLinear {
 public:
  using Scalar = S;

  explicit GroupedLinear(std::vector<Weight<S>> blocks) : blocks_(std::move(blocks)) {}

  Index in_features() const {
    return sum([](const Weight<S>& w) { return w.cols(); });
  }
  Index out_features() const {
    return sum([](const Weight<S>& w) { return w.rows(); });
  }

  /// W X, without a tape.
  Activation<S> operator()(const Activation<S>& x) const { return product(x); }
  /// The same, recorded; dX = Wᵀ G.
  Var<S> operator()(const Var<S>& x) {
    return record(product(x.value()), {x}, [this](auto& flow) { flow.add(0, transposed_product(flow.gradient())); });
  }

  Activation<S> product(const Activation<S>& x) const {
    Activation<S> y(out_features(), x.cols());
    Index row = 0, col = 0;
    for (const Weight<S>& w : blocks_) {
      y.middleRows(row, w.rows()) = w * x.middleRows(col, w.cols());
      row += w.rows(), col += w.cols();
    }
    return y;
  }
  Activation<S> transposed_product(const Activation<S>& g) const {
    Activation<S> x(in_features(), g.cols());
    Index row = 0, col = 0;
    for (const Weight<S>& w : blocks_) {
      x.middleRows(col, w.cols()) = w.transpose() * g.middleRows(row, w.rows());
      row += w.rows(), col += w.cols();
    }
    return x;
  }

  void set_trainable(bool) {}  // it owns nothing that could be trained
  template <class Visitor>
  void visit_parameters(const Visitor&) {}

 private:
  template <class Size>
  Index sum(const Size& size) const {
    Index total = 0;
    for (const Weight<S>& w : blocks_) total += size(w);
    return total;
  }

  std::vector<Weight<S>> blocks_;
};
static_assert(LinearLayer<GroupedLinear<float>> && LinearLayer<GroupedLinear<double>>);

template <class S>
GroupedLinear<S> make_grouped() {
  std::vector<Weight<S>> blocks{Weight<S>(6, 4), Weight<S>(2, 8)};
  for (std::size_t i = 0; i < blocks.size(); ++i) fill_normal(blocks[i], 0.3, Random(i));
  return GroupedLinear<S>(std::move(blocks));
}

}  // namespace mine

int main() {
  using namespace lowrank;

  LoraLinear checked{mine::make_grouped<double>(), {.rank = 3, .alpha = 6}};
  fill_normal(checked.b().value, 0.3, Random(7));  // a fresh B is zero, and then A has no gradient
  Activation<double> numbers(12, 5);
  fill_normal(numbers, 1, Random(8));
  const auto report = gradcheck([&](const std::vector<Var<double>>& inputs) { return checked(inputs[0]); }, {numbers}, parameters(checked));
  std::printf("gradients: off by %.1e %s\n", report.worst, report.where.c_str());

  LoraLinear layer{mine::make_grouped<float>(), {.rank = 3, .alpha = 6}};
  Activation<float> x(12, 32), target(8, 32);
  fill_normal(x, 1, Random(9)), fill_normal(target, 1, Random(10));
  AdamW<float> optimizer{parameters(layer), {.learning_rate = 0.02}};
  const auto loss_now = [&] { return (std::as_const(layer)(x) - target).squaredNorm() / static_cast<float>(target.size()); };
  const float before = loss_now();
  for (int step = 0; step < 60; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    tape.backward(mse(layer(tape.input(x)), target));
    optimizer.step();
  }
  std::printf("loss %.3f -> %.3f\n", static_cast<double>(before), static_cast<double>(loss_now()));
  return report.worst < 1e-8 && loss_now() < 0.9f * before ? 0 : 1;
}
