#include <cli/finetune.hpp>

#include <cinttypes>
#include <cstdio>
#include <initializer_list>
#include <variant>

/// What a run is known by. Every option of finetune either decides the result, and stands in one of the three tables here, or does not:
/// those are --out, --format, --plot, --json, --verbose, --strict-data, --threads, --recompute (the same bits in other memory),
/// --checkpoint, --checkpoint-every, --resume, and --epochs, which is --steps in other words. tests/cli/check_resume.sh goes through the
/// options of the command and tries each.

namespace cli::finetune {

namespace {

Json names(const lowrank::ModuleNames& modules) {
  if (const auto* list = std::get_if<std::vector<std::string>>(&modules)) return *list;
  if (const auto* text = std::get_if<std::string>(&modules)) return *text;
  return Json::list();
}

template <class T>
Json pairs(const lowrank::Patterns<T>& patterns) {
  std::vector<std::string> texts;
  for (const auto& [name, value] : patterns) texts.push_back(lowrank::concat(name, '=', value));
  return texts;
}

/// The token table's numbers; of several tables with their names.
Json tokens(const std::map<std::string, std::vector<Index>>& trained) {
  if (trained.empty()) return std::vector<Index>{};
  if (trained.size() == 1 && trained.contains("")) return trained.at("");
  std::vector<std::string> texts;
  for (const auto& [table, ids] : trained)
    for (const Index id : ids) texts.push_back(lowrank::concat(table, '=', id));
  return texts;
}

Json contents(std::uint64_t hash) {
  char text[32];
  std::snprintf(text, sizeof text, "contents %016" PRIx64, hash);
  return hash == 0 ? Json() : Json(text);
}

/// A number of LoRA's configuration, or what another method has in its place under one of these keys; null where it has none.
Json number(const lowrank::LoraConfig& config, double of_lora, std::initializer_list<std::string> keys) {
  if (config.peft_type == "LORA") return of_lora;
  for (const std::string& key : keys)
    if (const auto found = config.fields.find(key); found != config.fields.end())
      if (const auto* value = std::get_if<double>(&found->second)) return *value;
  return {};
}

/// What a configuration says of an update, by the option that asks for it.
const struct {
  const char* option;
  Json (*value)(const lowrank::LoraConfig& config);
} update_settings[] = {
    {"--method", [](const auto& c) { return Json(std::string(lowrank::method_of(c).name)); }},
    {"--rank",
     [](const auto& c) {
       return number(c, static_cast<double>(c.rank), {"init_r", "r"});
     }},
    {"--alpha",
     [](const auto& c) {
       return number(c, c.alpha, {"lora_alpha", "alpha"});
     }},
    {"--rslora", [](const auto& c) { return Json(c.use_rslora); }},
    {"--dropout",
     [](const auto& c) {
       return number(c, c.dropout, {"lora_dropout", std::string(lowrank::method_of(c).name) + "_dropout"});
     }},
    {"--lora-bias", [](const auto& c) { return Json(c.lora_bias); }},
    {"--targets", [](const auto& c) { return names(c.target_modules); }},
    {"--exclude", [](const auto& c) { return names(c.exclude_modules); }},
    {"--layers", [](const auto& c) { return Json(c.layers_to_transform); }},
    {"--rank-pattern", [](const auto& c) { return pairs(c.rank_pattern); }},
    {"--alpha-pattern", [](const auto& c) { return pairs(c.alpha_pattern); }},
    {"--modules-to-save", [](const auto& c) { return Json(c.modules_to_save); }},
    {"--trainable-tokens", [](const auto& c) { return tokens(c.trained_tokens); }},
    {"--ensure-weight-tying", [](const auto& c) { return Json(c.ensure_weight_tying); }},
};

/// What else decides a run's result.
const struct {
  const char* option;
  Json (*value)(const Run& run);
} run_settings[] = {
    {"--adapter", [](const Run& r) { return contents(r.adapter); }},
    {"--init", [](const Run& r) { return Json(r.options.init); }},
    {"--init-batches", [](const Run& r) { return Json(r.options.start.batches); }},
    {"--rank-spread", [](const Run& r) { return Json(r.options.start.rank_spread); }},
    {"--freeze-a", [](const Run& r) { return Json(r.options.freeze_a); }},
    {"--lora-plus", [](const Run& r) { return Json(r.options.lora_plus); }},
    {"--learning-rate", [](const Run& r) { return Json(r.options.train.learning_rate); }},
    {"--schedule", [](const Run& r) { return Json(r.options.schedule); }},
    {"--warmup", [](const Run& r) { return Json(r.options.train.warmup); }},
    {"--steps", [](const Run& r) { return r.options.schedule == "constant" ? Json() : Json(r.options.train.steps); }},
    {"--weight-decay", [](const Run& r) { return Json(r.options.train.weight_decay); }},
    {"--clip", [](const Run& r) { return Json(r.options.train.clip_norm); }},
    {"--batch", [](const Run& r) { return Json(r.options.train.batch); }},
    {"--accumulate", [](const Run& r) { return Json(r.options.train.accumulate); }},
    {"--sequence", [](const Run& r) { return Json(r.options.sequence); }},
    {"--packing", [](const Run& r) { return Json(r.options.packing); }},
    {"--special-tokens",
     [](const Run& r) { return Json(r.options.reading.spelled == transformer::SpelledTokens::tokens ? "tokens" : "text"); }},
    {"--eval-every", [](const Run& r) { return Json(r.options.evaluate_every); }},
    {"--keep-best", [](const Run& r) { return Json(r.options.keep_best); }},
    {"--patience", [](const Run& r) { return Json(r.options.patience); }},
    {"--seed", [](const Run& r) { return Json(r.options.common.seed); }},
    {"--compute", [](const Run& r) { return Json(r.compute); }},
    {"--device", [](const Run& r) { return Json(r.options.common.device); }},
    {"--base", [](const Run& r) { return Json(r.options.base); }},
};

/// Hashes of what was read, which say so wherever a file lies, and whatever in it or in a setting changed what came of it.
const struct {
  const char* option;
  std::uint64_t Run::*hash;
} run_contents[] = {{"--model", &Run::base}, {"--data", &Run::data}, {"--evaluation-data", &Run::held_out}};

}  // namespace

std::vector<Setting> settings(const Run& run) {
  std::vector<Setting> all;
  for (const auto& [option, value] : run_settings) all.push_back({option, value(run).line()});
  for (const auto& [option, value] : update_settings) all.push_back({option, value(run.config).line()});
  for (const auto& [option, hash] : run_contents) all.push_back({option, contents(run.*hash).line(), true});
  return all;
}

void check_same_update(const Command& command, Options o, const lowrank::LoraConfig& saved) {
  if (!command.is_given("--method")) o.method = lowrank::method_of(saved).name;
  const lowrank::LoraConfig asked = lora_config(o);
  for (const auto& [option, value] : update_settings) {
    const std::string own = value(saved).line(), given = value(asked).line();
    lowrank::check<lowrank::ValueError>(!command.is_given(option) || own == given, "adapter", o.adapter, " has ", option, ' ', own,
                                        ", and ", option, ' ', given,
                                        " is given; it keeps its own: leave the option away, or begin without --adapter");
  }
}

}  // namespace cli::finetune
