// Chapter 9: an adapter over a 4-bit base learns the task and repairs the base as far as its rank reaches; merged back, most of it is lost.
#include <lowrank/adapters/merge.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>

#include <support/chapter.hpp>

using lowrank::Activation;
using lowrank::Index;
using lowrank::Weight;
using Nf4 = lowrank::Nf4<64>;

constexpr Index n_in = 128, n_out = 96, n_tokens = 256, true_rank = 4;

// X Xᵀ = T I, as in chapter 5: the loss of an error E of the weight is ‖E‖² / out.
Activation<float> white_input() {
  const Eigen::MatrixXd q = lowrank::thin_qr(support::normal<Eigen::MatrixXd>(n_tokens, n_in, 7)).q;
  return (std::sqrt(static_cast<double>(n_tokens)) * q.transpose()).cast<float>();
}

struct Task {
  Weight<float> w, delta;
  Activation<float> x = white_input(), target = (w + delta) * x;

  template <class Layer>
  double loss(const Layer& layer) const {
    return static_cast<double>((layer(x) - target).squaredNorm()) / static_cast<double>(target.size());
  }
};

template <class Layer>
void train(const Task& task, Layer& layer) {
  lowrank::AdamW optimizer{parameters(layer), {.learning_rate = 0.01, .weight_decay = 0}};
  lowrank::Tape tape;
  const int steps = 800;
  for (int step = 0; step < steps; ++step) {
    optimizer.set_learning_rate_share(1.0 - static_cast<double>(step) / steps);
    optimizer.zero_grad();
    tape.backward(mse(layer(tape.input(task.x)), task.target));
    optimizer.step();
  }
}

// The least loss that an update of rank r can reach, if E is to be made up for.
double floor_of(const Weight<float>& e, Index r) {
  const Eigen::VectorXd s = lowrank::thin_svd(e.cast<double>()).s;
  return s.tail(s.size() - r).squaredNorm() / static_cast<double>(n_out);
}

int main(int argc, char** argv) {
  support::Chapter chapter("9. QLoRA", argc, argv);
  const Task task{support::normal<Weight<float>>(n_out, n_in, 1, 0.1),
                  support::normal<Weight<float>>(n_out, true_rank, 2, 0.1) * support::normal<Weight<float>>(true_rank, n_in, 3, 0.1)};
  const lowrank::QuantizedMatrix<Nf4> q = lowrank::quantize<Nf4>(task.w);
  const Weight<float> lost = task.w - dequantize(q);  // what four bits could not hold

  support::Table table({"rank", "float base", "NF4 base", "least for NF4 base"});
  std::vector<double> ranks, float_loss, nf4_loss, floors;
  for (const Index r : {1, 2, 4, 8, 16}) {
    const lowrank::LoraOptions options{.rank = r, .alpha = static_cast<double>(r), .seed = 5};
    lowrank::LoraLinear dense{lowrank::Linear{task.w}, options};
    lowrank::LoraLinear four_bit{lowrank::QuantizedLinear{q}, options};
    train(task, dense), train(task, four_bit);
    ranks.push_back(static_cast<double>(r)), floors.push_back(floor_of(lost + task.delta, r));
    float_loss.push_back(task.loss(dense)), nf4_loss.push_back(task.loss(four_bit));
    table.add({support::format("%d", static_cast<int>(r)), support::format("%.2e", float_loss.back()),
               support::format("%.2e", nf4_loss.back()), support::format("%.2e", floors.back())});
    chapter.equal(support::format("rank %d, NF4 base: loss = tail of (W - Q) + Δ", static_cast<int>(r)), floors.back(), nf4_loss.back(),
                  0.02 * floors.back(), "%.5f");
  }
  chapter.section("Loss after training, a teacher W + Δ with Δ of rank 4:");
  table.print();
  chapter.at_most("rank 4, float base: loss over the loss of no update", 1e-6, float_loss[2] / (task.delta.squaredNorm() / n_out));

  // The trained adapter over NF4, used in three ways.
  lowrank::LoraLinear layer{lowrank::QuantizedLinear{q}, {.rank = 8, .alpha = 8, .seed = 5}};
  const double before = task.loss(layer);
  train(task, layer);
  const Activation<float> kept = layer(task.x);
  const double kept_loss = task.loss(layer);
  const lowrank::Linear dense{Weight<float>(dequantize(q) + layer.scale() * layer.b().value * layer.a().value)};
  const double dense_gap = static_cast<double>((dense(task.x) - kept).norm() / kept.norm()), dense_loss = task.loss(dense);
  const lowrank::MergeReport report = merge(layer);
  const double merged_gap = static_cast<double>((layer(task.x) - kept).norm() / kept.norm()), merged_loss = task.loss(layer);

  chapter.section("The rank-8 adapter over NF4, and what becomes of it:");
  support::Table ways({"", "loss", "output gap"});
  ways.add({"no adapter", support::format("%.2e", before), ""});
  ways.add({"kept beside the 4-bit base", support::format("%.2e", kept_loss), "0"});
  ways.add({"merged into a float weight", support::format("%.2e", dense_loss), support::format("%.1e", dense_gap)});
  ways.add({"merged into NF4 again", support::format("%.2e", merged_loss), support::format("%.1e", merged_gap)});
  ways.print();

  // The same update, ever smaller: what is below half the distance of two values rounds back to where it was.
  chapter.section("Merging the update times a factor into NF4:");
  support::Table sizes({"factor", "update / rounding error of the base", "survives", "codes changed"});
  double survived[3];
  for (const int i : {0, 1, 2}) {
    const double factor = std::pow(0.25, i);
    unmerge(layer);
    layer.set_scale(static_cast<float>(factor));
    const lowrank::MergeReport part = merge(layer);
    survived[i] = part.survived;
    sizes.add({support::format("%.4g", factor), support::format("%.2f", part.update_norm / static_cast<double>(lost.norm())),
               support::format("%.0f %%", 100 * part.survived), support::format("%.1f %%", 100 * part.codes_changed)});
  }
  sizes.print();
  chapter.at_most("share of a sixteenth of the update that survives", 0.1, survived[2]);
  chapter.at_most("merged into float - kept, output, relative", 1e-5, dense_gap);
  chapter.equal("merged into NF4 - kept, output = the report's rounding error", report.relative_error, merged_gap,
                0.02 * report.relative_error, "%.4f");
  chapter.at_least("loss merged into NF4 over loss kept", 2, merged_loss / kept_loss);

  support::Plot plot("Loss after training by rank, and the least that the rank allows", "rank r", "loss", {.log_x = true, .least_y = 0});
  plot.dashes("least, NF4 base", ranks, floors);
  plot.points("NF4 base", ranks, nf4_loss);
  plot.line("float base", ranks, float_loss);
  chapter.picture("09_qlora.svg", plot.svg());
  return chapter.finish();
}
