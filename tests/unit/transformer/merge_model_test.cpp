#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/io/gguf.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>

#include <transformer/data.hpp>
#include <transformer/initialize.hpp>
#include <transformer/load.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/merge_model.hpp>
#include <transformer/merged_weight.hpp>
#include <transformer/save_gguf.hpp>

#include <support/files.hpp>

#include "transformer_support.hpp"

using namespace transformer;
using lowrank::test::TemporaryFolder;
using transformer_test::distance;
using transformer_test::golden_folder;
namespace fs = std::filesystem;

namespace {

std::vector<std::int32_t> some_ids() {
  std::vector<std::int32_t> ids;
  lowrank::Random random(5);
  for (int i = 0; i < 24; ++i) ids.push_back(static_cast<std::int32_t>(random.below(256)));
  return ids;
}

Activation<float> some_logits(Transformer& model, LoraSet* set) { return model.logits(some_ids(), 1, {.lora = set}).value(); }

/// tiny_llama with the table for its head.
void make_tied(const fs::path& folder, bool keeps_copy) {
  fs::create_directories(folder);
  std::vector<lowrank::StoredTensor> tensors;
  const auto file = lowrank::safetensors::File::open(golden_folder / "tiny_llama/model.safetensors");
  for (const auto& tensor : file.tensors())
    if (tensor.name != "lm_head.weight" || keeps_copy) tensors.push_back(tensor);
  lowrank::safetensors::write(folder / "model.safetensors", tensors);
  auto config = lowrank::json::parse(read_text(golden_folder / "tiny_llama/config.json"), "test", "config.json");
  config["tie_word_embeddings"] = true;
  config["dtype"] = "bfloat16";
  lowrank::test::write_file(folder / "config.json", config.dump());
}

/// A byte-level model in Q4_1 with a tied head in Q8_0.
void make_gguf(const fs::path& path) {
  ModelConfig config{.vocabulary = 257, .hidden = 32, .layers = 2, .heads = 2, .kv_heads = 1, .head_size = 16, .rope = {}};
  config.intermediate = 64, config.context = 32, config.tied_head = true;
  config.rope = {16, 10000, lowrank::RopePairs::interleaved, {}};
  Transformer model = random_model(config, 1);
  for (Index s = 0; s < model.head_slot(); ++s) model.layer(s).base.get_if<lowrank::Linear<float>>()->weight().value *= 8;
  save_byte_model(model, "small", path);
}

/// Everything that an adapter may bring: updates of projections, of the table, of the head, and full copies.
LoraSet moved_set(const Transformer& model, std::vector<std::string> targets, std::vector<std::string> saved) {
  lowrank::LoraConfig config{.rank = 4, .alpha = 6, .target_modules = std::move(targets)};
  config.modules_to_save = std::move(saved);
  LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, 2);
  std::uint64_t stream = 0;
  const auto add_noise = [&](lowrank::Weight<float>& w) {
    lowrank::Weight<float> noise(w.rows(), w.cols());
    fill_normal(noise, 0.05, lowrank::Random(3, stream++));
    w += noise;
  };
  for (std::size_t slot = 0; slot + 1 < set.slots.size(); ++slot)
    if (set.slots[slot]) add_noise(set.slots[slot].lora()->b.value);
  if (set.slots.back()) add_noise(set.slots.back().lora()->a.value);
  for (auto& [slot, copy] : set.copies) add_noise(copy.base.get_if<lowrank::Linear<float>>()->weight().value);
  return set;
}

/// What is written computes what model and set do; gives the report.
MergedModel check_merge(const fs::path& source, LoraSet& set, const MergeOptions& options, double tolerance) {
  Transformer model = load_model(source);
  const auto expected = some_logits(model, &set);
  CHECK(distance(some_logits(model, nullptr), expected) > 5 * tolerance);
  const TemporaryFolder folder;
  const fs::path out = folder / (fs::is_directory(source) ? "merged" : "merged.gguf");
  MergedModel result = merge_model(model, set, source, out, options);
  Transformer again = load_model(out);
  CHECK(distance(some_logits(again, nullptr), expected) < tolerance);
  if (options.residual_rank > 0) {
    const Adapter rest = to_adapter(again, result.residual, {.rank = options.residual_rank, .alpha = double(options.residual_rank)});
    LoraSet bound = bind(again, rest);
    CHECK(distance(some_logits(again, &bound), expected) < 0.8 * distance(some_logits(again, nullptr), expected));
  }
  Transformer in_memory = merged(model, set);
  CHECK(distance(some_logits(in_memory, nullptr), expected) < 1e-5);
  return result;
}

