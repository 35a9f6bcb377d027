#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/adapters/combine.hpp>
#include <lowrank/io/peft.hpp>

#include <transformer/open_adapter.hpp>

#include <cli/common.hpp>

namespace cli {
namespace adapter_combine {

using lowrank::RankChoice;

struct Options {
  std::vector<std::string> inputs;
  std::string input, model, base, tuned, out, json, method = "linear", vote = "total", targets = "all-linear";
  Index rank = 0;
  double energy = 0, density = 0.5;
  std::uint64_t seed = 0;
};

std::optional<RankChoice> rank_choice(const Options& o) {
  if (o.rank > 0) return RankChoice::rank(o.rank);
  if (o.energy > 0) return RankChoice::energy(o.energy);
  return std::nullopt;
}

/// An adapter whose modules go by the paths of Hugging Face; one of GGUF with the help of its base.
lowrank::Adapter open_named(const Options& o, const std::filesystem::path& path) {
  if (!o.model.empty()) {
    lowrank::Adapter adapter = transformer::open_adapter(open_config(o.model), path);
    if (!adapter.config.base_model) adapter.config.base_model = o.model;
    return adapter;
  }
  lowrank::check<lowrank::ValueError>(transformer::adapter_format(path) != transformer::AdapterFormat::gguf, "adapter",
                                      lowrank::path_text(path),
                                      " is a GGUF adapter, with names and rows of its own; give its base with --model");
  return transformer::open_adapter(path);
}

void report(const Options& o, const lowrank::FittedAdapter& result) {
  Table table({"module", "rank", "norm of the update", "residual"});
  auto layers = Json::list();
  double wanted = 0, missing = 0;
  for (const auto& [path, fit] : result.fits) {
    table.add({path, std::to_string(fit.rank), format("%.4g", fit.norm), format("%.2e", fit.residual)});
    layers.push_back({{"module", path}, {"rank", fit.rank}, {"update_norm", fit.norm}, {"residual", fit.residual}});
    wanted += fit.norm * fit.norm;
    missing += fit.norm * fit.norm * fit.residual * fit.residual;
  }
  table.print();
  const double residual = wanted > 0 ? std::sqrt(missing / wanted) : 0;
  std::printf("  %s: %zu modules, %ld parameters, %s, residual of all %.2e\n", o.out.c_str(), result.adapter.layers.size(),
              static_cast<long>(result.adapter.parameter_count()), human_bytes(static_cast<long long>(result.adapter.bytes())).c_str(),
              residual);
  for (const std::string& note : result.adapter.notes) std::printf("  note: %s\n", note.c_str());
  write_json(o.json, {{"adapter", o.out},
                      {"adapter_parameters", result.adapter.parameter_count()},
                      {"adapter_bytes", result.adapter.bytes()},
                      {"residual", residual},
                      {"layers", layers}});
}

void save(const Options& o, const lowrank::FittedAdapter& result) {
  lowrank::peft::save(result.adapter, o.out);
  report(o, result);
}

void combine(const Options& o) {
  const auto method = lowrank::CombineMethod::named(o.method);
  std::vector<lowrank::Adapter> adapters;
  std::vector<double> weights;
  for (const std::string& spec : o.inputs) {
    const auto [path, weight] = split_weight(spec, "the weight");
    adapters.push_back(open_named(o, path));
    weights.push_back(weight);
  }
  std::vector<lowrank::WeightedAdapter> weighted;
  for (std::size_t i = 0; i < adapters.size(); ++i) weighted.push_back({&adapters[i], weights[i]});
  save(o, lowrank::combine(weighted, {.method = method,
                                      .rank = rank_choice(o),
                                      .density = o.density,
                                      .vote = o.vote == "total" ? lowrank::SignVote::total : lowrank::SignVote::frequency,
                                      .seed = o.seed}));
}

/// An adapter of another method as LoRA, which it may be over its base.
lowrank::FittedAdapter as_lora(const Options& o, const lowrank::Adapter& adapter, const RankChoice& choice) {
  lowrank::check<lowrank::ValueError>(!o.model.empty(), "adapter resize", "an adapter of type ", adapter.config.peft_type,
                                      " becomes LoRA over its base; give it with --model");
  const Transformer model = transformer::load_model(model_path(o.model));
  lowrank::FittedAdapter result = transformer::to_lora(model, transformer::bind(model, adapter), choice);
  result.adapter.config.base_model = adapter.config.base_model;
  result.adapter.config.task_type = adapter.config.task_type;
  return result;
}

void resize(const Options& o) {
  const auto choice = rank_choice(o);
  lowrank::check<lowrank::ValueError>(choice.has_value(), "adapter resize", "give --rank r, or --energy share");
  const lowrank::Adapter adapter = open_named(o, o.input);
  save(o, adapter.config.peft_type == "LORA" ? lowrank::resize(adapter, *choice) : as_lora(o, adapter, *choice));
}

/// W of a slot in the Hugging Face layout, whatever the file's.
lowrank::Weight<float> weight_of(const Transformer& model, Index slot) {
  lowrank::Weight<float> w = transformer::dense_weight(model.layer(slot));
  if (!transformer::detail::has_interleaved_rows(model, slot)) return w;
  return transformer::detail::reorder_rows(w, model.config.head_size, true);
}

/// What differs between the models but is no linear map, and so is not in the adapter.
void note_other_differences(const Transformer& base, const Transformer& tuned, lowrank::Adapter& adapter) {
  std::vector<const lowrank::Parameter<float>*> before, after;
  base.visit_norms([&](const auto& norm) { before.push_back(&norm); });
  tuned.visit_norms([&](const auto& norm) { after.push_back(&norm); });
  const bool norms = !std::equal(before.begin(), before.end(), after.begin(), after.end(),
                                 [](const auto* a, const auto* b) { return a->value == b->value; });
  if (norms) adapter.notes.push_back("the norms of the models differ, too; an adapter cannot hold that");
  if (transformer::dense_weight(base.embedding) != transformer::dense_weight(tuned.embedding))
    adapter.notes.push_back("the embeddings of the models differ, too; they are not in the adapter");
}

void extract(const Options& o) {
  const auto choice = rank_choice(o);
  lowrank::check<lowrank::ValueError>(choice.has_value(), "adapter extract", "give --rank r, or --energy share");
  const Transformer base = transformer::load_model(model_path(o.base)), tuned = transformer::load_model(model_path(o.tuned));
  lowrank::check<lowrank::ShapeError>(base.slots() == tuned.slots() && base.config.vocabulary == tuned.config.vocabulary, "adapter extract",
                                      o.base, " has ", base.config.layers, " layers and ", base.config.vocabulary, " tokens, ", o.tuned,
                                      " has ", tuned.config.layers, " and ", tuned.config.vocabulary,
                                      "; both models must be of one architecture");
  lowrank::LoraConfig config;
  config.target_modules = transformer::parse_targets(o.targets);
  const std::vector<Index> slots = transformer::target_slots(base, config);
  ensure_writable(o.out, true);  // before minutes of work
  std::vector<std::optional<lowrank::FittedUpdate>> updates(slots.size());
  lowrank::parallel_for(static_cast<Index>(slots.size()), [&](Index i) {
    const auto at = static_cast<std::size_t>(i);
    const lowrank::Weight<float> before = weight_of(base, slots[at]), after = weight_of(tuned, slots[at]);
    if (before.rows() == after.rows() && before.cols() == after.cols() && before == after) return;  // no layer for no change
    updates[at] = lowrank::extract_update(before, after, *choice);
  });
  std::map<std::string, lowrank::FittedUpdate> by_path;
  for (std::size_t i = 0; i < slots.size(); ++i)
    if (updates[i]) by_path[base.config.path(slots[i])] = std::move(*updates[i]);
  lowrank::check<lowrank::ValueError>(!by_path.empty(), "adapter extract", "the models do not differ in any linear map of --targets");
  lowrank::FittedAdapter result = lowrank::to_adapter(by_path);
  result.adapter.config.base_model = o.base;
  result.adapter.config.task_type = "CAUSAL_LM";
  note_other_differences(base, tuned, result.adapter);
  save(o, result);
}

void add_model(Command command, Options& o) {
  command.add_option("--model", o.model, "the base: a .gguf file, a Hugging Face folder, or demo; needed for GGUF adapters");
}

void add_outputs(Command command, Options& o) {
  command.add_option("--out", o.out, "folder for the adapter, as PEFT reads it").required();
  command.add_option("--json", o.json, "writes the table to this file as JSON");
}

void add_rank(Command command, Options& o, const char* rank_help) {
  const Option rank = command.add_option("--rank", o.rank, rank_help).in_range(1, 1 << 16);
  command.add_option("--energy", o.energy, "instead: as few directions as keep this share of each update's squared norm, such as 0.95")
      .in_range(1e-6, 1.0)
      .excludes(rank);
}

}  // namespace adapter_combine

void add_adapter_algebra(Command adapter) {
  auto o = std::make_shared<adapter_combine::Options>();
  Command sum = adapter.add_command("combine", "several adapters as one, each with a weight");
  sum.add_option("adapters", o->inputs, "PEFT or mlx folders or GGUF files, as PATH or PATH:weight; weights may be negative").required();
  sum.add_option("--method", o->method,
                 "concat (exact), linear or svd (nearest of the rank), ties, dare_linear, dare_ties, magnitude_prune; with peft_ in front "
                 "PEFT's own result, such as peft_linear, peft_ties or peft_ties_svd")
      .shows_default();
  adapter_combine::add_rank(sum, *o, "rank of the result; default: the largest of the inputs");
  sum.add_option("--density", o->density, "share of the elements that pruning methods keep").in_range(1e-6, 1.0).shows_default();
  sum.add_option("--sign-vote", o->vote, "ties: signs are elected by sum or by number").one_of({"total", "frequency"}).shows_default();
  sum.add_option("--seed", o->seed, "seed of random dropping").shows_default();
  adapter_combine::add_model(sum, *o);
  adapter_combine::add_outputs(sum, *o);
  sum.when_called([o] { adapter_combine::combine(*o); });

  Command small = adapter.add_command(
      "resize", "an adapter at another rank, each layer as near as that rank allows; of another method (LoHa, VeRA, …) as LoRA");
  small.add_option("adapter", o->input, "a PEFT or mlx folder, or a GGUF file").required();
  adapter_combine::add_rank(small, *o, "rank of the result");
  adapter_combine::add_model(small, *o);
  adapter_combine::add_outputs(small, *o);
  small.when_called([o] { adapter_combine::resize(*o); });

  Command difference = adapter.add_command("extract", "the difference of two models as an adapter");
  difference.add_option("--base", o->base, "a .gguf file, a Hugging Face folder, or demo").required();
  difference.add_option("--tuned", o->tuned, "a model of the same architecture").required();
  difference.add_option("--targets", o->targets, "all-linear, names separated by commas, or a regular expression").shows_default();
  adapter_combine::add_rank(difference, *o, "rank of the adapter");
  adapter_combine::add_outputs(difference, *o);
  difference.when_called([o] { adapter_combine::extract(*o); });
}

}  // namespace cli
