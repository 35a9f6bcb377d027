#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>

#include <lowrank/io/gguf.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/optim/adamw.hpp>

#include <transformer/adapters.hpp>
#include <transformer/load.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/tokenizer.hpp>
#include <transformer/train.hpp>

#include <rank_tradeoff/options.hpp>

// Held-out loss against rank. Each method and rank gets its own learning rate: a rate that suits one would make the others look bad.

namespace rank_tradeoff {
namespace {

using transformer::Base;
using transformer::LoraSet;
using transformer::Transformer;

constexpr double alpha = 16;  // fixed, so that s = alpha / r and alpha / sqrt(r) show what the rank does to them

struct Data {
  std::vector<transformer::Example> train, validation, test;
};

/// A model, its data, and how long a training may be.
struct Setting {
  std::string name;
  std::filesystem::path file;
  Base adapted_base = Base::fp32;  ///< under LoRA and DoRA
  Index batch = 8, sequence = 64, least_steps = 8, most_steps = 60;
  int extensions = 2;         ///< how often a grid grows when the best rate lies at its edge
  bool seeds_beside = true;   ///< further seeds for the neighbours of the best rate, too
  std::size_t held_out = 24;  ///< sequences to choose a rate by, and as many to report
  std::vector<double> rates{3e-3, 1e-2, 1e-3, 3e-2}, full_rates{1e-3, 3e-4, 3e-3};
};

const char* base_name(Base base) {
  return base == Base::fp32 ? "fp32" : base == Base::nf4 ? "nf4" : base == Base::bf16 ? "bf16" : "native";
}

Data load_data(const Setting& setting) {
  const auto tokenizer = transformer::Tokenizer::from_gguf(lowrank::gguf::File::open(setting.file));
  const std::filesystem::path folder = std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data" / "domains";
  Data data;
  std::vector<std::vector<transformer::Example>> held_out;
  for (const char* domain : {"finance", "healthcare", "legal", "manufacturing", "retail"}) {
    const auto read = [&](const char* part) {
      return transformer::windows(tokenizer.encode(transformer::read_text(folder / (std::string(domain) + part))), setting.sequence);
    };
    for (auto& example : read(".train.txt"))
      if (static_cast<Index>(example.ids.size()) > setting.sequence) data.train.push_back(std::move(example));
    held_out.push_back(read(".heldout.txt"));
  }
  // The first half of each held-out text chooses the rate, the second is reported; domains in turn.
  for (std::size_t i = 0; data.validation.size() < setting.held_out && i < 1000; ++i)
    for (auto& domain : held_out)
      if (i < domain.size() / 2) {
        data.validation.push_back(domain[i]);
        data.test.push_back(domain[i + domain.size() / 2]);
      }
  return data;
}

/// One method at one rank: what was trained at which rate.
struct Search {
  std::string method;
  Base base;
  Index rank;
  std::vector<double> rates;
  std::map<double, std::vector<Training>> done = {};
  double step_seconds = 0, checkpoint_bytes = 0;

  std::string name() const { return lowrank::concat(method, ' ', base_name(base), " r ", rank); }
  double validation(double rate) const {
    double sum = 0;
    for (const Training& t : done.at(rate)) sum += t.validation;
    return sum / static_cast<double>(done.at(rate).size());
  }
  /// The rate of least validation loss, among those with most seeds.
  double best_rate() const {
    std::size_t seeds = 0;
    for (const auto& [rate, trainings] : done) seeds = std::max(seeds, trainings.size());
    double best = 0;
    for (const auto& [rate, trainings] : done)
      if (trainings.size() == seeds && (best == 0 || validation(rate) < validation(best))) best = rate;
    return best;
  }
};

class Trainer {
 public:
  Trainer(Setting setting, std::filesystem::path scratch)
      : setting_(std::move(setting)), scratch_(std::move(scratch)), data_(load_data(setting_)) {}

  const Setting& setting() const { return setting_; }
  Index steps = 1;

  /// The highest rank that every adapted layer can have.
  Index largest_rank() {
    const Transformer& adapted = model(setting_.adapted_base);
    Index largest = std::numeric_limits<Index>::max();
    for (const Index slot : transformer::target_slots(adapted, config_of({})))
      largest = std::min({largest, adapted.layer(slot).in_features(), adapted.layer(slot).out_features()});
    return largest;
  }

