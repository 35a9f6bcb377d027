#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include <lowrank/core/random.hpp>
#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/optim/adamw.hpp>

#include <cli/bench.hpp>

namespace cli {
namespace bench {

/// Reading a prompt at once, and single tokens after a short one.
struct Generation {
  Times prompt, decode;
};

struct Results {
  Generation bare, adapted;  // adapted: with the adapter that was given
  Times training;
  ContextSpeeds contexts;
  bool has_adapter = false;
};

std::vector<std::int32_t> random_ids(const Transformer& model, Index count, std::uint64_t seed) {
  lowrank::Random random(seed);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  for (auto& id : ids) id = static_cast<std::int32_t>(random.below(model.config.vocabulary));
  return ids;
}

/// Runs both once; where it is a warm-up, nothing is kept. Reading the logits waits for the device.
template <class Device>
void generate_once(Transformer& model, LoraSet* lora, const Options& o, bool keep, Generation& into) {
  const auto ids = random_ids(model, std::max({o.prompt, o.tokens, decode_prompt}), o.common.seed);
  const std::span all(ids);
  const auto cache = parse_cache(o.cache);
  transformer::Reader<Device> whole(model, lora, cache), growing(model, lora, cache);
  double start = now();
  whole(all.first(static_cast<std::size_t>(o.prompt)));
  if (keep) into.prompt.seconds.push_back(now() - start);
  growing(all.first(decode_prompt));
  start = now();
  for (Index i = 0; i < o.tokens; ++i) growing(all.subspan(static_cast<std::size_t>(i), 1));
  if (keep) into.decode.seconds.push_back(now() - start);
}

/// With and without the adapter in turn, so that a slow moment of the machine meets both.
template <class Device>
void measure_generation(Transformer& model, LoraSet* lora, const Options& o, Results& results) {
  results.has_adapter = lora != nullptr;
  for (Index i = 0; i <= o.repetitions; ++i) {
    if (lora) generate_once<Device>(model, lora, o, i > 0, results.adapted);
    generate_once<Device>(model, nullptr, o, i > 0, results.bare);
    std::fprintf(stderr, i == 0 ? "generation: warmed up\n" : "generation: %ld of %ld\n", static_cast<long>(i),
                 static_cast<long>(o.repetitions));
  }
}

template <class Device>
void train_steps(Transformer& model, LoraSet& lora, const Options& o, const std::function<void(const transformer::StepReport&)>& done) {
  std::vector<transformer::Example> examples;
  for (Index i = 0; i < o.batch; ++i)
    examples.push_back({random_ids(model, o.sequence + 1, o.common.seed + static_cast<std::uint64_t>(i))});
  const auto parameters = transformer::parameters(model, lora);
  lowrank::AdamW<float> optimizer(parameters, {.learning_rate = 2e-4, .weight_decay = 0});
  const transformer::TrainOptions options{.steps = o.steps + 1,
                                          .batch = o.batch,
                                          .clip_norm = 0,
                                          .schedule = transformer::Schedule::constant,
                                          .recompute = o.recompute,
                                          .seed = o.common.seed};
  transformer::train<Device>(model, &lora, optimizer, parameters, examples, options, done);
}
template void train_steps<lowrank::Cpu>(Transformer&, LoraSet&, const Options&, const std::function<void(const transformer::StepReport&)>&);

/// Steps on the same random batch; the first one warms up.
template <class Device>
void measure_training(Transformer& model, LoraSet& lora, const Options& o, Results& results) {
  Progress progress(o.steps + 1, "training: step");
  train_steps<Device>(model, lora, o, [&](const transformer::StepReport& step) {
    if (step.step > 0) results.training.seconds.push_back(step.seconds);
    progress.show(step.step + 1, step.loss, static_cast<double>(step.tokens) / step.seconds);
  });
}

std::string seconds_text(double seconds) { return seconds < 1 ? format("%.2f ms", 1e3 * seconds) : format("%.3f s", seconds); }

void add_row(Table& table, const std::string& name, const Times& times, Index tokens, Index runs) {
  const double parts = static_cast<double>(runs);
  table.add({name, seconds_text(times.median() / parts),
             seconds_text(times.fastest() / parts) + " to " + seconds_text(times.slowest() / parts), format("%.1f", times.rate(tokens))});
}

void print_table(const Options& o, const Results& results) {
  const auto count = [](Index n) { return std::to_string(n); };
  const std::string prompt = "prompt of " + count(o.prompt) + " tokens";
  const std::string decode = "one of " + count(o.tokens) + " tokens after " + count(decode_prompt);
  Table table({"", "median", "range", "tokens/s"});
  if (results.has_adapter) {
    add_row(table, prompt, results.adapted.prompt, o.prompt);
    add_row(table, prompt + ", no adapter", results.bare.prompt, o.prompt);
    add_row(table, decode, results.adapted.decode, o.tokens, o.tokens);
    add_row(table, decode + ", no adapter", results.bare.decode, o.tokens, o.tokens);
  } else if (!o.skip_generation) {
    add_row(table, prompt, results.bare.prompt, o.prompt);
    add_row(table, decode, results.bare.decode, o.tokens, o.tokens);
  }
  add_context_rows(table, results.contexts);
  if (!o.skip_training)
    add_row(table, "training step, " + count(o.batch) + " x " + count(o.sequence) + " tokens, rank " + count(o.rank), results.training,
            o.batch * o.sequence);
  table.add({"peak memory", human_bytes(peak_memory()), "", ""});
  table.print();
}

/// Numbers of the model that a token is multiplied with: all but an embedding table that is not the head as well.
Index multiplied_parameters(const Transformer& model) {
  const Index table = model.embedding.in_features() * model.embedding.out_features();
  return model.parameter_count() - (model.separate_head ? table : 0);
}

void print_explanation(const Options& o, const Session& session, const LoraSet* adapter, const Results& results) {
  std::printf("\n  %s: %s on %s, %d threads; random tokens.", session.name.c_str(), compute_name(session.compute),
              target_name(session).c_str(), lowrank::thread_count());
  if (!o.skip_generation)
    std::printf(" Generation in %s, medians of %ld runs.", compute_name(resolve_compute(o.common, "generate")),
                static_cast<long>(o.repetitions));
  if (!o.skip_training) std::printf(" A step is forward, backward and AdamW; median of %ld after a warm-up.", static_cast<long>(o.steps));
  std::printf("\n");
  if (o.skip_generation) return;
  const double token = results.bare.decode.median() / static_cast<double>(o.tokens), bytes = static_cast<double>(session.model.bytes());
  std::printf("  A token reads every weight once: %s in %s, %.1f GB/s.\n", human_bytes(static_cast<long long>(bytes)).c_str(),
              seconds_text(token).c_str(), bytes / token * 1e-9);
  print_contexts(results.contexts);
  if (!adapter) return;
  const double share = static_cast<double>(lowrank::parameter_count(*adapter)) / static_cast<double>(multiplied_parameters(session.model));
  std::printf("  The adapter adds %.1f %% to the FLOPs, and %.1f %% to the time of a prompt and %.1f %% to that of a token.\n", 100 * share,
              100 * (results.adapted.prompt.median() / results.bare.prompt.median() - 1),
              100 * (results.adapted.decode.median() / results.bare.decode.median() - 1));
}

/// The speeds, null for what was skipped.
void add_speeds(Json& json, const Options& o, const Results& results) {
  const Generation& main = results.has_adapter ? results.adapted : results.bare;
  json["prompt_tokens_per_second"] = nullptr;
  json["decode_tokens_per_second"] = nullptr;
  json["step_seconds_median"] = nullptr;
  if (!o.skip_generation) {
    json["prompt_tokens_per_second"] = main.prompt.rate(o.prompt);
    json["decode_tokens_per_second"] = main.decode.rate(o.tokens);
    json["prompt_tokens"] = o.prompt;
    json["decode_tokens"] = o.tokens;
    json["generation_compute"] = compute_name(resolve_compute(o.common, "generate"));
  }
  if (results.has_adapter) {
    json["prompt_tokens_per_second_without_adapter"] = results.bare.prompt.rate(o.prompt);
    json["decode_tokens_per_second_without_adapter"] = results.bare.decode.rate(o.tokens);
  }
  if (o.skip_training) return;
  json["step_seconds_median"] = results.training.median();
  json["step_seconds"] = results.training.seconds;
  json["batch"] = o.batch;
  json["sequence"] = o.sequence;
  json["rank"] = o.rank;
}

/// Shortens what the model's context cannot hold, and says so; a sequence to train on is refused, as its length was asked for.
void fit_context(Options& o, Index context) {
  lowrank::check<lowrank::ValueError>(o.skip_training || o.sequence <= context, "bench", "--sequence ", o.sequence,
                                      " exceeds the model's context of ", context);
  if (o.skip_generation) return;
  lowrank::check<lowrank::ValueError>(context > decode_prompt, "bench", "the model's context holds ", context,
                                      " tokens but decoding begins after ", decode_prompt, "; use --skip-generation");
  if (o.prompt > context) std::fprintf(stderr, "the context holds %ld tokens; the prompt is as long\n", static_cast<long>(context));
  o.prompt = std::min(o.prompt, context);
  o.tokens = std::min(o.tokens, context - decode_prompt);
  for (const Index wanted : o.contexts)
    lowrank::check<lowrank::ValueError>(0 < wanted && wanted + o.tokens <= context, "bench", "--context ", wanted, " and ", o.tokens,
                                        " tokens to decode exceed the model's context of ", context, "; shorten one of them");
}

void run(Options o) {
  lowrank::check<lowrank::ValueError>(o.common.compute != "int8" || o.skip_training, "bench",
                                      "int8 is for inference; add --skip-training, or use fp32, bf16 or auto");
  lowrank::check<lowrank::ValueError>(!o.batch_invariant || o.common.device == "cpu", "bench", "--batch-invariant is for the CPU");
  lowrank::check<lowrank::ValueError>(!o.profile || o.common.device == "cpu", "bench", "--profile is for the CPU");
  if (!o.plot.empty()) ensure_writable(o.plot, false);
  std::optional<lowrank::BatchInvariant> invariant;
  if (o.batch_invariant) invariant.emplace();
  Session session = open_session(o.model, o.common, transformer::parse_base(o.base), o.skip_training ? "generate" : "train");
  fit_context(o, session.model.config.context);
  const auto adapter = open_adapters(session.model, o.adapters);
  Results results;
  if (!o.skip_generation) {
    session.model.set_compute(resolve_compute(o.common, "generate"));
    on_device(session, [&](auto device) { measure_generation<decltype(device)>(session.model, adapter.get(), o, results); });
    if (!o.contexts.empty())
      results.contexts =
          measure_contexts(session, adapter.get(), {o.contexts, o.tokens, o.repetitions, parse_cache(o.cache), o.common.seed});
    session.model.set_compute(session.compute);
  }
  LoraSet trained;
  if (!o.skip_training) {
    lowrank::LoraConfig config;
    config.rank = o.rank;
    config.alpha = 2.0 * static_cast<double>(o.rank);
    config.target_modules = transformer::parse_targets("all-linear");
    trained = transformer::new_lora(session.model, config, lowrank::LoraInit::kaiming, o.common.seed);
    on_device(session, [&](auto device) { measure_training<decltype(device)>(session.model, trained, o, results); });
  }
  auto json = common_report(session, o.skip_training ? adapter.get() : &trained);
  json["base"] = o.base;
  add_speeds(json, o, results);
  add_contexts(json, results.contexts);
  plot_contexts(o.plot, session, results.contexts);
  print_table(o, results);
  print_explanation(o, session, adapter.get(), results);
  if (o.profile) print_profile(session, adapter.get(), o.skip_training ? nullptr : &trained, o, json);
  write_json(o.common.json, json);
}

void add_options(Command command, Options& o) {
  const auto number = [&command](const char* name, Index& value, const char* text, int limit) {
    command.add_option(name, value, text).in_range(1, limit).shows_default();
  };
  command.add_option("--model", o.model, "a .gguf file, a Hugging Face folder, or demo").required();
  Option adapter = command.add_option("--adapter", o.adapters, "a PEFT folder, as PATH or PATH:scale: generation with and without it");
  command.add_option("--base", o.base, "format of the frozen base").one_of({"native", "nf4", "fp32", "bf16"}).shows_default();
  number("--batch", o.batch, "sequences of a training step", 1 << 16);
  number("--sequence", o.sequence, "tokens of a sequence", 1 << 24);
  number("--rank", o.rank, "rank of the update that is trained, on all linear layers", 1 << 16);
  number("--steps", o.steps, "training steps to take the median of", 1 << 20);
  using transformer::Recompute;
  command
      .add_choice("--recompute", o.recompute, {{"auto", Recompute::automatic}, {"on", Recompute::always}, {"off", Recompute::never}},
                  "a training step computes blocks again in the backward pass; auto: where it would keep over 256 MiB")
      .shows_default("auto");
  number("--prompt-tokens", o.prompt, "tokens of the prompt", 1 << 24);
  number("--tokens", o.tokens, "single tokens to decode", 1 << 24);
  number("--repetitions", o.repetitions, "runs of prompt and decoding to take the median of", 1 << 16);
  Option contexts =
      command.add_option("--context", o.contexts, "decodes after so many tokens, too: a list separated by commas").separated_by(',');
  command.add_option("--plot", o.plot, "SVG file: tokens/s against context, and what memory allows").needs(contexts);
  add_cache_option(command, o.cache);
  Option skip_training = command.add_flag("--skip-training", o.skip_training, "generation alone: peak memory is its own");
  Option skip_generation = command.add_flag("--skip-generation", o.skip_generation, "training alone: peak memory is its own");
  skip_generation.excludes(skip_training).excludes(adapter).excludes(contexts);
  command.add_flag("--batch-invariant", o.batch_invariant, "a token's numbers do not depend on its neighbours: what that costs");
  command.add_flag("--profile", o.profile, "a table of where the threads' time goes: products, decoding, attention, waiting …");
  add_common(command, o.common, Devices::cpu_and_cuda);
}

}  // namespace bench

void add_bench(Command app) {
  auto options = std::make_shared<bench::Options>();
  Command command = app.add_command("bench", "measures reading a prompt, decoding and a training step");
  bench::add_options(command, *options);
  command.when_called([options] { bench::run(*options); });
}

}  // namespace cli
