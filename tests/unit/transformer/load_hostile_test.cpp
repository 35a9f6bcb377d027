#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/safetensors.hpp>

#include <transformer/adapters.hpp>
#include <transformer/generate.hpp>
#include <transformer/initialize.hpp>
#include <transformer/load.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/save_gguf.hpp>
#include <transformer/train.hpp>

#include <support/files.hpp>

using lowrank::FormatError;
using lowrank::Index;
using lowrank::ValueError;
using lowrank::test::TemporaryFolder;
namespace gguf = lowrank::gguf;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

transformer::ModelConfig small_config() {
  transformer::ModelConfig config{.vocabulary = 257, .hidden = 32, .layers = 1, .heads = 2, .kv_heads = 1, .head_size = 16, .rope = {}};
  config.intermediate = 64, config.context = 32;
  config.rope = {16, 10000, lowrank::RopePairs::interleaved, {}};
  return config;
}

/// A small model's file, taken apart; `path` gets it put together again.
struct SmallFile {
  TemporaryFolder folder;
  gguf::Metadata metadata;
  std::vector<gguf::Tensor> tensors;

  SmallFile() {
    transformer::save_byte_model(transformer::random_model(small_config(), 1), "small", folder / "original.gguf");
    const auto file = gguf::File::open(folder / "original.gguf");
    metadata = file.metadata();
    tensors = file.tensors();
  }
  void set(const std::string& key, gguf::Value value) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    metadata.emplace_back(key, std::move(value));
  }
  std::filesystem::path path() const {
    gguf::write(folder / "changed.gguf", metadata, tensors);
    return folder / "changed.gguf";
  }
};

void refuses(const SmallFile& file, const char* reason) {
  CHECK_THROWS_WITH_AS(transformer::load_gguf(file.path()), doctest::Contains(reason), FormatError);
}

nlohmann::json tiny_config() {
  return nlohmann::json::parse(lowrank::test::read_file(std::string(LOWRANK_GOLDEN_DIR) + "/tiny_llama/config.json"));
}

void refuses_config(const nlohmann::json& config, const char* reason) {
  const TemporaryFolder folder;
  lowrank::test::write_file(folder / "config.json", config.dump());
  CAPTURE(config.dump());
  CHECK_THROWS_WITH_AS(transformer::folder_config(folder.path()), doctest::Contains(reason), FormatError);
}

}  // namespace

TEST_CASE("a small GGUF model loads, and its damaged variants are refused by name") {
  CHECK(transformer::load_gguf(SmallFile().path()).config.hidden == 32);
  SmallFile file;
  file.set("llama.attention.key_length", std::uint32_t{1} << 31);
  file.set("llama.rope.dimension_count", std::uint32_t{1} << 31);
  file.set("llama.rope.scaling.type", std::string("linear"));
  file.set("llama.rope.scaling.factor", 2.0f);
  refuses(file, "head size 2147483648; at most 65536");  // before a table of that size is made
}

TEST_CASE("RoPE settings of a GGUF file must be positive and finite") {
  for (const float value : {0.0f, -1.0f, infinity, std::nanf("")}) {
    SmallFile scaled, based;
    scaled.set("llama.rope.scaling.type", std::string("linear"));
    scaled.set("llama.rope.scaling.factor", value);
    refuses(scaled, "llama.rope.scaling.factor");
    based.set("llama.rope.freq_base", value);
    refuses(based, "llama.rope.freq_base");
  }
}

TEST_CASE("texts of a GGUF file appear in errors short and printable") {
  for (const char* key : {"general.architecture", "general.type", "llama.rope.scaling.type"}) {
    SmallFile file;
    file.set(key, "a\nb\xff" + std::string(5000, 'x'));
    const std::string complaint = lowrank::test::complaint([&] { transformer::load_gguf(file.path()); });
    CHECK_MESSAGE(complaint.find("a?b?x") != complaint.npos, complaint);
    CHECK(complaint.size() < 400);
  }
  SmallFile file;
  file.tensors.push_back({"odd\n" + std::string(5000, 'y'), lowrank::GgmlType::f32, {1}, lowrank::Buffer::allocate(4)});
  const std::string complaint = lowrank::test::complaint([&] { transformer::load_gguf(file.path()); });
  CHECK_MESSAGE(complaint.find("unexpected tensor \"odd?y") != complaint.npos, complaint);
  CHECK(complaint.size() < 400);
}

