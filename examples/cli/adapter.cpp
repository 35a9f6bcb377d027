#include <algorithm>
#include <cstdio>
#include <memory>

#include <lowrank/adapters/spectrum.hpp>

#include <transformer/open_adapter.hpp>

#include <cli/common.hpp>

namespace cli {
namespace adapter_show {

struct Options {
  std::string path, json;
};

/// A layer's rank advice as table cells, and as JSON.
std::vector<std::string> advice_cells(const lowrank::RankAdvice& advice) {
  return {format("%.4g", advice.norm), format("%.1f", advice.effective), std::to_string(advice.rank_90), std::to_string(advice.rank_95),
          std::to_string(advice.rank_99)};
}
Json advice_json(const lowrank::RankAdvice& advice) {
  return {{"update_norm", advice.norm},
          {"effective_rank", advice.effective},
          {"rank_90", advice.rank_90},
          {"rank_95", advice.rank_95},
          {"rank_99", advice.rank_99}};
}

void add_layer(Table& table, Json& layers, const std::string& path, const lowrank::ModuleTensors& layer,
               const lowrank::RankAdvice& advice) {
  std::vector<std::string> row{path, std::to_string(layer.rank()), format("%.4g", layer.scale), std::to_string(layer.in()),
                               std::to_string(layer.out())};
  for (std::string& cell : advice_cells(advice)) row.push_back(std::move(cell));
  table.add(std::move(row));
  Json entry = {{"module", path}, {"rank", layer.rank()}, {"scale", layer.scale}, {"in", layer.in()}, {"out", layer.out()}};
  entry.update(advice_json(advice));
  layers.push_back(std::move(entry));
}

/// Modules of a method whose updates are no W + s B A: their tensors as they are.
void list_tensors(const lowrank::Adapter& adapter, Json& layers) {
  Table table({"module", "tensor", "shape"});
  for (const auto& [path, layer] : adapter.layers) {
    Json tensors = Json::list();
    for (const auto& [name, tensor] : layer.tensors) {
      table.add({path, name, lowrank::shape_text(tensor.shape)});
      tensors.push_back({{"name", name}, {"shape", tensor.shape}});
    }
    layers.push_back({{"module", path}, {"tensors", tensors}});
  }
  table.print();
}

/// Modules with factors: their ranks, and what of them counts.
void list_ranks(const lowrank::Adapter& adapter, Json& layers) {
  Table table({"module", "rank", "scale", "in", "out", "norm", "effective rank", "90 %", "95 %", "99 %"});
  Index widest = 0;
  for (const auto& [path, layer] : adapter.layers) {
    const lowrank::RankAdvice advice = lowrank::rank_advice(lowrank::spectrum(layer));
    add_layer(table, layers, path, layer, advice);
    widest = std::max(widest, advice.rank_99);
  }
  table.print();
  std::printf(
      "  effective rank: exp of the spectrum's entropy; 90 %%, 95 %%, 99 %%: ranks that keep that share of the squared norm.\n"
      "  rank %ld holds 99 %% of every layer: lowrank adapter resize --rank or --energy makes it that small\n",
      static_cast<long>(widest));
}

void info(const Options& o) {
  if (!o.json.empty()) ensure_writable(o.json, false);
  const lowrank::Adapter adapter = transformer::open_adapter(std::filesystem::path(o.path));
  const lowrank::LoraConfig& config = adapter.config;
  const std::string method(lowrank::method_of(config).name);
  std::printf("%s: %s%s, ", o.path.c_str(), method.c_str(), config.use_rslora ? " (rank-stabilized)" : "");
  if (config.peft_type == "LORA")
    std::printf("rank %ld, alpha %g, dropout %g, ", static_cast<long>(config.rank), config.alpha, config.dropout);
  std::printf("base %s%s%s\n", config.base_model.value_or("not named").c_str(), config.needs_base.empty() ? "" : " in ",
              config.needs_base.c_str());
  std::printf("%zu modules, %ld parameters, %s\n\n", adapter.layers.size(), static_cast<long>(adapter.parameter_count()),
              human_bytes(static_cast<long long>(adapter.bytes())).c_str());
  auto layers = Json::list();
  config.peft_type == "LORA" ? list_ranks(adapter, layers) : list_tensors(adapter, layers);
  for (const auto& tensor : adapter.saved)
    std::printf("  full copy: %s %s\n", tensor.name.c_str(), lowrank::shape_text(tensor.shape).c_str());
  for (const std::string& note : adapter.notes) std::printf("  note: %s\n", note.c_str());
  write_json(o.json, {{"adapter", o.path},
                      {"rank", config.rank},
                      {"alpha", config.alpha},
                      {"use_rslora", config.use_rslora},
                      {"method", method},
                      {"adapter_parameters", adapter.parameter_count()},
                      {"adapter_bytes", adapter.bytes()},
                      {"layers", layers}});
}

}  // namespace adapter_show

void add_adapter(Command app) {
  Command command = app.add_command("adapter", "looks into adapters, combines them, changes their rank");
  command.require_command();
  auto o = std::make_shared<adapter_show::Options>();
  Command show = command.add_command("info", "prints what an adapter holds");
  show.add_option("path", o->path, "a PEFT or mlx-lm folder, or a GGUF adapter").required();
  show.add_option("--json", o->json, "writes the same to this file as JSON");
  show.when_called([o] { adapter_show::info(*o); });
  add_adapter_algebra(command);
  add_adapter_convert(command);
  add_adapter_merge(command);
}

}  // namespace cli