  double bare_loss() { return transformer::evaluate(model(setting_.adapted_base), nullptr, data_.test).mean_nll; }

  /// One training; a rate at which the loss stops being finite gives an infinite loss.
  Training run(Search& search, double rate, int seed, Index step_count, bool evaluates = true) {
    Training t{setting_.name, search.method, base_name(search.base), search.rank, rate, seed, step_count};
    std::optional<Transformer> full;
    if (search.method == "full") {
      full = load(Base::fp32);
      full->set_trainable(true);
    }
    Transformer& target = full ? *full : model(search.base);
    const lowrank::LoraConfig config = config_of(search);
    std::optional<LoraSet> lora;
    if (!full) lora = transformer::new_lora(target, config, lowrank::LoraInit::kaiming, static_cast<std::uint64_t>(seed));
    auto parameters = lora ? transformer::parameters(target, *lora) : lowrank::parameters(target);
    lowrank::AdamW<float> optimizer(parameters, {.learning_rate = rate, .weight_decay = 0});
    for (const auto& p : parameters) t.trained_bytes += sizeof(float) * static_cast<double>(p.size());
    t.optimizer_bytes = static_cast<double>(optimizer.bytes());
    if (lora) t.frozen_bytes = static_cast<double>(target.bytes());
    std::vector<double> seconds;
    try {
      transformer::train(target, lora ? &*lora : nullptr, optimizer, parameters, data_.train,
                         {.steps = step_count,
                          .batch = setting_.batch,
                          .warmup = std::min<Index>(3, step_count / 4),
                          .learning_rate = rate,
                          .seed = static_cast<std::uint64_t>(seed)},
                         [&](const auto& step) { seconds.push_back(step.seconds); });
      if (evaluates) {
        t.validation = transformer::evaluate(target, lora ? &*lora : nullptr, data_.validation).mean_nll;
        t.test = transformer::evaluate(target, lora ? &*lora : nullptr, data_.test).mean_nll;
      }
    } catch (const lowrank::ValueError&) {
      t.validation = t.test = INFINITY;
    }
    t.step_seconds = median(seconds);
    if (search.checkpoint_bytes == 0) search.checkpoint_bytes = full ? t.trained_bytes : saved_bytes(target, *lora, config);
    t.checkpoint_bytes = search.checkpoint_bytes;
    return t;
  }

 private:
  Transformer load(Base base) const {
    Transformer model = transformer::load_model(setting_.file, base);
    const bool native = lowrank::kernels::current_target().bf16.unit == 2;
    model.set_compute(native ? lowrank::Compute::bf16 : lowrank::Compute::fp32);
    return model;
  }
  Transformer& model(Base base) {
    auto& held = models_[base];
    if (!held) held.emplace(load(base));
    return *held;
  }
  static lowrank::LoraConfig config_of(const Search& search) {
    lowrank::LoraConfig config;
    config.rank = std::max<Index>(1, search.rank);
    config.alpha = alpha;
    config.use_rslora = search.method == "rslora";
    lowrank::set_method(config, search.method == "dora" ? "dora" : "lora");
    config.target_modules = std::string("all-linear");
    return config;
  }
  /// Bytes of the adapter's folder as PEFT reads it.
  double saved_bytes(const Transformer& target, const LoraSet& lora, const lowrank::LoraConfig& config) const {
    const auto folder = scratch_ / "adapter";
    lowrank::peft::save(transformer::to_adapter(target, lora, config), folder);
    double bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) bytes += static_cast<double>(entry.file_size());
    std::filesystem::remove_all(folder);
    return bytes;
  }

  Setting setting_;
  std::filesystem::path scratch_;
  Data data_;
  std::map<Base, std::optional<Transformer>> models_;
};

/// Trains in stages, so that what time allows is spread over all ranks: the rates with one seed, then further seeds.
class Quality {
 public:
  Quality(Trainer& trainer, std::vector<Search> searches, Budget budget)
      : trainer_(trainer), searches_(std::move(searches)), budget_(budget) {}