TEST_CASE("a GGUF matrix with a scale that is not finite is refused by name and row") {
  for (const char* name : {"token_embd.weight", "blk.0.ffn_down.weight"}) {
    SmallFile file;
    for (gguf::Tensor& tensor : file.tensors) {
      if (tensor.name != name) continue;
      const auto [type_name, block, block_bytes] = lowrank::ggml_traits(tensor.type);
      lowrank::Buffer bytes = lowrank::Buffer::allocate(tensor.bytes.size());
      std::memcpy(bytes.mutable_as<std::byte>(), tensor.bytes.data(), bytes.size());
      const std::uint16_t nan = 0x7E00;
      std::memcpy(bytes.mutable_as<std::byte>() + 7 * (tensor.cols() / block) * block_bytes, &nan, sizeof(nan));
      tensor.bytes = bytes;
    }
    refuses(file, (std::string(name) + " holds numbers in row 7 that are not finite").c_str());
  }
}

TEST_CASE("config.json: sizes and RoPE settings without sense are refused before anything is made of them") {
  auto config = tiny_config();
  config.erase("rope_parameters");
  config["head_dim"] = std::int64_t{1} << 31;
  config["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8.0}};
  refuses_config(config, "head size 2147483648; at most 65536");
  config = tiny_config();
  config.erase("rope_parameters");
  config["rope_theta"] = 0;
  refuses_config(config, "rope_theta is 0");
  config["rope_theta"] = -5.0;
  refuses_config(config, "rope_theta is -5");
  config = tiny_config();
  config["model_type"] = "a\nb" + std::string(5000, 'x');
  refuses_config(config, "a?bxxx");
}

TEST_CASE("a GGUF vector in a quantized type is refused by name") {
  SmallFile file;
  for (gguf::Tensor& tensor : file.tensors)
    if (tensor.name == "blk.0.attn_norm.weight") tensor = {tensor.name, lowrank::GgmlType::q8_0, {32}, lowrank::Buffer::allocate(34)};
  refuses(file, "tensor blk.0.attn_norm.weight is Q8_0 but vectors must be F32, F16 or BF16");
  for (gguf::Tensor& tensor : file.tensors)
    if (tensor.name == "blk.0.attn_norm.weight") tensor = {tensor.name, lowrank::GgmlType::f64, {32}, lowrank::Buffer::allocate(256)};
  refuses(file, "is F64 but vectors must be");
  SmallFile headless;
  headless.set("llama.attention.head_count", std::uint32_t{0});
  refuses(headless, "llama.attention.head_count is 0; it must be positive");
}

TEST_CASE("config.json: a model without heads is refused with what is needed") {
  auto config = tiny_config();
  config["num_attention_heads"] = 0;
  refuses_config(config, "num_attention_heads is 0; it must be positive");
}

TEST_CASE("a folder's tensor whose name only begins like a known one is left over") {
  const std::filesystem::path golden = std::filesystem::path(LOWRANK_GOLDEN_DIR) / "tiny_llama_nf4";
  const TemporaryFolder folder;
  std::filesystem::copy(golden / "config.json", folder / "config.json");
  std::vector<lowrank::StoredTensor> tensors = lowrank::safetensors::File::open(golden / "model.safetensors").tensors();
  tensors.push_back(lowrank::make_tensor<float>("model.layers.0.mlp.up_proj.weight_old", {1}, std::vector<float>{1}));
  lowrank::safetensors::write(folder / "model.safetensors", tensors);
  CHECK_THROWS_WITH_AS(transformer::load_folder(folder.path()),
                       doctest::Contains("unexpected tensor \"model.layers.0.mlp.up_proj.weight_old\""), FormatError);
}

TEST_CASE("an index of shards names files of its own folder") {
  const std::filesystem::path golden = std::filesystem::path(LOWRANK_GOLDEN_DIR) / "tiny_llama";
  const TemporaryFolder folder;
  std::filesystem::copy(golden / "config.json", folder / "config.json");
  const std::string zero("a\0b", 3);
  for (const std::string& name : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                                  std::string("../model.safetensors"), zero, std::string(256, 'x')}) {
    CAPTURE(name);
    const nlohmann::json index{{"weight_map", {{"lm_head.weight", name}}}};
    lowrank::test::write_file(folder / "model.safetensors.index.json", index.dump());
    CHECK_THROWS_WITH_AS(transformer::load_folder(folder.path()), doctest::Contains("must be a name of 1 to 255 bytes in the same folder"),
                         FormatError);
  }
}

