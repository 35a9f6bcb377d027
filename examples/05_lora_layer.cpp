// Chapter 5: a LoRA layer starts as its base, leaves the base alone, and learns exactly what its rank allows.
#include <cstring>

#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/optim/adamw.hpp>

#include <support/chapter.hpp>

using lowrank::Activation;
using lowrank::Index;
using lowrank::Weight;

constexpr Index n_in = 48, n_out = 32, n_tokens = 96, true_rank = 4;

// X with X Xᵀ = T I: then the loss of an update D is ‖(Δ - D) X‖² / (out T) = ‖Δ - D‖² / out, and Eckart-Young says how small it gets.
Activation<float> white_input() {
  const Eigen::MatrixXd q = lowrank::thin_qr(support::normal<Eigen::MatrixXd>(n_tokens, n_in, 7)).q;  // [T, in], orthonormal columns
  return (std::sqrt(static_cast<double>(n_tokens)) * q.transpose()).cast<float>();
}

struct Trained {
  double first_loss, last_loss;
  bool base_untouched;
};

Trained train(const Weight<float>& w, const Activation<float>& x, const Activation<float>& target, Index rank) {
  lowrank::LoraLinear layer{lowrank::Linear{w}, {.rank = rank, .alpha = static_cast<double>(rank), .seed = 11}};
  lowrank::AdamW optimizer{parameters(layer), {.learning_rate = 0.02, .weight_decay = 0}};
  lowrank::Tape tape;
  Trained result{};
  const int steps = 1500;
  for (int step = 0; step < steps; ++step) {
    optimizer.set_learning_rate_share(1.0 - static_cast<double>(step) / steps);
    optimizer.zero_grad();
    const lowrank::Var loss = mse(layer(tape.input(x)), target);
    if (step == 0) result.first_loss = static_cast<double>(loss.item());
    result.last_loss = static_cast<double>(loss.item());
    tape.backward(loss);
    optimizer.step();
  }
  const Weight<float>& after = layer.base().weight().value;
  result.base_untouched = std::memcmp(after.data(), w.data(), static_cast<std::size_t>(w.size()) * sizeof(float)) == 0;
  return result;
}

int main(int argc, char** argv) {
  support::Chapter chapter("5. The LoRA layer", argc, argv);
  const auto w = support::normal<Weight<float>>(n_out, n_in, 1, 0.2);
  const Weight<float> delta =
      support::normal<Weight<float>>(n_out, true_rank, 2, 0.3) * support::normal<Weight<float>>(true_rank, n_in, 3, 0.3);
  const Activation<float> x = white_input(), target = (w + delta) * x;  // the teacher: W + Δ, Δ of rank 4

  lowrank::LoraLinear fresh{lowrank::Linear{w}, {.rank = 8, .alpha = 16}};
  const lowrank::Linear base{w};
  chapter.equal("largest change of an output at the start (B = 0)", 0, static_cast<double>((fresh(x) - base(x)).cwiseAbs().maxCoeff()));
  chapter.equal("trainable numbers at r = 8, r (in + out)", 8 * (n_in + n_out), static_cast<double>(trainable_parameters(fresh)));

  // Predicted: the part of Δ beyond its r largest singular values.
  const Eigen::VectorXd s = lowrank::thin_svd(delta.cast<double>()).s;
  const auto predicted = [&](Index r) { return s.tail(s.size() - r).squaredNorm() / static_cast<double>(n_out); };
  support::Table table({"rank", "trained numbers", "predicted loss", "measured loss"});
  std::vector<double> ranks, floors, losses;
  bool untouched = true;
  for (Index r = 1; r <= 8; ++r) {
    const Trained result = train(w, x, target, r);
    untouched = untouched && result.base_untouched;
    const double floor = r < true_rank ? predicted(r) : 0;
    ranks.push_back(static_cast<double>(r)), floors.push_back(std::max(floor, 1e-13)), losses.push_back(result.last_loss);
    table.add({support::format("%d", static_cast<int>(r)), support::format("%d", static_cast<int>(r * (n_in + n_out))),
               support::format("%.3e", floor), support::format("%.3e", result.last_loss)});
    if (r == 1) chapter.equal("loss before training, ‖Δ‖² / out", predicted(0), result.first_loss, 1e-4 * predicted(0));
    if (r < true_rank)
      chapter.equal(support::format("loss at rank %d: tail of Δ's spectrum", static_cast<int>(r)), floor, result.last_loss, 0.01 * floor,
                    "%.5f");
  }
  chapter.at_most("elbow: loss at r = 4 over loss at r = 3", 1e-4, losses[3] / losses[2]);
  chapter.claim("W after 8 trainings", "bit-identical", untouched ? "bit-identical" : "changed", untouched);
  chapter.section("A teacher W + Δ with Δ of rank 4, W given, Δ to be learned:");
  table.print();

  support::Plot plot("Loss after training, by rank; the teacher's update has rank 4", "rank r", "loss", {.log_y = true, .least_y = 1e-13});
  plot.line("predicted: tail of the spectrum", ranks, floors);
  plot.points("measured", ranks, losses);
  chapter.picture("05_lora_layer.svg", plot.svg());
  return chapter.finish();
}
