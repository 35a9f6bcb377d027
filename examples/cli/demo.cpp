#include <array>
#include <cstdio>

#include <lowrank/core/random.hpp>
#include <lowrank/optim/adamw.hpp>

#include <transformer/generate.hpp>
#include <transformer/merged_weight.hpp>
#include <transformer/train.hpp>

#include <cli/common.hpp>

namespace cli {
namespace demo {

constexpr std::array domains{"healthcare", "finance", "legal", "manufacturing", "retail"};
constexpr Index sequence = 128;

struct Options {
  Common common;
  Index steps = 40, batch = 8, rank = 16;
};

struct Domain {
  std::string name, prompt;
  std::vector<transformer::Example> train, held_out;
};

std::vector<Domain> read_domains(const Tokenizer& tokenizer) {
  const std::filesystem::path folder = std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data" / "domains";
  const std::string prompts = std::string(1, '\n') + transformer::read_text(folder / "prompts.txt");
  std::vector<Domain> all;
  for (const std::string name : domains) {
    const auto at = prompts.find("\n" + name + ": ");
    const auto begin = at == std::string::npos ? prompts.size() : at + name.size() + 3;
    Domain domain{name, prompts.substr(begin, prompts.find('\n', begin) - begin), {}, {}};
    domain.train = transformer::windows(tokenizer.encode(transformer::read_text(folder / (name + ".train.txt"))), sequence);
    domain.held_out = transformer::windows(tokenizer.encode(transformer::read_text(folder / (name + ".heldout.txt"))), sequence);
    all.push_back(std::move(domain));
  }
  return all;
}

struct Outcome {
  double seconds = 0;
  std::size_t state_bytes = 0;
};

Outcome train_on(Transformer& model, LoraSet* lora, const Domain& domain, const Options& o, double learning_rate,
                 const std::string& label) {
  const auto parameters = lora ? transformer::parameters(model, *lora) : lowrank::parameters(model);
  lowrank::AdamW<float> optimizer(parameters, {.learning_rate = learning_rate, .weight_decay = 0});
  transformer::TrainOptions options{
      .steps = o.steps, .batch = o.batch, .warmup = o.steps / 20, .learning_rate = learning_rate, .seed = o.common.seed};
  options.schedule = transformer::Schedule::cosine;
  Progress progress(o.steps, label);
  const double start = now();
  transformer::train(model, lora, optimizer, parameters, domain.train, options, [&](const transformer::StepReport& step) {
    progress.show(step.step + 1, step.loss, static_cast<double>(step.tokens) / step.seconds);
  });
  return {now() - start, optimizer.bytes()};
}

lowrank::LoraConfig config_of_rank(Index rank) {
  lowrank::LoraConfig config;
  config.rank = rank;
  config.alpha = 2.0 * static_cast<double>(rank);
  config.target_modules = std::string("all-linear");
  return config;
}

void heading(const char* title, const char* explanation) { std::printf("\n%s\n%s\n\n", title, explanation); }

void show_sizes(const Session& session, const LoraSet& lora, Index adapters) {
  const auto total = session.model.parameter_count(), trained = lowrank::parameter_count(lora);
  heading("What is trained",
          "Rank r adds r (in + out) numbers to a matrix of in * out: the wider the model, the smaller the share. A model of 7 billion\n"
          "parameters trains 0.1 to 1 %; this one is only a few hundred numbers wide, so the same rank is a larger share of it.");
  Table table({"", "parameters", "share", "bytes"});
  table.add({"base, frozen, 4-bit", std::to_string(total), "", human_bytes(session.model.bytes())});
  table.add({format("one adapter of rank %ld", static_cast<long>(16)), std::to_string(trained),
             format("%.2f %%", 100.0 * static_cast<double>(trained) / static_cast<double>(total)), human_bytes(transformer::bytes(lora))});
  table.add({format("%ld adapters", static_cast<long>(adapters)), std::to_string(adapters * trained), "",
             human_bytes(adapters * transformer::bytes(lora))});
  table.print();
  // The share of a rank-16 adapter on all linear layers of a Llama with 7 billion parameters, from its shapes.
  const double wide = 32 * 16.0 * (4 * (4096 + 4096) + 3 * (4096 + 11008)), dense = 6.738e9;
  std::printf("  (the same rank on Llama 2 7B: %.1f million of %.0f million, %.2f %%)\n", wide / 1e6, dense / 1e6, 100 * wide / dense);
}

/// losses[i][j]: adapter i on domain j; the last row is the bare base.
std::vector<std::vector<double>> show_matrix(Session& session, transformer::AdapterSet& adapters, const std::vector<Domain>& all) {
  heading("Held-out loss, adapter by domain (nats a byte; lower is better, * best of the column)",
          "Each adapter has read the training text of one domain. On text that it has not seen it beats the others, and the bare base,\n"
          "in its own domain.");
  std::vector<std::vector<double>> losses;
  for (std::size_t i = 0; i <= all.size(); ++i) {
    losses.emplace_back();
    for (const Domain& domain : all)
      losses.back().push_back(
          transformer::evaluate(session.model, i < all.size() ? &adapters.at(all[i].name) : nullptr, domain.held_out).mean_nll);
  }
  std::vector<std::string> head{"adapter"};
  for (const Domain& domain : all) head.push_back(domain.name);
  Table table(head);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    std::vector<std::string> row{i < all.size() ? all[i].name : "(bare base)"};
    for (std::size_t j = 0; j < all.size(); ++j) {
      bool best = true;
      for (const auto& other : losses) best = best && losses[i][j] <= other[j];
      row.push_back(format("%.4f%c", losses[i][j], best ? '*' : ' '));
    }
    table.add(row);
  }
  table.print();
  return losses;
}

void show_swaps(Session& session, transformer::AdapterSet& adapters, const std::vector<Domain>& all) {
  heading("One base, requests of different domains in turn",
          "The base stays where it is; a request picks its adapter by a pointer. Nothing is copied, merged or reloaded.");
  transformer::GenerateOptions options{.tokens = 56};
  const Tokenizer& tokenizer = session.need_tokenizer();
  for (std::size_t i = 0; i < all.size(); ++i) {
    adapters.activate(all[i].name);
    const auto result = transformer::generate(session.model, adapters.active(), tokenizer,
                                              tokenizer.encode(all[i].prompt, transformer::TextPart::prompt), options);
    std::string line = all[i].prompt + "|" + result.text;
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::printf("  %-13s  %s\n", all[i].name.c_str(), line.c_str());
  }
  constexpr int swaps = 1'000'000;
  const double start = now();
  for (std::size_t i = 0; i < swaps; ++i) adapters.activate(all[i % all.size()].name);
  const double nanoseconds = (now() - start) / swaps * 1e9;
  std::printf("\n  a swap, the look-up by name included: %.0f ns; %zu adapters of %s are in memory beside a base of %s\n", nanoseconds,
              adapters.size(), human_bytes(transformer::bytes(*adapters.active())).c_str(),
              human_bytes(static_cast<long long>(session.model.bytes())).c_str());
}

bool show_merge(Session& session, LoraSet& lora, const Domain& domain) {
  heading("Merged equals unmerged",
          "W + s B A as one dense matrix and W x + s B (A x) are the same function; only rounding tells them apart.");
  const auto& ids = domain.held_out.front().ids;
  session.model.set_compute(lowrank::Compute::fp32);  // bf16 would round the merged weight and its parts differently
  lowrank::Activation<float> unmerged = session.model.logits(ids, 1, {.lora = &lora}).value();
  Transformer merged = transformer::merged(session.model, lora);
  merged.set_compute(lowrank::Compute::fp32);
  const lowrank::Activation<float> logits = merged.logits(ids).value();
  const float largest = logits.cwiseAbs().maxCoeff(), difference = (logits - unmerged).cwiseAbs().maxCoeff();
  session.model.set_compute(session.compute);
  const bool equal = difference <= 1e-4f * largest;
  std::printf("  largest logit %.3f, largest difference %.1e: %s\n", static_cast<double>(largest), static_cast<double>(difference),
              equal ? "equal to rounding" : "NOT EQUAL");
  return equal;
}

void show_ranks(const Options& o, const Domain& domain, double bare) {
  heading(("Rank against full fine-tuning, on " + domain.name).c_str(),
          "The same steps on the same text. Full fine-tuning moves every weight of a dense copy and keeps two numbers of state for each.");
  Table table({"method", "trained", "held-out loss", "seconds", "optimizer state"});
  table.add({"(bare base)", "0", format("%.4f", bare), "", ""});
  for (const Index rank : {Index{4}, Index{8}, Index{16}}) {
    Session session = open_session("demo", o.common, transformer::Base::native, "train");
    LoraSet lora = transformer::new_lora(session.model, config_of_rank(rank), lowrank::LoraInit::kaiming, o.common.seed);
    const Outcome outcome = train_on(session.model, &lora, domain, o, 4e-3, format("rank %ld", static_cast<long>(rank)));
    table.add({format("rank %ld", static_cast<long>(rank)), std::to_string(lowrank::parameter_count(lora)),
               format("%.4f", transformer::evaluate(session.model, &lora, domain.held_out).mean_nll), format("%.1f", outcome.seconds),
               human_bytes(static_cast<long long>(outcome.state_bytes))});
  }
  Session full = open_session("demo", o.common, transformer::Base::fp32, "train");
  full.model.set_trainable(true);
  const Outcome outcome = train_on(full.model, nullptr, domain, o, 1e-3, "full");
  table.add({"full", std::to_string(full.model.parameter_count()),
             format("%.4f", transformer::evaluate(full.model, nullptr, domain.held_out).mean_nll), format("%.1f", outcome.seconds),
             human_bytes(static_cast<long long>(outcome.state_bytes))});
  table.print();
}

void run(const Options& o) {
  const double start = now();
  Session session = open_session("demo", o.common, transformer::Base::native, "train");
  const auto before = transformer::fingerprint(session.model);
  const std::vector<Domain> all = read_domains(session.need_tokenizer());
  std::fprintf(stderr, "training %zu adapters of rank %ld, %ld steps each\n", all.size(), static_cast<long>(o.rank),
               static_cast<long>(o.steps));
  transformer::AdapterSet adapters;
  for (const Domain& domain : all) {
    const auto config = config_of_rank(o.rank);
    LoraSet& lora = adapters.add(domain.name, transformer::new_lora(session.model, config, lowrank::LoraInit::kaiming, o.common.seed));
    train_on(session.model, &lora, domain, o, 4e-3, domain.name);
  }
  LoraSet& first = adapters.at(all.front().name);
  show_sizes(session, first, static_cast<Index>(adapters.size()));
  const auto losses = show_matrix(session, adapters, all);
  show_swaps(session, adapters, all);
  const bool merged_equal = show_merge(session, first, all.front());
  const auto after = transformer::fingerprint(session.model);
  heading("The base after training", "Frozen means that no bit moves: a checksum of every byte of the base before and after.");
  std::printf("  %016llx before, %016llx after: %s\n", static_cast<unsigned long long>(before), static_cast<unsigned long long>(after),
              before == after ? "bit-identical" : "CHANGED");
  show_ranks(o, all[2], losses.back()[2]);
  std::printf("\nDone in %.0f seconds, peak memory %s.\n", now() - start, human_bytes(peak_memory()).c_str());

  auto json = common_report(session, &first);
  json["domains"] = std::vector<const char*>(domains.begin(), domains.end());
  json["held_out_loss"] = losses;
  json["base_unchanged"] = before == after;
  json["merged_equal"] = merged_equal;
  json["seconds"] = now() - start;
  write_json(o.common.json, json);
  lowrank::check<lowrank::Error>(before == after && merged_equal, "demo", "a property above does not hold");
}

}  // namespace demo

void add_demo(Command app) {
  auto o = std::make_shared<demo::Options>();
  Command command = app.add_command("demo", "five adapters on the embedded tiny model, swapped per request");
  command.add_option("--steps", o->steps, "optimizer steps for each adapter").in_range(1, 1 << 20).shows_default();
  add_common(command, o->common);
  command.when_called([o] { demo::run(*o); });
}

}  // namespace cli
