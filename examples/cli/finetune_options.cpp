#include <cli/finetune.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace cli::finetune {

namespace {

/// How much is read.
void add_length_options(Command command, Options& o) {
  Option steps = command.add_option("--steps", o.train.steps, "optimizer steps").in_range(1, 1 << 30).shows_default();
  command.add_option("--epochs", o.epochs, "instead of --steps: as many as go through the data so often").positive().excludes(steps);
  command.add_option("--batch", o.train.batch, "sequences a pass").in_range(1, 1 << 16).shows_default();
  command
      .add_option("--accumulate", o.train.accumulate,
                  "passes a step: the gradient of so many times --batch sequences, in the memory of --batch")
      .in_range(1, 1 << 16)
      .shows_default();
  command.add_option("--sequence", o.sequence, "tokens a sequence").in_range(1, 1 << 24).shows_default();
  command
      .add_option("--packing", o.packing,
                  "texts that share a sequence: none, walls (attention and positions begin anew with each) or stream (a text sees those "
                  "before it)")
      .one_of({"none", "walls", "stream"})
      .shows_default();
}

/// How the numbers move.
void add_training_options(Command command, Options& o) {
  command.add_option("--learning-rate", o.learning_rate, "peak learning rate of AdamW, or auto: what is usual for the model's width")
      .number_or("auto")
      .shows_default();
  command.add_option("--warmup", o.train.warmup, "steps of linear warm-up").not_negative().shows_default();
  command.add_option("--schedule", o.schedule, "learning rate after warm-up").one_of({"linear", "cosine", "constant"}).shows_default();
  command.add_option("--weight-decay", o.train.weight_decay, "decoupled weight decay").not_negative().shows_default();
  command.add_option("--clip", o.train.clip_norm, "largest norm of the gradient; 0: none").not_negative().shows_default();
  using transformer::Recompute;
  command
      .add_choice("--recompute", o.train.recompute, {{"auto", Recompute::automatic}, {"on", Recompute::always}, {"off", Recompute::never}},
                  "keeps a block's input only, and computes the block again in the backward pass; auto: where it would keep over 256 MiB")
      .shows_default("auto");
}

/// What a run leaves and looks at on its way.
void add_course_options(Command command, Options& o) {
  command.add_option("--checkpoint", o.checkpoint, "folder for checkpoints");
  command.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints").in_range(1, 1 << 30).shows_default();
  command.add_flag("--resume", o.resume, "goes on from the checkpoint in --checkpoint");
  Option every = command.add_option("--eval-every", o.evaluate_every, "steps between evaluations on held-out text; 0: before and after")
                     .in_range(0, 1 << 30)
                     .shows_default();
  command.add_flag("--keep-best", o.keep_best, "saves the adapter of the evaluation with the least loss, not the last one").needs(every);
  command.add_option("--patience", o.patience, "ends the run after so many evaluations without a smaller loss; 0: never")
      .in_range(0, 1 << 30)
      .needs(every);
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
  command.add_option("--modules-to-save", o.save_modules,
                     "ends of names of modules that are trained as full copies, such as lm_head or norm");
  command
      .add_option("--trainable-tokens", o.tokens, "tokens by their numbers, separated by commas: their rows of the token table are trained")
      .separated_by(',');
  command.add_flag("--ensure-weight-tying", o.tie, "a head that is the token table follows the table's copy or update");
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

}  // namespace

void add_options(Command command, Options& o) {
  command.add_option("--model", o.model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--data", o.data, "text, or records of text, or of prompt and completion, as JSON lines, a JSON array or CSV")
      .required();
  command.add_option("--evaluation-data", o.evaluation_data, "held-out data; default: a tenth of --data");
  add_data_options(command, o.reading);
  command.add_option("--out", o.out, "folder (peft) or file (gguf) for the adapter").required();
  command.add_option("--format", o.format, "how the adapter is saved").one_of({"peft", "gguf"}).shows_default();
  command.add_option("--adapter", o.adapter, "goes on from a saved adapter: its rank, targets and method stay as they are");
  command.add_option("--base", o.base, "format of the frozen base").one_of({"native", "nf4", "fp32", "bf16"}).shows_default();
  add_update_options(command, o);
  add_length_options(command, o);
  add_training_options(command, o);
  add_course_options(command, o);
  add_common(command, o.common, Devices::cpu_and_cuda);
}

namespace {

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

std::vector<std::string> module_list(const std::string& text, const char* option) {
  const auto names = transformer::parse_targets(text);
  lowrank::check<lowrank::ValueError>(std::holds_alternative<std::vector<std::string>>(names), option, '"', text,
                                      "\": give names between commas, such as lm_head");
  return std::get<std::vector<std::string>>(names);
}

}  // namespace

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
  if (!o.tokens.empty()) config.trained_tokens[""] = o.tokens;
  config.ensure_weight_tying = o.tie;
  if (!o.save_modules.empty()) config.modules_to_save = module_list(o.save_modules, "--modules-to-save");
  return config;
}

void check_options(const Options& o) {
  using lowrank::check, lowrank::ValueError;
  check<ValueError>(!o.resume || !o.checkpoint.empty(), "finetune", "--resume needs --checkpoint DIR");
  check<ValueError>(o.evaluate_every > 0 || (!o.keep_best && o.patience == 0), "finetune",
                    "--keep-best and --patience go by evaluations; give --eval-every STEPS");
  check<ValueError>(o.init != "loftq" || o.base == "nf4", "finetune",
                    "--init loftq makes up for rounding the base; give --base nf4 and a model that is not quantized yet");
  check<ValueError>(o.init != "loftq" || o.format == "peft", "finetune",
                    "--init loftq makes an adapter for an NF4 base, which no GGUF file is; leave --format away");
  check<ValueError>(o.adapter.empty() || o.init == "default", "finetune", "--adapter begins with what was saved, and --init ", o.init,
                    " with something else; leave one of them away");
}

namespace {

/// The rate that LoRA learns well with on average over models: ten times full fine-tuning's, which falls with the width, fast in models of
/// the Llama shape and slowly in Qwen's. Schulman et al. 2025, "LoRA Without Regret", as its training code has it.
double usual_rate(const transformer::ModelConfig& model, const lowrank::LoraConfig& update) {
  const std::string method(lowrank::method_of(update).name);
  lowrank::check<lowrank::ValueError>(method == "lora" || method == "dora", "finetune",
                                      "--learning-rate auto goes by what was measured with lora; give ", method, " a number");
  const double exponent = model.architecture.starts_with("qwen") ? 0.0775 : 0.781;
  const double rate = 10 * 5e-5 * std::pow(2000.0 / static_cast<double>(model.hidden), exponent);
  std::fprintf(stderr, "learning rate %.3g: 10 x full fine-tuning's, 5e-5 (2000 / %ld)^%g for %s\n", rate, static_cast<long>(model.hidden),
               exponent, model.architecture.c_str());
  return rate;
}

}  // namespace

void settle(Options& o, const lowrank::LoraConfig& config, const Transformer& model, const transformer::Dataset& data) {
  o.train.seed = o.common.seed;
  o.train.schedule = o.schedule == "cosine"   ? transformer::Schedule::cosine
                     : o.schedule == "linear" ? transformer::Schedule::linear
                                              : transformer::Schedule::constant;
  o.train.pack.packing = o.packing == "walls"    ? transformer::Packing::walls
                         : o.packing == "stream" ? transformer::Packing::stream
                                                 : transformer::Packing::none;
  o.train.pack.tokens = o.sequence;
  o.train.learning_rate = o.learning_rate == "auto" ? usual_rate(model.config, config) : std::strtod(o.learning_rate.c_str(), nullptr);
  if (o.epochs == 0) return;
  const auto rows = static_cast<double>(transformer::make_rows(data.train, o.train.pack).size());
  const auto a_step = static_cast<double>(o.train.batch * o.train.accumulate);
  o.train.steps = std::max<Index>(1, static_cast<Index>(std::ceil(o.epochs * rows / a_step)));
  std::fprintf(stderr, "%g epochs of %.0f sequences: %ld steps of %.0f\n", o.epochs, rows, static_cast<long>(o.train.steps), a_step);
}

}  // namespace cli::finetune
