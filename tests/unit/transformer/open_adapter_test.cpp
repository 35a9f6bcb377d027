#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/mlx.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>

#include <transformer/adapters.hpp>
#include <transformer/initialize.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/open_adapter.hpp>
#include <transformer/save_gguf.hpp>

#include <support/files.hpp>

#include "transformer_support.hpp"

using lowrank::Adapter;
using lowrank::Index;
using lowrank::test::TemporaryFolder;
using transformer::AdapterFormat;
using transformer_test::golden_folder;

namespace {

lowrank::Weight<float> update(const lowrank::ModuleTensors& layer) {
  return static_cast<float>(layer.scale) * lowrank::to_weight(layer.b()) * lowrank::to_weight(layer.a());
}

void check_same_update(const Adapter& a, const Adapter& b) {
  REQUIRE(a.layers.size() == b.layers.size());
  for (const auto& [path, layer] : a.layers) CHECK_MESSAGE(update(layer).isApprox(update(b.layers.at(path)), 1e-6f), path);
}

/// The same adapter as mlx-lm saves it.
void save_as_mlx(const Adapter& adapter, const std::filesystem::path& folder) {
  std::vector<lowrank::StoredTensor> tensors;
  for (const auto& [path, layer] : adapter.layers) {
    tensors.push_back(lowrank::from_weight(path + ".lora_a", lowrank::to_weight(layer.a()).transpose()));
    tensors.push_back(lowrank::from_weight(path + ".lora_b", lowrank::to_weight(layer.b()).transpose()));
  }
  std::filesystem::create_directories(folder);
  lowrank::safetensors::write(folder / "adapters.safetensors", tensors);
  const auto& first = adapter.layers.begin()->second;
  lowrank::test::write_file(folder / "adapter_config.json",
                            lowrank::concat(R"({"num_layers": -1, "lora_parameters": {"rank": )", first.rank(), R"(, "scale": )",
                                            first.scale, R"(, "dropout": 0.0}})"));
}

}  // namespace

TEST_CASE("adapters are opened by their content, in every format, with the same update") {
  const auto config = transformer::folder_config(golden_folder / "tiny_llama");
  const TemporaryFolder folder;
  for (const char* name : {"lora_r8", "rslora_r16", "patterns", "lora_qv_r4"}) {
    CAPTURE(name);
    const Adapter peft = transformer::open_adapter(config, golden_folder / "adapters" / name);
    lowrank::gguf::save_adapter(peft, transformer::gguf_base(config), folder / "an.adapter");
    CHECK(transformer::adapter_format(folder / "an.adapter") == AdapterFormat::gguf);
    const Adapter gguf = transformer::open_adapter(config, folder / "an.adapter");
    check_same_update(peft, gguf);
    lowrank::peft::save(gguf, folder / name);
    check_same_update(peft, transformer::open_adapter(config, folder / name));
  }
  const Adapter peft = transformer::open_adapter(golden_folder / "adapters/lora_r8");
  save_as_mlx(peft, folder / "mlx");
  CHECK(transformer::adapter_format(folder / "mlx") == AdapterFormat::mlx);
  CHECK(transformer::adapter_format(golden_folder / "adapters/lora_r8") == AdapterFormat::peft);
  check_same_update(peft, transformer::open_adapter(config, folder / "mlx"));
  CHECK(transformer::open_adapter(folder / "an.adapter").layers.contains("model.layers.0.self_attn.q_proj"));
}

