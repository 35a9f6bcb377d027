// Chapter 10: LoRA, DoRA and full fine-tuning of one small language model on an equal budget of steps.
#include <chrono>
#include <functional>

#include <lowrank/io/gguf.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/optim/adamw.hpp>

#include <transformer/adapters.hpp>
#include <transformer/load.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/tokenizer.hpp>
#include <transformer/train.hpp>

#include <support/chapter.hpp>

using lowrank::Index;
using transformer::LoraSet;
using transformer::Transformer;

constexpr Index steps = 20, batch = 8, sequence = 128;

struct Data {
  std::vector<transformer::Example> train, chosen_by, held_out;  // to learn from; to choose rates by; to report
};

struct Outcome {
  double rate = 0, choice = 0, loss = 0, seconds = 0;  // choice: the loss on chosen_by
  Index trained = 0;
  std::size_t state_bytes = 0;
};

using Trained = std::pair<Outcome, LoraSet>;

// Trains what is trainable, and measures the loss on text that was not read.
Outcome train(Transformer& model, LoraSet* lora, const Data& data, double learning_rate) {
  const auto parameters = lora ? transformer::parameters(model, *lora) : lowrank::parameters(model);
  lowrank::AdamW<float> optimizer(parameters, {.learning_rate = learning_rate, .weight_decay = 0});
  Outcome outcome;
  outcome.rate = learning_rate;
  for (const auto& parameter : parameters) outcome.trained += parameter.size();
  const auto start = std::chrono::steady_clock::now();
  transformer::train(model, lora, optimizer, parameters, data.train, {.steps = steps, .batch = batch, .learning_rate = learning_rate},
                     [](const auto&) {});
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  outcome.state_bytes = optimizer.bytes();
  outcome.choice = transformer::evaluate(model, lora, data.chosen_by).mean_nll;
  outcome.loss = transformer::evaluate(model, lora, data.held_out).mean_nll;
  return outcome;
}

LoraSet fresh(const Transformer& model, Index rank, bool dora, std::uint64_t seed) {
  lowrank::LoraConfig config;
  config.rank = rank;
  config.alpha = 2.0 * static_cast<double>(rank);
  lowrank::set_method(config, dora ? "dora" : "lora");
  config.target_modules = std::string("all-linear");
  return transformer::new_lora(model, config, lowrank::LoraInit::kaiming, seed);
}

// Doubles a rate while that helps, by text that is not reported; `at` trains with a rate. What the last but one rate gave.
template <class Result>
Result best_rate(const std::string& method, double rate, support::Table& sweep, const std::function<Result(double)>& at) {
  Result best = at(rate);
  for (;; rate *= 2) {
    sweep.add({method, support::format("%.2g", rate), support::format("%.4f", best.first.choice)});
    Result next = at(2 * rate);
    if (next.first.choice >= best.first.choice) {
      sweep.add({method, support::format("%.2g", 2 * rate), support::format("%.4f", next.first.choice)});
      return best;
    }
    best = std::move(next);
  }
}

// Directions of the input that an update B A reads, the strongest first: the right singular vectors.
Eigen::MatrixXd directions(const lowrank::LoraWeights<float>& update) {
  return lowrank::product_svd(update.b.value.cast<double>(), update.a.value.cast<double>()).v;
}

// φ(i, j) = ‖U_iᵀ V_j‖² / min(i, j): 1 where the first i directions of one lie among the first j of the other, j / in where by chance.
std::vector<double> similarity(const LoraSet& small, const LoraSet& large, Index i, Index most, Index width) {
  std::vector<double> phi(static_cast<std::size_t>(most));
  double count = 0;
  for (std::size_t slot = 0; slot < small.slots.size(); ++slot) {
    if (!small.slots[slot] || small.slots[slot].lora()->a.cols() != width) continue;  // one width, so that chance means the same for all
    const Eigen::MatrixXd overlap = directions(*small.slots[slot].lora()).leftCols(i).transpose() * directions(*large.slots[slot].lora());
    for (Index j = 1; j <= most; ++j)
      phi[static_cast<std::size_t>(j - 1)] += overlap.leftCols(j).squaredNorm() / static_cast<double>(std::min(i, j));
    ++count;
  }
  for (double& value : phi) value /= count;
  return phi;
}

