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

TEST_CASE("scales by search lose less, and are refused where there are none") {
  const TemporaryFolder folder;
  const fs::path source = golden_folder / "tiny_llama_nf4";
  const Transformer model = load_model(source);
  const LoraSet set = bind(model, lowrank::peft::load(golden_folder / "adapters/lora_r8"));
  const auto error = [&](bool search) {
    const auto result = merge_model(model, set, source, folder / "nf4", {.search = search});
    double sum = 0;
    for (const auto& [path, report] : result.layers) sum += report.error_norm * report.error_norm;
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
  CHECK_THROWS_WITH_AS(load_model(folder / "m"), doctest::Contains("says attention_bias false, but the weights have a"), FormatError);
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