/// tiny_llama with one layer packed as GPTQ does: codes 0 … 15, scale and zero for 32 inputs.
void make_packed(const fs::path& folder, const std::string& layer) {
  fs::create_directories(folder);
  std::vector<lowrank::StoredTensor> tensors;
  const auto file = lowrank::safetensors::File::open(golden_folder / "tiny_llama/model.safetensors");
  lowrank::Random random(8);
  for (const auto& tensor : file.tensors()) {
    if (tensor.name != layer + ".weight") {
      tensors.push_back(tensor);
      continue;
    }
    const Index out = tensor.shape[0], in = tensor.shape[1];
    const auto words = [&](const char* part, std::vector<Index> shape) {
      std::vector<std::int32_t> values(static_cast<std::size_t>(shape[0] * shape[1]));
      for (auto& value : values) value = static_cast<std::int32_t>(random.bits());
      tensors.push_back(lowrank::make_tensor<std::int32_t>(layer + part, shape, values));
    };
    words(".qweight", {in / 8, out}), words(".qzeros", {in / 32, out / 8});
    const std::vector<float> scales(static_cast<std::size_t>(in / 32 * out), 0.02f);
    tensors.push_back(lowrank::make_tensor<float>(layer + ".scales", {in / 32, out}, scales));
  }
  lowrank::safetensors::write(folder / "model.safetensors", tensors);
  auto config = lowrank::json::parse(read_text(golden_folder / "tiny_llama/config.json"), "test", "config.json");
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 32}};
  lowrank::test::write_file(folder / "config.json", config.dump());
}

}  // namespace

TEST_CASE("a folder with an adapter of PEFT merged into it: LoRA, DoRA, biases, a copy of the head, an update of the token table") {
  const fs::path source = golden_folder / "tiny_llama";
  const Transformer model = load_model(source);
  for (const char* name : {"lora_r8", "dora_r8", "lora_bias_r8", "save_head_r8", "embed_r4"}) {
    CAPTURE(name);
    LoraSet set = bind(model, lowrank::peft::load(golden_folder / "adapters" / name));
    check_merge(source, set, {}, 1e-5);
    check_merge(source, set, {.to = "bf16"}, 2e-2);
  }
}

TEST_CASE("a tied head becomes one of its own where it and the table part, in folders and in GGUF files") {
  const TemporaryFolder folder;
  make_tied(folder / "tied", false), make_tied(folder / "copy", true);
  make_gguf(folder / "tied.gguf");
  for (const char* name : {"tied", "copy", "tied.gguf"}) {
    CAPTURE(name);
    const Transformer model = load_model(folder / name);
    for (const auto& [targets, saved] : {std::pair<std::vector<std::string>, std::vector<std::string>>{{"q_proj", "embed_tokens"}, {}},
                                         {{"q_proj", "lm_head"}, {}},
                                         {{"v_proj", "embed_tokens", "lm_head"}, {}},
                                         {{"k_proj"}, {"embed_tokens"}},
                                         {{"up_proj"}, {"lm_head", "layers.0.mlp.down_proj"}},
                                         {{"q_proj"}, {}}}) {
      CAPTURE(targets.back());
      LoraSet set = moved_set(model, targets, saved);
      check_merge(folder / name, set, {.to = "f32"}, 1e-5);
    }
  }
  Transformer model = load_model(folder / "tied");
  LoraSet set = moved_set(model, {"embed_tokens"}, {});
  merge_model(model, set, folder / "tied", folder / "out", {.to = "f32"});
  const auto config = lowrank::json::parse(read_text(folder / "out/config.json"), "test", "config.json");
  CHECK(config["tie_word_embeddings"] == false);
  CHECK(config["dtype"] == "float32");
  const auto out = lowrank::safetensors::File::open(folder / "out/model.safetensors"),
             tied = lowrank::safetensors::File::open(folder / "tied/model.safetensors");
  CHECK(lowrank::to_weight(out.at("lm_head.weight")) == lowrank::to_weight(tied.at("model.embed_tokens.weight")));
}

