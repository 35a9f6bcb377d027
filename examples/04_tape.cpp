// Chapter 4: a tape writes each operation down with its backward function; sweeping it in reverse is chapter 3 without the hand.
#include <functional>
#include <memory>
#include <set>

#include <lowrank/autograd/checkpoint.hpp>
#include <lowrank/nn/linear.hpp>

#include <support/chapter.hpp>

using Eigen::MatrixXd;
using lowrank::Activation;
using lowrank::Index;

// ---- A tape in 40 lines -------------------------------------------------------------------------------------------------------------

struct TinyTape {
  struct Node {
    MatrixXd value, grad;
    std::function<void()> backward;
  };
  std::vector<std::unique_ptr<Node>> nodes;

  Node* add(MatrixXd value, std::function<void(Node*)> backward = {}) {
    nodes.push_back(std::make_unique<Node>());
    Node* node = nodes.back().get();
    node->grad = MatrixXd::Zero(value.rows(), value.cols());
    node->value = std::move(value);
    if (backward) node->backward = [node, backward] { backward(node); };
    return node;
  }
  Node* multiply(Node* a, Node* b) {
    return add(a->value * b->value, [=](Node* c) {
      a->grad += c->grad * b->value.transpose();  // G Bᵀ
      b->grad += a->value.transpose() * c->grad;  // Aᵀ G
    });
  }
  Node* tanh(Node* a) {
    return add(a->value.array().tanh(), [=](Node* h) { a->grad.array() += h->grad.array() * (1 - h->value.array().square()); });
  }
  Node* half_squares(Node* a, const MatrixXd& target) {
    const MatrixXd rest = a->value - target;
    return add(MatrixXd::Constant(1, 1, 0.5 * rest.squaredNorm()), [=](Node* l) { a->grad += l->grad(0, 0) * rest; });
  }
  void sweep(Node* loss) {
    loss->grad.setOnes();
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node)
      if ((*node)->backward) (*node)->backward();
  }
};

// ---- The library's tape: an operation of one's own, and what is kept -----------------------------------------------------------------

lowrank::Var<double> tanh(const lowrank::Var<double>& x) {
  const Activation<double> h = x.value().array().tanh();
  return lowrank::record(h, {x}, [h](auto& flow) { flow.add(0, flow.gradient().cwiseProduct((1 - h.array().square()).matrix())); });
}

constexpr Index n_in = 48, hidden = 96, n_out = 32, n_tokens = 200;

enum class Case { trained, frozen, checkpointed };

// Bytes of X, P = W1 X, H = silu(P), Y = W2 H that are alive after the forward pass only because the tape will need them.
double kept_bytes(Case which) {
  lowrank::Linear<double> first(n_in, hidden), second(hidden, n_out, {.stream = 1});
  if (which == Case::frozen) first.set_trainable(false), second.set_trainable(false);
  lowrank::Tape<double> tape;
  std::vector<std::weak_ptr<const Activation<double>>> seen;
  const auto watch = [&](lowrank::Var<double> v) {
    seen.push_back(v.shared());
    return v;
  };
  lowrank::Var<double> loss;
  {
    const auto x = watch(tape.variable(support::normal<Activation<double>>(n_in, n_tokens, 1)));
    const auto block = [&](const lowrank::Var<double>& v) { return watch(second(watch(silu(watch(first(v)))))); };
    const auto y = watch(which == Case::checkpointed ? checkpoint(x, block) : block(x));
    loss = mse(y, Activation<double>::Zero(n_out, n_tokens));
  }
  std::set<std::shared_ptr<const Activation<double>>> alive;  // each once
  for (const auto& value : seen)
    if (auto array = value.lock()) alive.insert(std::move(array));
  double bytes = 0;
  for (const auto& array : alive) bytes += static_cast<double>(array->size()) * sizeof(double);
  return bytes;
}

int main(int argc, char** argv) {
  support::Chapter chapter("4. A tape", argc, argv);

  // The network of chapter 3, its gradient by hand and by the tiny tape.
  const MatrixXd w1 = support::normal<MatrixXd>(7, 5, 1, 0.5), w2 = support::normal<MatrixXd>(3, 7, 2, 0.5);
  const MatrixXd x = support::normal<MatrixXd>(5, 9, 3), t = support::normal<MatrixXd>(3, 9, 4);
  const MatrixXd h = (w1 * x).array().tanh(), g = w2 * h - t;
  const MatrixXd dw2 = g * h.transpose(), dw1 = ((w2.transpose() * g).array() * (1 - h.array().square())).matrix() * x.transpose();

  TinyTape tape;
  auto *a1 = tape.add(w1), *a2 = tape.add(w2), *input = tape.add(x);
  tape.sweep(tape.half_squares(tape.multiply(a2, tape.tanh(tape.multiply(a1, input))), t));
  chapter.at_most("tiny tape - hand, dL/dW1, relative", 1e-15, (a1->grad - dw1).norm() / dw1.norm());
  chapter.at_most("tiny tape - hand, dL/dW2, relative", 1e-15, (a2->grad - dw2).norm() / dw2.norm());

  // The library's tape on the same numbers. Its mse is the mean of the squares; half their sum is a multiple of it.
  lowrank::Linear first{lowrank::Weight<double>(w1)}, second{lowrank::Weight<double>(w2)};
  lowrank::Tape<double> library;
  library.backward(scale(mse(second(tanh(first(library.input(x)))), t), 0.5 * static_cast<double>(t.size())));
  chapter.at_most("library's tape - hand, dL/dW1, relative", 1e-15, (first.weight().grad - dw1).norm() / dw1.norm());
  chapter.at_most("library's tape - hand, dL/dW2, relative", 1e-15, (second.weight().grad - dw2).norm() / dw2.norm());

  const double column = n_tokens * sizeof(double);
  const double trained = kept_bytes(Case::trained), frozen = kept_bytes(Case::frozen), again = kept_bytes(Case::checkpointed);
  chapter.equal("kept, weights trained: X, P, H, Y", (n_in + hidden + hidden + n_out) * column, trained, 0, "%.0f");
  chapter.equal("kept, weights frozen: P and Y", (hidden + n_out) * column, frozen, 0, "%.0f");
  chapter.equal("kept, checkpointed: X and Y", (n_in + n_out) * column, again, 0, "%.0f");

  support::Plot plot("Activations that wait for the backward pass, 48 → 96 → 32, 200 tokens", "", "KiB");
  plot.bars({"weights trained", "weights frozen", "checkpointed"}, {trained / 1024, frozen / 1024, again / 1024});
  chapter.picture("04_tape.svg", plot.svg());
  return chapter.finish();
}
