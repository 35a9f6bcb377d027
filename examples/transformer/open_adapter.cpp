#include <transformer/open_adapter.hpp>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include <lowrank/io/mlx.hpp>
#include <lowrank/io/peft.hpp>

#include <transformer/architecture.hpp>

namespace transformer {

namespace {

bool has_gguf_magic(const std::filesystem::path& path) {
  const lowrank::Buffer bytes = lowrank::Buffer::map(path);
  return bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
}

/// "blk.3.attn_q.weight" as "model.layers.3.self_attn.q_proj"; a name of another model as it is.
std::string module_path(const std::string& tensor, bool fused) {
  if (tensor == "token_embd.weight") return "model.embed_tokens";
  if (tensor == "output.weight") return "lm_head";
  const std::size_t number = 4, dot = tensor.find('.', number);
  if (!tensor.starts_with("blk.") || dot == std::string::npos) return tensor;
  const ModelConfig config{.fused = fused};
  for (const Projection p : config.projections())
    if (tensor.substr(dot + 1) == std::string(gguf_name(p)) + ".weight")
      return "model.layers." + tensor.substr(number, dot - number + 1) + module_name(p);
  return tensor;
}

/// The base that a GGUF adapter describes by its own tensors.
lowrank::gguf::LoraBase described_base(const lowrank::gguf::File& file) {
  std::map<std::string, lowrank::gguf::LoraModule> modules;
  const auto architecture = file.get<std::string>("general.architecture");
  const auto has_name = [&](const Architecture& family) { return family.name == architecture && family.fused; };
  const bool fused = std::any_of(architectures().begin(), architectures().end(), has_name);
  for (const auto& tensor : file.tensors()) {
    const bool is_a = tensor.name.ends_with(".lora_a");
    if (tensor.shape.size() != 2 || (!is_a && !tensor.name.ends_with(".lora_b"))) continue;
    const std::string base = tensor.name.substr(0, tensor.name.size() - 7);
    auto& module = modules[base];
    module.tensor = base;
    module.path = module_path(base, fused);
    module.is_embedding = base == "token_embd.weight";
    (is_a ? module.in : module.out) = is_a && !module.is_embedding ? tensor.cols() : tensor.rows();
  }
  lowrank::gguf::LoraBase result{architecture, {}};
  for (auto& [name, module] : modules) result.modules.push_back(std::move(module));
  return result;
}

lowrank::Adapter open_folder(AdapterFormat format, const std::filesystem::path& path) {
  return format == AdapterFormat::mlx ? lowrank::mlx::load(path) : lowrank::peft::load(path);
}

}  // namespace

AdapterFormat adapter_format(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  if (is_folder && !std::filesystem::exists(path / "adapter_model.safetensors", ignored) && lowrank::mlx::is_adapter(path))
    return AdapterFormat::mlx;
  if (is_folder) return AdapterFormat::peft;
  const bool exists = std::filesystem::exists(path, ignored);
  lowrank::check<lowrank::IoError>(
      exists && has_gguf_magic(path), "adapter", lowrank::path_text(path), exists ? " is no GGUF file" : " does not exist",
      exists && path.extension() == ".safetensors" ? "; give the folder that it is in, with its adapter_config.json"
                                                   : "; give a folder of PEFT or mlx-lm, or a GGUF adapter");
  return AdapterFormat::gguf;
}

lowrank::gguf::LoraBase gguf_base(const ModelConfig& c) {
  lowrank::gguf::LoraBase base{c.architecture, {{"token_embd.weight", "model.embed_tokens", c.vocabulary, c.hidden, 0, true}}};
  if (!c.tied_head) base.modules.push_back({"output.weight", "lm_head", c.hidden, c.vocabulary});
  const bool permutes = architecture_of(c).gguf_pairs == lowrank::RopePairs::interleaved;
  for (Index s = 0; s < c.head_slot(); ++s) {
    const Projection p = c.projection_of(s);
    const Index heads = !permutes ? 0 : p == Projection::query ? c.heads : p == Projection::key ? c.kv_heads : 0;
    base.modules.push_back(
        {lowrank::concat("blk.", c.layer_of(s), '.', gguf_name(p), ".weight"), c.path(s), c.in_features(p), c.out_features(p), heads});
  }
  return base;
}

std::vector<lowrank::ModuleShape> module_shapes(const ModelConfig& config) {
  std::vector<lowrank::ModuleShape> shapes;
  for (const auto& module : gguf_base(config).modules) shapes.push_back({module.path, module.in, module.out});
  if (config.tied_head) shapes.push_back({"lm_head", config.hidden, config.vocabulary});
  return shapes;
}

lowrank::Adapter open_adapter(const ModelConfig& config, const std::filesystem::path& path) {
  const AdapterFormat format = adapter_format(path);
  if (format == AdapterFormat::gguf) return lowrank::gguf::load_adapter(path, gguf_base(config));
  lowrank::Adapter adapter = open_folder(format, path);
  lowrank::check_fits(adapter, module_shapes(config));
  return adapter;
}

void check_gguf_adapter(const ModelConfig& config, const lowrank::Adapter& adapter, const std::filesystem::path& path) {
  for (const char* module : {"lm_head", "model.embed_tokens"})
    lowrank::check<lowrank::ValueError>(!config.tied_head || !adapter.layers.contains(module), "save_gguf_adapter", "the adapter changes ",
                                        module,
                                        ", and the model's lm_head is its embedding table: a GGUF adapter would change both, or stop "
                                        "llama.cpp; leave it out of the targets, save for PEFT, or merge it");
  lowrank::gguf::check_adapter(adapter, gguf_base(config), path);
}

void save_gguf_adapter(const ModelConfig& config, const lowrank::Adapter& adapter, const std::filesystem::path& path) {
  check_gguf_adapter(config, adapter, path);
  lowrank::gguf::save_adapter(adapter, gguf_base(config), path);
}

lowrank::Adapter open_adapter(const std::filesystem::path& path) {
  const AdapterFormat format = adapter_format(path);
  if (format != AdapterFormat::gguf) return open_folder(format, path);
  const auto file = lowrank::gguf::File::open(path);
  return lowrank::gguf::load_adapter(file, described_base(file));
}

}  // namespace transformer