TEST_CASE("quantized bases keep their format where it is the same, and a residual adapter brings back what rounding lost") {
  const TemporaryFolder folder;
  make_gguf(folder / "m.gguf");
  const Transformer model = load_model(folder / "m.gguf");
  LoraSet set = moved_set(model, {"q_proj", "down_proj", "embed_tokens", "lm_head"}, {"v_proj"});
  const MergedModel result = check_merge(folder / "m.gguf", set, {.residual_rank = 8}, 0.2);
  CHECK(result.layers.size() == 8);  // 3 of each block, table and head
  merge_model(model, set, folder / "m.gguf", folder / "out.gguf", {});
  const auto file = lowrank::gguf::File::open(folder / "out.gguf");
  CHECK(file.tensor("blk.0.attn_v.weight").type == lowrank::GgmlType::q4_1);
  CHECK(file.tensor("token_embd.weight").type == lowrank::GgmlType::q8_0);
  CHECK(file.tensor("output.weight").type == lowrank::GgmlType::q8_0);
}

TEST_CASE("a GGUF file becomes any type that is written, and says where rows do not divide into its blocks") {
  const TemporaryFolder folder;
  make_gguf(folder / "m.gguf");
  const Transformer model = load_model(folder / "m.gguf");
  LoraSet set = moved_set(model, {"q_proj", "down_proj"}, {});
  const MergedModel result = check_merge(folder / "m.gguf", set, {.to = "q6_k"}, 0.03);  // rows of 32 and 64: Q8_0
  for (const auto& layer : result.layers) CHECK(layer.format == "Q8_0");
  merge_model(model, set, folder / "m.gguf", folder / "out.gguf", {.to = "iq4_nl"});
  CHECK(lowrank::gguf::File::open(folder / "out.gguf").tensor("blk.1.attn_q.weight").type == lowrank::GgmlType::iq4_nl);
  CHECK_THROWS_WITH_AS(merge_model(model, set, folder / "m.gguf", folder / "x.gguf", {.to = "iq1_s"}), doctest::Contains("--to iq1_s"),
                       lowrank::ValueError);
}

TEST_CASE("a folder of bitsandbytes becomes dense as a whole") {
  const TemporaryFolder folder;
  const fs::path source = golden_folder / "tiny_llama_nf4";
  Transformer model = load_model(source);
  LoraSet set = bind(model, lowrank::peft::load(golden_folder / "adapters/lora_qv_r4"));
  const MergedModel result = check_merge(source, set, {.to = "f32"}, 1e-5);
  CHECK(result.layers.size() == 4);  // q and v of two blocks; the others are only decoded
  merge_model(model, set, source, folder / "dense", {.to = "bf16"});
  const auto config = lowrank::json::parse(read_text(folder / "dense/config.json"), "test", "config.json");
  CHECK_FALSE(config.contains("quantization_config"));
  const auto file = lowrank::safetensors::File::open(folder / "dense/model.safetensors");
  for (const auto& tensor : file.tensors()) CHECK(tensor.name.find(".weight.") == std::string::npos);
  CHECK(file.at("model.layers.1.mlp.up_proj.weight").dtype == lowrank::DType::bf16);
  Transformer dense = load_model(folder / "dense");
  CHECK(distance(some_logits(dense, nullptr), some_logits(model, &set)) < 2e-2);
}

TEST_CASE("a folder of GPTQ is read, and merged into a dense one") {
  const TemporaryFolder folder;
  const std::string layer = "model.layers.0.self_attn.q_proj";
  make_packed(folder / "m", layer);
  const Transformer model = load_model(folder / "m");
  const auto& query = model.layer(model.slot(0, Projection::query));
  CHECK(query.base.get_if<lowrank::SourceLinear<lowrank::AnyMatrix>>()->weight().format() == "gptq");
  LoraSet set = moved_set(model, {"q_proj"}, {});
  check_merge(folder / "m", set, {.to = "f32"}, 1e-5);
  CHECK_THROWS_WITH_AS(merge_model(model, set, folder / "m", folder / "x", {}), doctest::Contains("--to bf16 writes the model dense"),
                       lowrank::ValueError);
  LoraSet other = moved_set(model, {"k_proj"}, {});
  check_merge(folder / "m", other, {}, 1e-5);  // what is packed stays
  auto config = lowrank::json::parse(read_text(folder / "m/config.json"), "test", "config.json");
  config.erase("quantization_config");
  lowrank::test::write_file(folder / "m/config.json", config.dump());
  CHECK_THROWS_WITH_AS(load_model(folder / "m"), doctest::Contains("no quantization_config of GPTQ or AWQ"), lowrank::FormatError);
}

