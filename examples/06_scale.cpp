// Chapter 6: which learning rate is best for a rank depends on the scale s of the update and on the optimizer.
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/sgd.hpp>

#include <support/chapter.hpp>

using lowrank::Activation;
using lowrank::Index;
using lowrank::Weight;

constexpr Index n_in = 256, n_out = 64, n_tokens = 64;
constexpr int steps = 20;

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

// How a recipe chooses s: alpha (r) over r, or over √r. s ~ r^power.
struct Scale {
  const char* name;
  double constant, per_rank;  // alpha = constant + per_rank · r
  bool rslora;
  double power;
  double alpha(Index rank) const { return constant + per_rank * static_cast<double>(rank); }
};
constexpr Scale scales[] = {{"α/r", 16, 0, false, -1}, {"α/√r", 16, 0, true, -0.5}, {"2", 0, 2, false, 0}, {"2√r", 0, 2, true, 0.5}};
constexpr const char* optimizers[] = {"GD", "AdamW"};

struct Run {
  const Task& task;
  Scale scale;
  bool adam;
  Index rank;
};

// The layer after `count` steps of an optimizer with a rate.
lowrank::LoraLinear<lowrank::Linear<float>> trained(const Run& run, std::uint64_t seed, double rate, int count) {
  lowrank::LoraLinear layer{lowrank::Linear{run.task.w},
                            {.rank = run.rank, .alpha = run.scale.alpha(run.rank), .use_rslora = run.scale.rslora, .seed = seed}};
  const auto train = [&](auto optimizer) {
    lowrank::Tape tape;
    for (int step = 0; step < count; ++step) {
      optimizer.zero_grad();
      tape.backward(mse(layer(tape.input(run.task.x)), run.task.target));
      optimizer.step();
    }
  };
  if (run.adam)
    train(lowrank::AdamW{parameters(layer), {.learning_rate = rate, .weight_decay = 0}});
  else
    train(lowrank::Sgd{parameters(layer), {.learning_rate = rate}});
  return layer;
}

// ‖s B A X‖ after the first step, over its rate: the mean over beginnings. B is zero, so this step moves B alone.
double first_move(const Run& run) {
  const double rate = 1e-3;
  const int seeds = 64;
  double mean = 0;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    const auto layer = trained(run, seed, rate, 1);
    mean += static_cast<double>((layer.scale() * layer.b().value * (layer.a().value * run.task.x)).norm()) / (rate * seeds);
  }
  return mean;
}

// log(loss after training / loss before), the mean over three beginnings; 0 where that is no progress.
double log_loss(const Run& run, double rate) {
  const double before = static_cast<double>((run.task.w * run.task.x - run.task.target).squaredNorm());
  double sum = 0;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const double ratio = static_cast<double>((trained(run, seed, rate, steps)(run.task.x) - run.task.target).squaredNorm()) / before;
    sum += std::isfinite(ratio) ? std::log(std::min(ratio, 1.0)) / 3 : 0;
  }
  return sum;
}

// The rate with the least loss: powers of 2, then the vertex of the parabola through the three lowest.
double best_rate(const Run& run) {
  std::vector<double> loss;
  for (int power = -12; power <= 3; ++power) loss.push_back(log_loss(run, std::ldexp(1, power)));
  const auto at = static_cast<std::size_t>(std::min_element(loss.begin() + 1, loss.end() - 1) - loss.begin());
  const double left = loss[at - 1], middle = loss[at], right = loss[at + 1];
  const double vertex = 0.5 * (left - right) / (left - 2 * middle + right);
  return std::exp2(static_cast<double>(at) - 12 + vertex);
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
  const std::vector<Index> ranks{1, 2, 4, 8, 16, 32, 64};
  const std::vector<double> r(ranks.begin(), ranks.end());
  std::vector<std::vector<std::string>> rows(ranks.size());
  std::vector<std::string> head{"rank"};
  for (std::size_t i = 0; i < ranks.size(); ++i) rows[i].push_back(support::format("%ld", static_cast<long>(ranks[i])));
  support::Table losses({"optimizer, s", "rank 1", "rank 64", "rank 64 with the rate of rank 1"});
  support::Plot plot("Best learning rate by rank", "rank r", "learning rate", {.log_x = true, .log_y = true});
  std::vector<std::vector<double>> rates;
  for (const bool adam : {false, true}) {
    for (const Scale& scale : scales) {
      const std::string name = support::format("%s %s", optimizers[adam], scale.name);
      std::vector<double> move, rate, loss;
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        const Run run{task, scale, adam, ranks[i]};
        move.push_back(first_move(run)), rate.push_back(best_rate(run)), loss.push_back(std::exp(log_loss(run, rate.back())));
        rows[i].push_back(support::format("%.2g", rate.back()));
      }
      head.push_back(name);
      losses.add({name, support::format("%.2f", loss.front()), support::format("%.2f", loss.back()),
                  support::format("%.2f", std::exp(log_loss({task, scale, adam, ranks.back()}, rate.front())))});
      // A gradient step moves the output by s² r, one of Adam, whose numbers have all one size, by s r.
      chapter.equal(name + ": move of the output in the first step ~ r^p, p", adam ? scale.power + 1 : 2 * scale.power + 1, slope(r, move),
                    0.15, "%.2f");
      rates.push_back(rate);
      adam ? plot.dashes(name, r, rate) : plot.line(name, r, rate);
    }
  }
  // Once A and B have both grown, the best rate goes as 1 / s with gradient descent and as 1 / √(s r) with Adam.
  for (std::size_t i = 0; i < rates.size(); ++i) {
    const double power = scales[i % 4].power;
    chapter.equal(head[i + 1] + ": best rate ~ r^p, p", i < 4 ? 0 - power : (0 - power - 1) / 2, slope(r, rates[i]), 0.25, "%.2f");
  }
  support::Table table(head);
  for (const auto& row : rows) table.add(row);
  chapter.section("The learning rate that leaves the least loss after 20 steps:");
  table.print();
  chapter.section("That loss as a share of the loss before, and what the rate of rank 1 does at rank 64:");
  losses.print();
  chapter.picture("06_scale.svg", plot.svg());
  return chapter.finish();
}
