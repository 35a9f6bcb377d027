#include <algorithm>
#include <optional>

#include <lowrank/core/profile.hpp>

#include <transformer/generate.hpp>

#include <cli/bench.hpp>

namespace cli::bench {

using lowrank::Phase;
using lowrank::PhaseSeconds;

namespace {

constexpr Index profiled_tokens = 32, profiled_steps = 3;

struct Budget {
  std::string name;
  PhaseSeconds seconds;  // of one prompt, token or step, all threads together
};

/// Of `count` runs of body, which ran before.
template <class Body>
Budget budget_of(std::string name, Index count, const Body& body) {
  const lowrank::Profile profile;
  for (Index i = 0; i < count; ++i) body(i);
  Budget budget{std::move(name), profile.seconds(lowrank::thread_count())};
  for (double& seconds : budget.seconds) seconds /= static_cast<double>(count);
  return budget;
}

void add_generation(Transformer& model, LoraSet* adapter, const Options& o, std::vector<Budget>& budgets) {
  const auto ids = random_ids(model, std::max(o.prompt, decode_prompt), o.common.seed);
  const std::span all(ids);
  const auto read = [&](transformer::Reader<>& reader, std::size_t begin, Index count) {
    reader(all.subspan(begin, static_cast<std::size_t>(count)));
  };
  budgets.push_back(budget_of("prompt of " + std::to_string(o.prompt), 1, [&](Index) {
    transformer::Reader<> reader(model, adapter);
    read(reader, 0, o.prompt);
  }));
  transformer::Reader<> reader(model, adapter);
  read(reader, 0, decode_prompt);
  budgets.push_back(budget_of("token", std::min(o.tokens, profiled_tokens), [&](Index) { read(reader, 0, 1); }));
}

void add_training(Transformer& model, LoraSet& trained, Options o, std::vector<Budget>& budgets) {
  o.steps = profiled_steps;
  std::optional<lowrank::Profile> profile;
  PhaseSeconds seconds{};
  train_steps<lowrank::Cpu>(model, trained, o, [&](const transformer::StepReport& step) {
    if (step.step == 0) profile.emplace();  // the first one warms up
    if (step.step == o.steps) seconds = profile->seconds(lowrank::thread_count());
  });
  for (double& s : seconds) s /= static_cast<double>(o.steps);
  budgets.push_back({"step", seconds});
}

constexpr std::pair<Phase, const char*> names[] = {
    {Phase::product, "micro-kernels"},    {Phase::decoding, "decoding weights"}, {Phase::packing, "packing activations"},
    {Phase::attention, "attention"},      {Phase::loss, "softmax of the loss"},  {Phase::optimizer, "optimizer"},
    {Phase::other, "element-wise, else"}, {Phase::waiting, "waiting"},
};

std::string share_text(double seconds, double total) {
  return format("%.2f ms", 1e3 * seconds) + format(" %4.1f %%", 100 * seconds / total);
}

}  // namespace

void print_profile(Session& session, LoraSet* adapter, LoraSet* trained, const Options& o, Json& json) {
  std::vector<Budget> budgets;
  if (!o.skip_generation) {
    session.model.set_compute(resolve_compute(o.common, "generate"));
    add_generation(session.model, adapter, o, budgets);
    session.model.set_compute(session.compute);
  }
  if (trained) add_training(session.model, *trained, o, budgets);
  std::vector<std::string> head{"time of all threads together"};
  for (const Budget& budget : budgets) head.push_back(budget.name);
  Table table(head);
  for (const auto& [phase, name] : names) {
    std::vector<std::string> row{name};
    for (const Budget& budget : budgets) {
      const double own = budget.seconds[static_cast<std::size_t>(phase)];
      double total = 0;
      for (const double seconds : budget.seconds) total += seconds;
      row.push_back(share_text(own, total));
      json["profile"][budget.name][name] = own;
    }
    table.add(row);
  }
  std::printf("\n");
  table.print();
}

}  // namespace cli::bench
