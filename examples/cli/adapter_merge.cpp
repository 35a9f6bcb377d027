#include <cstdio>
#include <algorithm>
#include <cctype>
#include <map>
#include <optional>

#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/imatrix.hpp>
#include <lowrank/io/peft.hpp>

#include <transformer/merge_model.hpp>

#include <cli/common.hpp>

namespace cli {
namespace adapter_merge {

struct Options {
  Common common;
  std::string model, out, residual_out, imatrix;
  std::vector<std::string> adapters;
  transformer::MergeOptions merge;
};

/// Means over the layers that share a module's name, such as q_proj.
void print_kinds(const std::vector<transformer::MergedLayer>& layers) {
  struct Sums {
    double error = 0, survived = 0, changed = 0, count = 0;
  };
  std::map<std::string, Sums> kinds;
  for (const auto& [path, format, report] : layers) {
    Sums& sums = kinds[path.substr(path.rfind('.') + 1)];
    sums.error += report.relative_error, sums.survived += report.survived, sums.changed += report.codes_changed, sums.count += 1;
  }
  Table table({"module", "layers", "error of W'", "update that survived", "numbers changed"});
  for (const auto& [kind, sums] : kinds)
    table.add({kind, format("%.0f", sums.count), format("%.4f", sums.error / sums.count),
               format("%.1f %%", 100 * sums.survived / sums.count), format("%.1f %%", 100 * sums.changed / sums.count)});
  table.print();
}

Json layers_json(const std::vector<transformer::MergedLayer>& layers) {
  auto list = Json::list();
  for (const auto& [path, format, report] : layers)
    list.push_back({{"module", path},
                    {"format", format},
                    {"update_norm", report.update_norm},
                    {"error_norm", report.error_norm},
                    {"relative_error", report.relative_error},
                    {"survived", report.survived},
                    {"codes_changed", report.codes_changed}});
  return list;
}

/// Says which layers could not be stored as asked.
void print_fallbacks(const std::string& to, const std::vector<transformer::MergedLayer>& layers) {
  std::map<std::string, int> others;
  for (const auto& layer : layers) {
    std::string format = layer.format;
    std::transform(format.begin(), format.end(), format.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (to != "same" && format != to && format != "fp" + to.substr(1)) ++others[layer.format];
  }
  for (const auto& [format, count] : others)
    std::printf("  %d layers are stored as %s: their rows do not divide into blocks of %s\n", count, format.c_str(), to.c_str());
}

void save_residual(const Options& o, const Session& session, const transformer::MergedModel& merged) {
  lowrank::LoraConfig config;
  config.rank = o.merge.residual_rank;
  config.alpha = static_cast<double>(config.rank);
  config.base_model = o.out;
  config.task_type = "CAUSAL_LM";
  lowrank::peft::save(transformer::to_adapter(session.model, merged.residual, config), o.residual_out);
  std::printf("  %s: an adapter of rank %ld on %s that gives back the best part of what rounding lost\n", o.residual_out.c_str(),
              static_cast<long>(config.rank), o.out.c_str());
}

void run(const Options& o) {
  lowrank::check<lowrank::ValueError>((o.merge.residual_rank > 0) == !o.residual_out.empty(), "adapter merge",
                                      "--residual RANK and --residual-out DIR belong together");
  const Session session = open_session(o.model, o.common, transformer::Base::native, "evaluate");
  const auto set = open_adapters(session.model, o.adapters);
  if (!o.residual_out.empty()) ensure_writable(o.residual_out, true);
  if (!o.common.json.empty()) ensure_writable(o.common.json, false);
  transformer::MergeOptions merge = o.merge;
  std::optional<lowrank::gguf::ImportanceMatrix> importance;
  if (!o.imatrix.empty()) importance = lowrank::gguf::ImportanceMatrix::open(o.imatrix);
  if (importance) merge.importance = &*importance;
  const auto merged = transformer::merge_model(session.model, *set, model_path(o.model), o.out, merge);
  print_kinds(merged.layers);
  print_fallbacks(o.merge.to, merged.layers);
  std::printf("  %s: %zu layers merged, each sum rounded once\n", o.out.c_str(), merged.layers.size());
  if (o.merge.residual_rank > 0) save_residual(o, session, merged);
  write_json(o.common.json, {{"model", o.model}, {"out", o.out}, {"layers", layers_json(merged.layers)}});
}

}  // namespace adapter_merge

void add_adapter_merge(Command adapter) {
  auto o = std::make_shared<adapter_merge::Options>();
  Command command = adapter.add_command("merge", "writes a copy of a model with adapters in its weights");
  command.add_option("--model", o->model, "a .gguf file, a Hugging Face folder, or demo").required();
  command.add_option("--adapter", o->adapters, "PATH or PATH:scale; several are summed").required();
  command.add_option("--out", o->out, "the copy: a .gguf file, or a folder for a folder").required();
  std::vector<std::string> types = lowrank::gguf::writable_types();
  types.insert(types.begin(), "same");
  command.add_option("--to", o->merge.to, "format of the layers that change; a quantized folder becomes dense as a whole")
      .one_of(types)
      .shows_default();
  command.add_option("--imatrix", o->imatrix, "an importance matrix of llama-imatrix, for ggml's formats");
  command.add_flag("--search", o->merge.search, "scales of NF4 and FP4 layers by search: 5 to 7 % less error");
  command.add_option("--residual", o->merge.residual_rank, "rank of an adapter for what rounding loses").in_range(1, 1 << 16);
  command.add_option("--residual-out", o->residual_out, "folder for that adapter");
  add_common(command, o->common);
  command.when_called([o] { adapter_merge::run(*o); });
}

}  // namespace cli