TEST_CASE("what is no adapter, or one of another base, is refused with the first mismatch") {
  const auto config = transformer::folder_config(golden_folder / "tiny_llama");
  const TemporaryFolder folder;
  lowrank::test::write_file(folder / "text", "hello");
  const auto refused = [&](const std::filesystem::path& path, const char* part) {
    const std::string complaint = lowrank::test::complaint([&] { transformer::open_adapter(config, path); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  };
  refused(folder / "missing", "does not exist");
  refused(folder / "text", "is no GGUF file");
  refused(folder.path(), "adapter_config.json");
  auto other = config;
  other.layers = 1;
  const Adapter adapter = transformer::open_adapter(config, golden_folder / "adapters/lora_r8");
  lowrank::gguf::save_adapter(adapter, transformer::gguf_base(config), folder / "x.gguf");
  save_as_mlx(adapter, folder / "mlx");
  for (const auto& path : {golden_folder / "adapters/lora_r8", folder / "x.gguf", folder / "mlx"}) {
    CAPTURE(path.string());
    CHECK_THROWS_AS(transformer::open_adapter(other, path), lowrank::ShapeError);
  }
  other = config;
  other.intermediate = 96;
  CHECK_THROWS_WITH_AS(transformer::open_adapter(other, folder / "x.gguf"),
                       doctest::Contains("\"blk.0.ffn_down.weight.lora_a\" is [8, 160] but must be [8, 96]"), lowrank::ShapeError);
}

TEST_CASE("a model given as an adapter, an adapter as a model, and files of other kinds are told what they are") {
  const auto config = transformer::folder_config(golden_folder / "tiny_llama");
  const TemporaryFolder folder;
  const auto refused = [&](const auto& open, const char* part) {
    const std::string complaint = lowrank::test::complaint(open);
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  };
  const auto adapter_refused = [&](const std::filesystem::path& path, const char* part) {
    refused([&] { transformer::open_adapter(config, path); }, part);
  };
  const auto model_refused = [&](const std::filesystem::path& path, const char* part) {
    refused([&] { transformer::load_model(path); }, part);
  };
  lowrank::gguf::Metadata metadata{{"general.architecture", std::string("llama")}};
  const auto tensor = lowrank::make_tensor<float>("token_embd.weight", {1, 1}, std::vector<float>{1});
  const lowrank::gguf::Tensor table{tensor.name, lowrank::GgmlType::f32, tensor.shape, tensor.bytes};
  lowrank::gguf::write(folder / "model.gguf", metadata, {&table, 1});
  adapter_refused(folder / "model.gguf", "general.type is not there but must be \"adapter\"; is this a model?");
  lowrank::gguf::save_adapter(transformer::open_adapter(config, golden_folder / "adapters/lora_r8"), transformer::gguf_base(config),
                              folder / "a.gguf");
  model_refused(folder / "a.gguf", "give it as the adapter");
  adapter_refused(golden_folder / "tiny_llama", "is the folder of a model");
  model_refused(golden_folder / "adapters/lora_r8", "is the folder of an adapter");
  adapter_refused(golden_folder / "adapters/lora_r8/adapter_model.safetensors", "give the folder that it is in");
  const std::pair<const char*, const char*> kinds[] = {{"pytorch_model.bin", "holds pytorch_model.bin, a pickle"},
                                                       {"pytorch_model-00001-of-00002.bin", "safe_serialization=True"},
                                                       {"consolidated.safetensors", "holds consolidated.safetensors"},
                                                       {"consolidated.00.pth", "holds consolidated.00.pth"},
                                                       {"x-Q4_K_M.gguf", "holds x-Q4_K_M.gguf; give that file"},
                                                       {"model-00001-of-00002.safetensors", "no model.safetensors.index.json"}};
  for (const auto& [name, part] : kinds)
    for (const bool has_config : {true, false}) {
      CAPTURE(name);
      const TemporaryFolder model;
      if (has_config) std::filesystem::copy(golden_folder / "tiny_llama/config.json", model / "config.json");
      lowrank::test::write_file(model / name, "x");
      model_refused(model.path(), part);
    }
  const TemporaryFolder bare;
  std::filesystem::copy(golden_folder / "tiny_llama/model.safetensors", bare / "model.safetensors");
  model_refused(bare.path(), "has no config.json");
}

TEST_CASE("a trained set is saved as GGUF and opened again, unless it changes a table that is the head, too") {
  transformer::ModelConfig config{.vocabulary = 257, .hidden = 32, .layers = 1, .heads = 2, .kv_heads = 1, .head_size = 16, .rope = {}};
  config.intermediate = 64, config.context = 32, config.tied_head = true;
  for (const auto pairs : {lowrank::RopePairs::interleaved, lowrank::RopePairs::halves}) {
    config.rope = {16, 10000, pairs, {}};
    const transformer::Transformer model = transformer::random_model(config, 1);
    lowrank::LoraConfig lora{.rank = 2, .alpha = 3, .target_modules = std::string("all-linear")};
    transformer::LoraSet set = transformer::new_lora(model, lora, lowrank::LoraInit::kaiming, 0);
    for (auto& slot : set.slots)
      if (slot) slot.lora()->b.value.setRandom();
    const TemporaryFolder folder;
    transformer::save_gguf_adapter(model, set, folder / "x.gguf");
    const transformer::LoraSet again = transformer::bind(model, transformer::open_adapter(config, folder / "x.gguf"));
    for (std::size_t s = 0; s < set.slots.size(); ++s) {
      REQUIRE(static_cast<bool>(set.slots[s]) == static_cast<bool>(again.slots[s]));
      if (!set.slots[s]) continue;
      CHECK(again.slots[s].lora()->a.value == set.slots[s].lora()->a.value);
      CHECK(again.slots[s].lora()->b.value == set.slots[s].lora()->b.value);
      CHECK(again.slots[s].lora()->scale == set.slots[s].lora()->scale);
    }
    for (const char* name : {"lm_head", "embed_tokens"}) {
      lora.target_modules = std::vector<std::string>{name};
      const transformer::LoraSet other = transformer::new_lora(model, lora, lowrank::LoraInit::kaiming, 0);
      CHECK_THROWS_WITH_AS(transformer::save_gguf_adapter(model, other, folder / "y.gguf"),
                           doctest::Contains("lm_head is its embedding table"), lowrank::ValueError);
    }
  }
}
