#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <sstream>

#include <lowrank/io/peft.hpp>
#include <lowrank/optim/adamw.hpp>

#include <transformer/initialize_lora.hpp>
#include <transformer/save_gguf.hpp>
#include <transformer/train.hpp>

#include <cli/checkpoint.hpp>
#include <cli/common.hpp>

namespace cli {
namespace finetune {

struct Options {
  Common common;
  std::string model, data, evaluation_data, out, format = "peft", base = "native", targets = "all-linear", method = "lora",
                                                 init = "default";
  std::string checkpoint, plot, schedule = "linear";
  Index rank = 16, sequence = 128, checkpoint_every = 50;
  std::string exclude, save_modules, rank_pattern, alpha_pattern;
  std::vector<Index> layers;
  double alpha = 0, dropout = 0, lora_plus = 1;
  bool rslora = false, lora_bias = false, freeze_a = false, resume = false;
  transformer::TrainOptions train;
  transformer::StartOptions start;

  /// What a checkpoint's run is known by: a beginning that changes the base is part of it.
  std::string model_key() const { return init == "default" || init == "gaussian" ? model : model + " --init " + init; }
};

void add_training_options(Command command, Options& o) {
  command.add_option("--steps", o.train.steps, "optimizer steps").in_range(1, 1 << 30).shows_default();
  command.add_option("--batch", o.train.batch, "sequences a step").in_range(1, 1 << 16).shows_default();
  command.add_option("--sequence", o.sequence, "tokens a sequence").in_range(1, 1 << 24).shows_default();
  command.add_option("--learning-rate", o.train.learning_rate, "peak learning rate of AdamW").positive().shows_default();
  command.add_option("--warmup", o.train.warmup, "steps of linear warm-up").not_negative().shows_default();
  command.add_option("--schedule", o.schedule, "learning rate after warm-up").one_of({"linear", "cosine", "constant"}).shows_default();
  command.add_option("--weight-decay", o.train.weight_decay, "decoupled weight decay").not_negative().shows_default();
  command.add_option("--clip", o.train.clip_norm, "largest norm of the gradient; 0: none").not_negative().shows_default();
  using transformer::Recompute;
  command
      .add_choice("--recompute", o.train.recompute, {{"auto", Recompute::automatic}, {"on", Recompute::always}, {"off", Recompute::never}},
                  "keeps a block's input only, and computes the block again in the backward pass; auto: where it would keep over 256 MiB")
      .shows_default("auto");
  command.add_option("--checkpoint", o.checkpoint, "folder for checkpoints");
  command.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints").in_range(1, 1 << 30).shows_default();
  command.add_flag("--resume", o.resume, "goes on from the checkpoint in --checkpoint");
  command.add_option("--plot", o.plot, "writes the loss curve to this .svg file");
}

/// What is trained: kind, size, place and beginning of the update.
void add_update_options(Command command, Options& o) {
  command.add_option("--rank", o.rank, "rank of the update").in_range(1, 1 << 16).shows_default();
  command.add_option("--alpha", o.alpha, "scale of the update is alpha / rank; default: twice the rank").positive();
  command.add_option("--targets", o.targets, "all-linear, names separated by commas (q_proj,v_proj), or a regular expression")
      .shows_default();
  command.add_option("--exclude", o.exclude, "modules that --targets names but that are left out, in the same way");
  command.add_option("--layers", o.layers, "numbers of the layers to adapt, separated by commas; default: all").separated_by(',');
  command.add_option("--rank-pattern", o.rank_pattern, "ranks of single modules, such as q_proj=4,layers.0.mlp.down_proj=32");
  command.add_option("--alpha-pattern", o.alpha_pattern, "the same for alpha");
  command.add_option("--modules-to-save", o.save_modules, "modules that are trained as full copies, such as lm_head");
  std::vector<std::string> trained;
  for (const lowrank::Method& method : lowrank::methods()) trained.emplace_back(method.name);
  command.add_option("--method", o.method, "kind of update: low-rank, or with trained row lengths besides (dora)")
      .one_of(trained)
      .shows_default();
  command.add_flag("--lora-bias", o.lora_bias, "trains a bias of B, too");
  command.add_flag("--freeze-a", o.freeze_a, "trains B alone, which keeps A x only (LoRA-FA)");
  command.add_option("--lora-plus", o.lora_plus, "learning rate of B as a multiple of A's (LoRA+)").positive().shows_default();
  command.add_flag("--rslora", o.rslora, "scale is alpha / sqrt(rank)");
  command
      .add_option(
          "--init", o.init,
          "start of the update: drawn A and B = 0 (default, gaussian), orthogonal, by the weight (pissa, pissa_fast, olora), by its "
          "rounding to nf4 (loftq), by the data (eva, lora_ga)")
      .one_of({"default", "gaussian", "orthogonal", "pissa", "pissa_fast", "olora", "loftq", "eva", "lora_ga"})
      .shows_default();
  command.add_option("--init-batches", o.start.batches, "batches that eva and lora_ga look at").in_range(1, 1 << 16).shows_default();
  command.add_option("--rank-spread", o.start.rank_spread, "eva: above 1, layers share the ranks by need, up to so many times --rank each")
      .in_range(1.0, 64.0)
      .shows_default();
  command.add_option("--dropout", o.dropout, "share of the adapter's input that is dropped in training")
      .in_range(0.0, 0.99)
      .shows_default();
}

void add_options(Command command, Options& o) {
  command.add_option("--model", o.model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--data", o.data, "a text file, or .jsonl with text, or with prompt and completion").required();
  command.add_option("--evaluation-data", o.evaluation_data, "held-out data; default: a tenth of --data");
  command.add_option("--out", o.out, "folder (peft) or file (gguf) for the adapter").required();
  command.add_option("--format", o.format, "how the adapter is saved").one_of({"peft", "gguf"}).shows_default();
  command.add_option("--base", o.base, "format of the frozen base").one_of({"native", "nf4", "fp32", "bf16"}).shows_default();
  add_update_options(command, o);
  add_training_options(command, o);
  add_common(command, o.common, Devices::cpu_and_cuda);
}

/// NAME=number, between commas.
template <class T>
lowrank::Patterns<T> parse_patterns(const std::string& text, const char* option) {
  lowrank::Patterns<T> patterns;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto equals = part.rfind('=');
    char* end = nullptr;
    const double number = equals == std::string::npos ? 0 : std::strtod(part.c_str() + equals + 1, &end);
    const bool is_good =
        end && equals > 0 && *end == '\0' && number > 0 && number <= 65536 && number == static_cast<double>(static_cast<T>(number));
    lowrank::check<lowrank::ValueError>(is_good, option, '"', part, "\" is not of the form name=number, such as q_proj=8");
    const std::string key = part.substr(0, equals);
    lowrank::check<lowrank::ValueError>(std::none_of(patterns.begin(), patterns.end(), [&](const auto& p) { return p.first == key; }),
                                        option, '"', key, "\" is given twice; keep one");
    patterns.emplace_back(key, static_cast<T>(number));
  }
  return patterns;
}

/// --rank, --alpha and --dropout by the names that a method has for them; what it lacks it does without. OFT's r would be a number of
/// blocks.
void set_fields(const Options& o, lowrank::LoraConfig& config) {
  for (const lowrank::Field& field : lowrank::method_of(config).fields()) {
    const bool is_rank = field.key == "init_r" || (field.key == "r" && field.standard != lowrank::FieldValue(0.0));
    if (is_rank) config.fields[std::string(field.key)] = static_cast<double>(config.rank);
    if (field.key == "lora_alpha" || field.key == "alpha") config.fields[std::string(field.key)] = config.alpha;
    if (field.key == "lora_dropout" || field.key == o.method + "_dropout") config.fields[std::string(field.key)] = config.dropout;
  }
}

lowrank::LoraConfig lora_config(const Options& o) {
  lowrank::LoraConfig config;
  config.rank = o.rank;
  config.alpha = o.alpha > 0 ? o.alpha : 2.0 * static_cast<double>(o.rank);
  config.dropout = o.dropout;
  config.use_rslora = o.rslora;
  config.base_model = o.model;
  config.task_type = "CAUSAL_LM";
  lowrank::set_method(config, o.method);
  if (config.peft_type != "LORA") {
    lowrank::check<lowrank::ValueError>(!o.rslora && !o.lora_bias && !o.freeze_a, "finetune",
                                        "--rslora, --lora-bias and --freeze-a belong to ", "--method lora and dora; leave them away with ",
                                        o.method);
    set_fields(o, config);
  }
  config.lora_bias = o.lora_bias;
  config.target_modules = transformer::parse_targets(o.targets);
  if (!o.exclude.empty()) config.exclude_modules = transformer::parse_targets(o.exclude);
  config.layers_to_transform = o.layers;
  config.rank_pattern = parse_patterns<Index>(o.rank_pattern, "--rank-pattern");
  config.alpha_pattern = parse_patterns<double>(o.alpha_pattern, "--alpha-pattern");
  if (!o.save_modules.empty()) {
    const auto names = transformer::parse_targets(o.save_modules);
    lowrank::check<lowrank::ValueError>(std::holds_alternative<std::vector<std::string>>(names), "--modules-to-save", '"', o.save_modules,
                                        "\": give names between commas, such as lm_head");
    config.modules_to_save = std::get<std::vector<std::string>>(names);
  }
  return config;
}

transformer::Dataset load_datasets(const Options& o, const Tokenizer& tokenizer) {
  transformer::Dataset data = transformer::load_data(tokenizer, o.data, o.sequence);
  if (!o.evaluation_data.empty()) data.held_out = transformer::load_evaluation(tokenizer, o.evaluation_data, o.sequence);
  return data;
}

struct Course {
  std::vector<double> losses, seconds;
  double tokens = 0;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Trains and keeps checkpoints; returns what happened in this run and, from the checkpoint, before it.
Course run_training(const Options& o, Session& session, LoraSet& lora, const transformer::Dataset& data) {
  auto parameters = transformer::parameters(session.model, lora);
  const auto is_b = [](const auto& parameter) { return parameter.name.find("lora_B") != std::string::npos || parameter.cols == 1; };
  const auto first_b = std::stable_partition(parameters.begin(), parameters.end(), std::not_fn(is_b));
  const lowrank::AdamWOptions rates{.learning_rate = o.train.learning_rate, .weight_decay = o.train.weight_decay};
  lowrank::AdamW<float> optimizer({parameters.begin(), first_b}, rates);
  lowrank::AdamWOptions b_rates = rates;
  b_rates.learning_rate *= o.lora_plus;
  optimizer.add_group({first_b, parameters.end()}, b_rates);
  Course course;
  Index first = 0;
  if (o.resume)
    first = load_checkpoint(o.checkpoint, run_key(o.model_key(), o.data, o.train, o.sequence), parameters, optimizer, course.losses);
  for (auto& update : lora.slots)
    if (auto* dropout = update.dropout()) dropout->stream = static_cast<std::uint64_t>(first);  // one mask a step
  Progress progress(o.train.steps, "step");
  const auto show = [&](const transformer::StepReport& step) {
    course.losses.push_back(step.loss);
    course.seconds.push_back(step.seconds);
    course.tokens += static_cast<double>(step.tokens);
    progress.show(step.step + 1, step.loss, static_cast<double>(step.tokens) / step.seconds);
    const bool due = (step.step + 1) % o.checkpoint_every == 0 || step.step + 1 == o.train.steps;
    if (!o.checkpoint.empty() && due)
      save_checkpoint(o.checkpoint, run_key(o.model_key(), o.data, o.train, o.sequence), parameters, optimizer, course.losses);
  };
  transformer::TrainOptions options = o.train;
  if (!o.checkpoint.empty()) options.read_every = o.checkpoint_every;
  on_device(session, [&](auto device) {
    transformer::train<decltype(device)>(session.model, &lora, optimizer, parameters, data.train, options, show, first);
  });
  return course;
}

void save(const Options& o, const Session& session, const transformer::StartedLora& started, lowrank::LoraConfig config) {
  const LoraSet lora = transformer::plain_lora(started, config);  // for the base as its file has it
  if (o.format == "gguf") return transformer::save_gguf_adapter(session.model, lora, o.out);
  lowrank::peft::save(transformer::to_adapter(session.model, lora, config), o.out);
}

void report(const Options& o, const Session& session, LoraSet& lora, const Course& course, double before, double after, bool has_held_out) {
  double seconds = 0;
  for (const double step : course.seconds) seconds += step;
  auto json = common_report(session, &lora);
  json["steps"] = o.train.steps;
  json["loss_first"] = course.losses.front();
  json["loss_last"] = course.losses.back();
  json["loss_curve"] = course.losses;
  json["evaluation_loss_before"] = has_held_out ? Json(before) : Json();
  json["evaluation_loss_after"] = has_held_out ? Json(after) : Json();
  json["seconds"] = seconds;
  json["step_seconds_median"] = median(course.seconds);
  json["tokens_per_second"] = seconds > 0 ? course.tokens / seconds : 0;
  Table table({"", "before", "after"});
  table.add({"loss of a training batch", format("%.4f", course.losses.front()), format("%.4f", course.losses.back())});
  if (has_held_out) table.add({"loss on held-out text", format("%.4f", before), format("%.4f", after)});
  table.print();
  const Index trained = lowrank::trainable_parameters(lora), all = session.model.parameter_count() + lowrank::parameter_count(lora);
  std::printf("  %s trained %ld of %ld parameters (%.2f %%), %.3f s a step, peak memory %s\n", o.out.c_str(), static_cast<long>(trained),
              static_cast<long>(all), 100.0 * static_cast<double>(trained) / static_cast<double>(all), median(course.seconds),
              human_bytes(peak_memory()).c_str());
  write_json(o.common.json, json);
}

/// The set as --init says; afterwards the base is in the format of --base.
transformer::StartedLora start(const Options& o, Session& session, lowrank::LoraConfig& config, const transformer::Dataset& data) {
  transformer::StartOptions options = o.start;
  options.start = transformer::parse_start(o.init);
  options.seed = o.common.seed;
  options.batch = o.train.batch;
  const bool is_loftq = options.start == transformer::LoraStart::loftq;
  transformer::StartedLora started = transformer::start_lora(session.model, config, options, data.train);
  if (is_loftq) {  // its targets are NF4 already, and stay the same to the bit
    transformer::convert_base(session.model, transformer::parse_base(o.base));
    session.model.set_compute(session.compute);
  }
  return started;
}

void run(const Options& given) {
  Options o = given;
  o.train.seed = o.common.seed;
  o.train.schedule = o.schedule == "cosine"   ? transformer::Schedule::cosine
                     : o.schedule == "linear" ? transformer::Schedule::linear
                                              : transformer::Schedule::constant;
  lowrank::check<lowrank::ValueError>(!o.resume || !o.checkpoint.empty(), "finetune", "--resume needs --checkpoint DIR");
  const bool is_loftq = o.init == "loftq";
  lowrank::check<lowrank::ValueError>(!is_loftq || o.base == "nf4", "finetune",
                                      "--init loftq makes up for rounding the base; give --base nf4 and a model that is not quantized yet");
  Session session = open_session(o.model, o.common, transformer::parse_base(is_loftq ? "native" : o.base), "train");
  lowrank::check<lowrank::ValueError>(o.sequence <= session.model.config.context, "finetune", "--sequence ", o.sequence,
                                      " exceeds the model's context of ", session.model.config.context);
  const transformer::Dataset data = load_datasets(o, session.need_tokenizer());
  lowrank::LoraConfig config = lora_config(o);
  transformer::StartedLora started = start(o, session, config, data);
  LoraSet& lora = started.lora;
  if (o.freeze_a)
    for (Index s = 0; s < session.model.slots(); ++s)
      if (lora.at(s) && lora.at(s)->lora()) lora.at(s)->lora()->a.trainable = false;
  ensure_writable(o.out, o.format == "peft");
  if (o.format == "gguf") transformer::check_gguf_adapter(session.model, lora, o.out);
  for (const std::string& path : {o.plot, o.common.json})
    if (!path.empty()) ensure_writable(path, false);
  const bool has_held_out = !data.held_out.empty();
  if (!has_held_out) std::fprintf(stderr, "no held-out text: %s is too short to hold a part back\n", o.data.c_str());
  const auto held_out_loss = [&] {
    if (!has_held_out) return 0.0;
    return on_device(session,
                     [&](auto device) { return transformer::evaluate<decltype(device)>(session.model, &lora, data.held_out).mean_nll; });
  };
  const double before = held_out_loss();
  const Course course = run_training(o, session, lora, data);
  const double after = held_out_loss();
  save(o, session, started, config);  // not before: an update that gives no finite loss replaces nothing
  if (!o.plot.empty()) write_text(o.plot, loss_svg(course.losses, "Training loss"));
  report(o, session, lora, course, before, after, has_held_out);
}

}  // namespace finetune

void add_finetune(Command app) {
  auto options = std::make_shared<finetune::Options>();
  Command command = app.add_command("finetune", "trains a low-rank adapter on a frozen model and saves it");
  finetune::add_options(command, *options);
  command.when_called([options] { finetune::run(*options); });
}

}  // namespace cli