  void run(Results& results) {
    const double bare = trainer_.bare_loss();
    choose_steps();
    for (Search& search : searches_) sweep_rates(search);
    for (Search& search : searches_) more_seeds(search, search.done.empty() ? 0 : search.best_rate());
    if (trainer_.setting().seeds_beside)
      for (Search& search : searches_) seeds_beside(search);
    for (const Search& search : searches_) finish(search, bare, results);
    if (!missing_.empty())
      results.skipped.push_back(lowrank::concat("trainings of ", trainer_.setting().name, " that the time did not allow:", missing_));
  }

 private:
  static constexpr int seeds = 3;

  /// Steps of every training, so that all of them fit into nine tenths of the budget.
  void choose_steps() {
    const Setting& s = trainer_.setting();
    double step_sum = 0, rest = 0;
    for (Search& search : searches_) {
      if (budget_.is_spent()) break;
      const double start = benchmarks::seconds();
      const Training probe = trainer_.run(search, search.rates.front(), 1, 2);
      search.step_seconds = probe.step_seconds;
      const double runs = static_cast<double>(search.rates.size()) + 0.5 + (s.seeds_beside ? 6 : 2);
      step_sum += runs * probe.step_seconds;
      rest += runs * (benchmarks::seconds() - start - 2 * probe.step_seconds);
    }
    const double steps = (0.9 * budget_.left() - rest) / std::max(step_sum, 1e-3);
    trainer_.steps = static_cast<Index>(std::clamp(steps, static_cast<double>(s.least_steps), static_cast<double>(s.most_steps)));
  }

  void train(Search& search, double rate, int seed) {
    if (budget_.left() < search.step_seconds * static_cast<double>(trainer_.steps)) {
      missing_ += lowrank::concat(' ', search.name(), " rate ", rate, " seed ", seed, ';');
      return;
    }
    const Training t = trainer_.run(search, rate, seed, trainer_.steps);
    std::fprintf(stderr, "%s %s rate %g seed %d: %.4f, %.0f s left\n", t.model.c_str(), search.name().c_str(), rate, seed, t.test,
                 budget_.left());
    search.done[rate].push_back(t);
  }

  /// One seed for each rate; a grid whose best rate lies at its edge grows there.
  void sweep_rates(Search& search) {
    for (const double rate : search.rates) train(search, rate, 1);
    for (int i = 0; i < trainer_.setting().extensions && !search.done.empty(); ++i) {
      const double best = search.best_rate(), low = search.done.begin()->first, high = search.done.rbegin()->first;
      if (best != low && best != high) return;
      train(search, best == low ? low / 3 : high * 3, 1);
    }
  }
  void more_seeds(Search& search, double rate) {
    const auto found = search.done.find(rate);
    if (found == search.done.end()) return;
    for (int seed = static_cast<int>(found->second.size()) + 1; seed <= seeds; ++seed) train(search, rate, seed);
  }
  void seeds_beside(Search& search) {
    if (search.done.empty()) return;
    const auto best = search.done.find(search.best_rate());
    std::vector<double> beside;
    if (best != search.done.begin()) beside.push_back(std::prev(best)->first);
    if (std::next(best) != search.done.end()) beside.push_back(std::next(best)->first);
    for (const double rate : beside) more_seeds(search, rate);
  }

  void finish(const Search& search, double bare, Results& results) const {
    if (search.done.empty()) return;
    const double best = search.best_rate();
    Point point{trainer_.setting().name, search.method, base_name(search.base), search.rank, best, bare};
    point.at_edge = best == search.done.begin()->first || best == search.done.rbegin()->first;
    Row row{"model", trainer_.setting().name, base_name(search.base), search.method, 0, 0, search.rank};
    std::vector<double> seconds;
    for (const auto& [rate, trainings] : search.done) {
      point.by_rate.emplace_back(rate, search.validation(rate));
      for (const Training& t : trainings) {
        results.trainings.push_back(t);
        row.times.push_back(t.step_seconds);
        if (rate == best) point.losses.push_back(t.test);
      }
    }
    const Training& any = search.done.at(best).front();
    point.step_seconds = row.seconds();
    point.trained_bytes = any.trained_bytes, point.optimizer_bytes = any.optimizer_bytes, point.checkpoint_bytes = any.checkpoint_bytes,
    point.frozen_bytes = any.frozen_bytes;
    row.cpu = row.times;
    double mean = 0;
    for (const double loss : point.losses) mean += loss / static_cast<double>(point.losses.size());
    row.counters = {{"loss", mean},
                    {"bare_loss", bare},
                    {"best_learning_rate", best},
                    {"seeds", static_cast<double>(point.losses.size())},
                    {"steps", static_cast<double>(trainer_.steps)},
                    {"trained_bytes", any.trained_bytes},
                    {"optimizer_bytes", any.optimizer_bytes},
                    {"checkpoint_bytes", any.checkpoint_bytes}};
    results.rows.push_back(std::move(row));
    results.points.push_back(std::move(point));
  }