int main(int argc, char** argv) {
  support::Chapter chapter("10. DoRA and a small transformer", argc, argv);
  const std::filesystem::path folder = std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data";
  const auto file = lowrank::gguf::File::open(folder / "demo.gguf");
  Transformer model = transformer::load_gguf(file);
  const auto tokenizer = transformer::Tokenizer::from_gguf(file);
  const auto read = [&](const char* name) {
    return transformer::windows(tokenizer.encode(transformer::read_text(folder / "domains" / name)), sequence);
  };
  Data data{read("legal.train.txt"), {}, {}};
  for (auto& window : read("legal.heldout.txt"))  // in turn
    (data.chosen_by.size() > data.held_out.size() ? data.held_out : data.chosen_by).push_back(std::move(window));
  const auto before = transformer::fingerprint(model);
  const double bare = transformer::evaluate(model, nullptr, data.held_out).mean_nll;

  // DoRA: rows of W + s B A scaled to lengths m of their own; m begins as the lengths of W, so nothing changes.
  LoraSet start = fresh(model, 8, true, 1);
  const auto& ids = data.held_out.front().ids;
  const lowrank::Activation<float> plain = model.logits(ids).value(), dora = model.logits(ids, 1, {.lora = &start}).value();
  chapter.at_most("DoRA at the start - base, logits, relative", 1e-6, static_cast<double>((dora - plain).norm() / plain.norm()));

  support::Table table({"method", "trained", "best rate", "held-out loss", "seconds", "optimizer, KiB"});
  const auto show = [&](const std::string& name, const Outcome& o) {
    table.add({name, support::format("%ld", static_cast<long>(o.trained)), support::format("%.2g", o.rate), support::format("%.4f", o.loss),
               support::format("%.1f", o.seconds), support::format("%.0f", static_cast<double>(o.state_bytes) / 1024)});
  };
  show("(bare base)", {.loss = bare});
  // From half of the law of chapter 6 for AdamW and a constant s, rate ~ 1 / √r, upward.
  support::Table sweep({"method", "rate", "loss on the text that chooses"});
  std::vector<Trained> lora;
  for (const Index rank : {1, 8, 64}) {
    const auto name = support::format("LoRA, rank %ld", static_cast<long>(rank));
    const double first = 1.6e-2 / std::sqrt(static_cast<double>(rank));
    lora.push_back(best_rate<Trained>(name, first, sweep, [&](double rate) {
      LoraSet set = fresh(model, rank, false, static_cast<std::uint64_t>(rank));
      const Outcome outcome = train(model, &set, data, rate);
      return Trained{outcome, std::move(set)};
    }));
    const Outcome& outcome = lora.back().first;
    show(name, outcome);
    chapter.at_most(support::format("LoRA rank %ld: held-out loss below the bare base's", static_cast<long>(rank)), bare, outcome.loss,
                    "%.4f");
  }
  const Outcome& rank8 = lora[1].first;
  chapter.equal("optimizer bytes at rank 8: 8 a trained number", 8.0 * static_cast<double>(rank8.trained),
                static_cast<double>(rank8.state_bytes));
  const double power = std::log(lora[2].first.rate / lora[0].first.rate) / std::log(64.0);
  chapter.equal("best rate ~ r^p with s = 2, ranks 1 to 64 (chapter 6): p", -0.5, power, 0.2, "%.2f");
  const Outcome with_dora = train(model, &start, data, rank8.rate);
  show("DoRA, rank 8", with_dora);
  Index rows = 0;
  for (Index slot = 0; slot < model.head_slot(); ++slot) rows += model.layer(slot).out_features();
  chapter.equal("DoRA trains one number more a row", static_cast<double>(rank8.trained + rows), static_cast<double>(with_dora.trained));
  chapter.at_most("DoRA rank 8: held-out loss below the bare base's", bare, with_dora.loss, "%.4f");
  const bool frozen = transformer::fingerprint(model) == before;
  chapter.claim("checksum of the 4-bit base after all trainings", "unchanged", frozen ? "unchanged" : "changed", frozen);

  const Outcome full = best_rate<Trained>("full, dense fp32", 1e-3, sweep, [&](double rate) {
                         Transformer dense = transformer::load_gguf(file);
                         transformer::convert_base(dense, transformer::Base::fp32);
                         dense.set_trainable(true);
                         return Trained{train(dense, nullptr, data, rate), LoraSet{}};
                       }).first;
  show("full, dense fp32", full);
  chapter.section("Rates tried:");
  sweep.print();
  chapter.section("20 steps of 8 x 128 tokens each, with the best of them:");
  table.print();
  // Hu et al. 2021, section 7.2: do an adapter of rank 8 and one of rank 64, begun differently, find the same directions?
  const Index width = model.config.hidden;
  const std::vector<double> first = similarity(lora[1].second, lora[2].second, 1, 64, width),
                            all = similarity(lora[1].second, lora[2].second, 8, 64, width);
  std::vector<double> j(64), chance(64);
  for (std::size_t i = 0; i < j.size(); ++i) j[i] = static_cast<double>(i + 1), chance[i] = j[i] / static_cast<double>(width);
  chapter.section("Share of the rank-8 update's directions among the j strongest of rank 64:");
  support::Table found({"j", "strongest", "all 8", "by chance"});
  for (const std::size_t i : std::initializer_list<std::size_t>{0, 7, 15, 63})
    found.add({support::format("%.0f", j[i]), support::format("%.2f", first[i]), i < 7 ? "" : support::format("%.2f", all[i]),
               support::format("%.3f", chance[i])});
  found.print();
  chapter.at_least("strongest direction found among 8, over chance", 3, first[7] / chance[7]);
  chapter.at_least("strongest direction found among 8, over that of all 8", 1, first[7] / all[7]);
  support::Plot plot("Directions of the update of rank 8 found among the first j of rank 64", "directions j of rank 64", "share found",
                     {.least_y = 0});
  plot.line("strongest direction of rank 8", j, first);
  plot.line("all 8 directions of rank 8", j, all);
  plot.dashes("by chance", j, chance);
  chapter.picture("10_transformer.svg", plot.svg());
  return chapter.finish();
}
