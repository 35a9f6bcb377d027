// Chapter 6: with s = α / r the update fades as the rank grows; with s = α / √r it does not.
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/sgd.hpp>

#include <support/chapter.hpp>

using lowrank::Activation;
using lowrank::Index;
using lowrank::Weight;

constexpr Index n_in = 256, n_out = 64, n_tokens = 64;
constexpr double alpha = 16;

struct Task {
  Weight<float> w;
  Activation<float> x, target;
};

// Activations as they leave a ReLU, none negative: they share a direction, as those of real networks do.
Task make_task() {
  Task task{support::normal<Weight<float>>(n_out, n_in, 1, 0.05), support::normal<Activation<float>>(n_in, n_tokens, 2).cwiseAbs(), {}};
  task.target = (task.w + support::normal<Weight<float>>(n_out, n_in, 3, 0.02)) * task.x;
  return task;
}

struct FirstStep {
  double gradient = 0;  // ‖dL/dB‖, root mean square
  double update = 0;    // ‖s B A X‖ after a step of gradient descent, over its learning rate
};

// Mean over seeds of A. B is zero, so dL/dA is zero and the first step moves B alone.
FirstStep first_step(const Task& task, Index rank, bool rslora) {
  FirstStep mean;
  const int seeds = 16;
  for (int seed = 0; seed < seeds; ++seed) {
    lowrank::LoraLinear layer{lowrank::Linear{task.w},
                              {.rank = rank, .alpha = alpha, .use_rslora = rslora, .seed = static_cast<std::uint64_t>(seed)}};
    lowrank::Tape tape;
    tape.backward(mse(layer(tape.input(task.x)), task.target));
    const Weight<float> step = layer.b().grad;
    mean.gradient += static_cast<double>(step.squaredNorm()) / seeds;
    mean.update += static_cast<double>((layer.scale() * step * (layer.a().value * task.x)).norm()) / seeds;
  }
  mean.gradient = std::sqrt(mean.gradient);
  return mean;
}

double loss_after(const Task& task, Index rank, bool rslora, double learning_rate, int steps) {
  lowrank::LoraLinear layer{lowrank::Linear{task.w}, {.rank = rank, .alpha = alpha, .use_rslora = rslora}};
  lowrank::Sgd optimizer{parameters(layer), {.learning_rate = learning_rate}};
  lowrank::Tape tape;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    tape.backward(mse(layer(tape.input(task.x)), task.target));
    optimizer.step();
  }
  const double loss = static_cast<double>((layer(task.x) - task.target).squaredNorm()) / static_cast<double>(task.target.size());
  return std::isfinite(loss) ? loss : 1e30;
}

// The largest learning rate, in powers of √2, with which 20 steps leave less loss than there was.
double largest_rate(const Task& task, Index rank, bool rslora) {
  const double before = loss_after(task, rank, rslora, 0, 0);
  double rate = 1e-3;
  while (loss_after(task, rank, rslora, rate * std::sqrt(2.0), 20) < before) rate *= std::sqrt(2.0);
  return rate;
}

// Slope of log y over log r by least squares.
double slope(const std::vector<double>& r, const std::vector<double>& y) {
  const auto n = static_cast<Eigen::Index>(r.size());
  const Eigen::ArrayXd u = Eigen::Map<const Eigen::ArrayXd>(r.data(), n).log(), v = Eigen::Map<const Eigen::ArrayXd>(y.data(), n).log();
  return ((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum();
}

int main(int argc, char** argv) {
  support::Chapter chapter("6. Rank and scale", argc, argv);
  const Task task = make_task();
  support::Plot plot("Gradient of B at the start, by rank", "rank r", "‖dL/dB‖", {.log_x = true, .log_y = true});
  const std::vector<Index> ranks{1, 2, 4, 8, 16, 32, 64};
  const std::vector<double> r(ranks.begin(), ranks.end());
  support::Table table({"rank", "‖dB‖ α/r", "‖dB‖ α/√r", "step α/r", "step α/√r", "largest rate α/r", "largest rate α/√r"});
  std::vector<double> gradient[2], update[2], rate[2];
  for (const Index rank : ranks) {
    for (const bool rslora : {false, true}) {
      const FirstStep step = first_step(task, rank, rslora);
      gradient[rslora].push_back(step.gradient), update[rslora].push_back(step.update);
      rate[rslora].push_back(largest_rate(task, rank, rslora));
    }
    const auto show = [](const std::vector<double>& values) { return support::format("%.3g", values.back()); };
    table.add({support::format("%d", static_cast<int>(rank)), show(gradient[0]), show(gradient[1]), show(update[0]), show(update[1]),
               show(rate[0]), show(rate[1])});
  }
  chapter.section("At the start, and the largest rate with which 20 steps of gradient descent lower the loss:");
  table.print();

  // dB = s G (A X)ᵀ has r columns of one size, so ‖dB‖ ~ s √r; a step moves the output by s dB A X ~ s² r.
  chapter.equal("‖dL/dB‖ ~ r^p with α/r: p", -0.5, slope(r, gradient[0]), 0.1, "%.2f");
  chapter.equal("‖dL/dB‖ ~ r^p with α/√r: p", 0, slope(r, gradient[1]), 0.1, "%.2f");
  chapter.equal("change of the output in a step ~ r^p with α/r: p", -1, slope(r, update[0]), 0.15, "%.2f");
  chapter.equal("change of the output in a step ~ r^p with α/√r: p", 0, slope(r, update[1]), 0.15, "%.2f");
  chapter.equal("largest learning rate ~ r^p with α/r: p", 1, slope(r, rate[0]), 0.15, "%.2f");
  const double p = slope(r, rate[1]);  // 0 while A hardly moves, 1/2 where A and B move alike
  chapter.claim("largest learning rate ~ r^p with α/√r: p", "0 to 0.5", support::format("%.2f", p), p > -0.1 && p < 0.6);

  plot.line("s = α / r", r, gradient[0]);
  plot.line("s = α / √r", r, gradient[1]);
  chapter.picture("06_scale.svg", plot.svg());
  return chapter.finish();
}