  Trainer& trainer_;
  std::vector<Search> searches_;
  Budget budget_;
  std::string missing_;
};

/// The ranks that a model's layers can have; the others are named.
std::vector<Index> possible_ranks(Trainer& trainer, std::vector<Index> ranks, Results& results) {
  const Index largest = trainer.largest_rank();
  const auto too_high = std::partition(ranks.begin(), ranks.end(), [&](Index rank) { return rank <= largest; });
  for (auto rank = too_high; rank != ranks.end(); ++rank)
    results.skipped.push_back(lowrank::concat("rank ", *rank, " on ", trainer.setting().name, ", whose narrowest layer has ", largest));
  ranks.erase(too_high, ranks.end());
  if (ranks.empty()) ranks.push_back(largest);
  return ranks;
}

std::vector<Search> searches_of(const Setting& setting, const std::vector<Index>& ranks, bool both_scales, bool both_bases) {
  const Index middle = ranks[ranks.size() / 2];
  std::vector<Search> searches{{"full", Base::fp32, 0, setting.full_rates}};
  for (const Index rank : ranks) searches.push_back({"lora", setting.adapted_base, rank, setting.rates});
  if (both_scales)
    for (const Index rank : ranks)
      if (rank > 1) searches.push_back({"rslora", setting.adapted_base, rank, setting.rates});  // at rank 1 the scales are one
  searches.push_back({"dora", setting.adapted_base, middle, setting.rates});
  if (both_bases) searches.push_back({"lora", Base::nf4, middle, setting.rates});
  return searches;
}

}  // namespace

void measure_models(const Options& options, Budget budget, Results& results) {
  if (budget.left() < 3) return results.skipped.push_back("all trainings of models");
  const bool has_model = !options.model.empty();
  Setting tiny{.name = "tiny", .file = std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data" / "demo.gguf"};
  if (options.quick) tiny.batch = 4, tiny.sequence = 64, tiny.least_steps = 6, tiny.extensions = 1, tiny.seeds_beside = false;
  {
    Trainer trainer(tiny, options.out);
    const Budget share(budget.left() * (has_model ? 0.3 : 0.97));
    const std::vector<Index> ranks = possible_ranks(trainer, options.model_ranks, results);
    Quality(trainer, searches_of(tiny, ranks, true, true), share).run(results);
    results.context["tiny_steps"] = std::to_string(trainer.steps);
    results.context["tiny_batch"] = lowrank::concat(tiny.batch, " x ", tiny.sequence);
  }
  if (!has_model) return;
  Setting large{.name = options.model.stem().string(),
                .file = options.model,
                .adapted_base = Base::native,
                .batch = 4,
                .sequence = 64,
                .least_steps = 4,
                .most_steps = 40,
                .extensions = 1,
                .seeds_beside = false,
                .held_out = 8};
  large.rates = {1e-3, 3e-3, 3e-4};
  large.full_rates = {1e-4, 3e-5, 3e-4};
  Trainer trainer(large, options.out);
  const std::vector<Index> ranks = possible_ranks(trainer, options.quick ? std::vector<Index>{8} : std::vector<Index>{1, 8, 64}, results);
  Quality(trainer, searches_of(large, ranks, false, false), Budget(budget.left() * 0.95)).run(results);
  results.context["large_model"] = large.name;
  results.context["large_steps"] = std::to_string(trainer.steps);
  results.context["large_batch"] = lowrank::concat(large.batch, " x ", large.sequence);
}

}  // namespace rank_tradeoff