TEST_CASE("a folder's matrix with a number that is not finite is refused by name and row") {
  const std::filesystem::path golden = std::filesystem::path(LOWRANK_GOLDEN_DIR) / "tiny_llama";
  const TemporaryFolder folder;
  std::filesystem::copy(golden / "config.json", folder / "config.json");
  std::vector<lowrank::StoredTensor> tensors = lowrank::safetensors::File::open(golden / "model.safetensors").tensors();
  for (auto& tensor : tensors) {
    if (tensor.name != "model.layers.1.mlp.up_proj.weight") continue;
    std::vector<float> values = lowrank::to_floats(tensor);
    values[static_cast<std::size_t>(5 * tensor.shape[1] + 3)] = infinity;
    tensor = lowrank::make_tensor<float>(tensor.name, tensor.shape, values);
  }
  lowrank::safetensors::write(folder / "model.safetensors", tensors);
  CHECK_THROWS_WITH_AS(transformer::load_folder(folder.path()),
                       doctest::Contains("model.layers.1.mlp.up_proj.weight holds numbers in row 5 that are not finite"), FormatError);
}

TEST_CASE("a loss or logits that are not finite name what holds such numbers") {
  transformer::Transformer model = transformer::random_model(small_config(), 1);
  model.set_trainable(false);
  const std::vector<transformer::Example> examples{{{1, 2, 3, 4}}};
  const auto evaluate = [&](transformer::LoraSet* lora) { transformer::evaluate(model, lora, examples); };
  CHECK_NOTHROW(evaluate(nullptr));
  lowrank::LoraConfig config;
  config.rank = 2;
  config.target_modules = std::string("all-linear");
  transformer::LoraSet lora = transformer::new_lora(model, config, lowrank::LoraInit::kaiming, 0);
  CHECK_NOTHROW(evaluate(&lora));
  lora.at(model.slot(0, transformer::Projection::up))->lora()->b.value(3, 1) = infinity;
  CHECK_THROWS_WITH_AS(evaluate(&lora), doctest::Contains("the update of model.layers.0.mlp.up_proj holds numbers"), ValueError);
  auto weight = lowrank::Weight<float>(transformer::dense_weight(model.layer(model.slot(0, transformer::Projection::down))));
  weight(2, 2) = std::nanf("");
  model.layer(model.slot(0, transformer::Projection::down)) = lowrank::AdaptedLinear(lowrank::Linear<float>(weight));
  CHECK_THROWS_WITH_AS(evaluate(nullptr), doctest::Contains("model.layers.0.mlp.down_proj holds numbers"), ValueError);
  const auto tokenizer = transformer::Tokenizer::from_gguf(gguf::File::open(SmallFile().path()));
  CHECK_THROWS_WITH_AS(transformer::generate(model, nullptr, tokenizer, std::vector<std::int32_t>{1, 2}, {.tokens = 2}),
                       doctest::Contains("model.layers.0.mlp.down_proj holds numbers"), ValueError);
  weight.setConstant(1e38f);
  model.layer(model.slot(0, transformer::Projection::down)) = lowrank::AdaptedLinear(lowrank::Linear<float>(weight));
  model.layer(model.slot(0, transformer::Projection::up)) =
      lowrank::AdaptedLinear(lowrank::Linear<float>(lowrank::Weight<float>::Constant(64, 32, 1e38f)));
  CHECK_THROWS_WITH_AS(evaluate(nullptr), doctest::Contains("every weight is finite, so sums overflow"), ValueError);
}