TEST_CASE("scales by search lose less, and are refused where there are none") {
  const TemporaryFolder folder;
  const fs::path source = golden_folder / "tiny_llama_nf4";
  const Transformer model = load_model(source);
  const LoraSet set = bind(model, lowrank::peft::load(golden_folder / "adapters/lora_r8"));
  const auto error = [&](bool search) {
    const auto result = merge_model(model, set, source, folder / "nf4", {.search = search});
    double sum = 0;
    for (const auto& [path, format, report] : result.layers) sum += report.error_norm * report.error_norm;
    CHECK(load_folder(folder / "nf4").slots() == model.slots());
    return sum;
  };
  CHECK(error(true) < 0.95 * error(false));
  make_gguf(folder / "m.gguf");
  const auto refuses = [&](const fs::path& path) {
    const Transformer other = load_model(path);
    const LoraSet some = moved_set(other, {"q_proj"}, {});
    CHECK_THROWS_WITH_AS(merge_model(other, some, path, folder / "x", {.search = true}), doctest::Contains("--search"),
                         lowrank::ValueError);
  };
  refuses(golden_folder / "tiny_llama"), refuses(folder / "m.gguf");
}

TEST_CASE("biases of updates: added to the base's, or new ones in the way of both formats") {
  const TemporaryFolder folder;
  fs::create_directories(folder / "m");
  std::vector<lowrank::StoredTensor> tensors = lowrank::safetensors::File::open(golden_folder / "tiny_llama/model.safetensors").tensors();
  const std::vector<float> bias(64, 0.25f);
  for (const char* layer : {"0", "1"})
    for (const auto& [module, size] : {std::pair("q", 64), std::pair("k", 32), std::pair("v", 32), std::pair("o", 64)})
      tensors.push_back(lowrank::make_tensor<float>(lowrank::concat("model.layers.", layer, ".self_attn.", module, "_proj.bias"), {size},
                                                    std::vector<float>(static_cast<std::size_t>(size), *module == 'q' ? 0.25f : 0.0f)));
  lowrank::safetensors::write(folder / "m/model.safetensors", tensors);
  auto source_config = lowrank::json::parse(lowrank::test::read_file(golden_folder / "tiny_llama/config.json"), "test", "config.json");
  lowrank::test::write_file(folder / "m/config.json", lowrank::json::text_of(source_config));
  CHECK_THROWS_WITH_AS(load_model(folder / "m"), doctest::Contains("says attention_bias false, but the weights have a"),
                       lowrank::FormatError);
  source_config["attention_bias"] = true;
  lowrank::test::write_file(folder / "m/config.json", lowrank::json::text_of(source_config));
  make_gguf(folder / "m.gguf");
  const auto set_for = [](const Transformer& model, std::vector<std::string> targets) {
    lowrank::LoraConfig config{.rank = 2, .alpha = 4, .lora_bias = true, .target_modules = std::move(targets)};
    LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, 1);
    for (auto& update : set.slots)
      if (update) update.lora()->bias.value.setConstant(-0.5f);
    return set;
  };
  for (const char* name : {"m", "m.gguf"}) {
    CAPTURE(name);
    const Transformer model = load_model(folder / name);
    LoraSet set = set_for(model, {"q_proj", "v_proj"}), head = set_for(model, {"lm_head"});
    check_merge(folder / name, set, {.to = "f32"}, 1e-5);
    CHECK_THROWS_WITH_AS(merge_model(model, head, folder / name, folder / "x", {}), doctest::Contains("the update has a bias"),
                         lowrank::ValueError);
    CHECK(!fs::exists(folder / "x"));
  }
  const Transformer model = load_model(folder / "m");
  merge_model(model, set_for(model, {"up_proj"}), folder / "m", folder / "out", {});
  const auto config = lowrank::json::parse(read_text(folder / "out/config.json"), "test", "config.json");
  CHECK(config["attention_bias"] == true);
  CHECK(config["mlp_bias"] == true);
  const auto file = lowrank::safetensors::File::open(folder / "out/model.safetensors");
  CHECK(lowrank::to_floats(file.at("model.layers.1.self_attn.q_proj.bias")) == bias);
  CHECK(lowrank::to_floats(file.at("model.layers.1.mlp.gate_proj.bias")).front() == 0);
  CHECK(lowrank::to_floats(file.at("model.layers.1.mlp.up_proj.bias")).front() == -0.5f * 2);
}
