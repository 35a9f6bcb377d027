#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/optim/adamw.hpp>

#include <rank_tradeoff/options.hpp>

// How near a trained update s B A comes to a wanted change dW, beside what no matrix of its rank can better (Eckart and Young 1936).

namespace rank_tradeoff {
namespace {

using lowrank::Activation;
using lowrank::Weight;

constexpr Index n_in = 128, n_out = 96, n_tokens = 256;

Eigen::MatrixXd orthonormal(Index rows, Index cols, std::uint64_t seed) {
  Eigen::MatrixXd m(rows, cols);
  lowrank::fill_normal(m, 1, lowrank::Random(seed));
  return lowrank::thin_qr(m).q;
}

struct Task {
  Weight<float> w, delta;
  Eigen::VectorXd spectrum;
  Activation<float> x, target;
};

/// dW = U diag(1 / i) Vᵀ, full rank with strong directions and a long tail; X Xᵀ = T I, so that the loss is ‖dW - s B A‖² / out.
Task make_task(std::uint64_t seed) {
  Task task;
  task.spectrum = Eigen::VectorXd::LinSpaced(n_out, 1, static_cast<double>(n_out)).cwiseInverse();
  const Eigen::MatrixXd u = orthonormal(n_out, n_out, seed), v = orthonormal(n_in, n_out, seed + 100);
  task.delta = (u * task.spectrum.asDiagonal() * v.transpose()).cast<float>();
  task.w.resize(n_out, n_in);
  lowrank::fill_normal(task.w, 0.1, lowrank::Random(seed + 200));
  task.x = (std::sqrt(static_cast<double>(n_tokens)) * orthonormal(n_tokens, n_in, seed + 300).transpose()).cast<float>();
  task.target = (task.w + task.delta) * task.x;
  return task;
}

double trained_error(const Task& task, Index rank, int steps) {
  lowrank::LoraLinear layer{lowrank::Linear{task.w}, {.rank = rank, .alpha = static_cast<double>(rank), .seed = 5}};
  lowrank::AdamW optimizer{parameters(layer), {.learning_rate = 0.02, .weight_decay = 0}};
  lowrank::Tape tape;
  for (int step = 0; step < steps; ++step) {
    optimizer.set_learning_rate_share(1.0 - static_cast<double>(step) / steps);
    optimizer.zero_grad();
    tape.backward(mse(layer(tape.input(task.x)), task.target));
    optimizer.step();
  }
  const Weight<float> learned = layer.scale() * (layer.b().value * layer.a().value);
  return static_cast<double>((task.delta - learned).norm() / task.delta.norm());
}

}  // namespace

void measure_matrices(const Options& options, Budget budget, Results& results) {
  const int steps = options.quick ? 400 : 1500;
  for (const Index rank : {1, 2, 4, 8, 16, 32, 64}) {
    Row row{"matrix", "error", "fp32", "lora", n_in, n_tokens, rank};
    double error = 0, floor = 0, seeds = 0;
    for (const std::uint64_t seed : {1, 2, 3}) {
      if (budget.is_spent() && seeds > 0) break;
      const Task task = make_task(seed);
      row.times.push_back(benchmarks::time_of([&] { error += trained_error(task, rank, steps); }));
      floor += task.spectrum.tail(n_out - rank).norm() / task.spectrum.norm();
      ++seeds;
    }
    row.cpu = row.times;
    row.counters = {{"error", error / seeds}, {"predicted_error", floor / seeds}, {"error_over_floor", error / floor}, {"seeds", seeds}};
    results.rows.push_back(std::move(row));
  }
}

}  // namespace rank_tradeoff
