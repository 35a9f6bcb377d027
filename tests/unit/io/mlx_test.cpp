#include <doctest/doctest.h>

#include <limits>

#include <lowrank/io/mlx.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/io/peft.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {

StoredTensor ramp(std::string name, std::vector<Index> shape) {
  StoredTensor tensor{"", DType::f32, std::move(shape), {}};
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return make_tensor<float>(std::move(name), tensor.shape, values);
}

struct MlxFolder {
  test::TemporaryFolder folder;
  std::string config =
      R"({"model": "m", "fine_tune_type": "lora", "num_layers": 2, "iters": 10, "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.1}})";
  std::vector<StoredTensor> tensors{
      ramp("model.layers.0.self_attn.q_proj.lora_a", {5, 2}), ramp("model.layers.0.self_attn.q_proj.lora_b", {2, 3}),
      ramp("model.layers.1.self_attn.q_proj.lora_a", {5, 2}), ramp("model.layers.1.self_attn.q_proj.lora_b", {2, 3})};

  Adapter load() const {
    test::write_file(folder / "adapter_config.json", config);
    safetensors::write(folder / "adapters.safetensors", tensors);
    return mlx::load(folder.path());
  }
  void refused(std::string_view part) const {
    const std::string complaint = test::complaint([&] { load(); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
    CHECK(complaint.starts_with("[mlx] "));
  }
  MlxFolder& with(std::string_view from, std::string_view to) {
    const auto at = config.find(from);
    REQUIRE(at != config.npos);
    config.replace(at, from.size(), to);
    return *this;
  }
};

}  // namespace

TEST_CASE("mlx: matrices are transposed, the scale is the factor itself") {
  const MlxFolder f;
  const Adapter adapter = f.load();
  CHECK(mlx::is_adapter(f.folder.path()));
  REQUIRE(adapter.layers.size() == 2);
  const ModuleTensors& q = adapter.layers.at("model.layers.1.self_attn.q_proj");
  CHECK(q.a().shape == std::vector<Index>{2, 5});
  CHECK(q.b().shape == std::vector<Index>{3, 2});
  CHECK(q.scale == 20);
  CHECK(to_weight(q.a()) == to_weight(f.tensors[0]).transpose());
  CHECK(to_weight(q.b()) == to_weight(f.tensors[1]).transpose());
  CHECK(adapter.config.rank == 2);
  CHECK(adapter.config.alpha == 40);
  CHECK(adapter.config.dropout == 0.1);
  CHECK(adapter.config.base_model == "m");
  CHECK(std::get<std::vector<std::string>>(adapter.config.target_modules) == std::vector<std::string>{"q_proj"});
  const test::TemporaryFolder folder;
  peft::save(adapter, folder.path());
  CHECK(peft::load(folder.path()).layers.at("model.layers.0.self_attn.q_proj").scale == 20);
}

TEST_CASE("mlx: adapters of the last blocks, of embeddings, with DoRA, in bf16") {
  MlxFolder f;
  f.tensors.erase(f.tensors.begin(), f.tensors.begin() + 2);
  CHECK(std::get<std::vector<std::string>>(f.load().config.target_modules) == std::vector<std::string>{"model.layers.1.self_attn.q_proj"});
  f.tensors.push_back(ramp("model.embed_tokens.lora_a", {7, 2}));
  f.tensors.push_back(ramp("model.embed_tokens.lora_b", {2, 5}));
  const ModuleTensors embedding = f.load().layers.at("model.embed_tokens");
  CHECK(embedding.is_embedding);
  CHECK(embedding.a().shape == std::vector<Index>{2, 7});

  MlxFolder dora;
  dora.with("\"lora\"", "\"dora\"");
  dora.refused("missing tensor \"model.layers.0.self_attn.q_proj.m\"; fine_tune_type is dora");
  for (const char* layer : {"0", "1"}) dora.tensors.push_back(ramp(concat("model.layers.", layer, ".self_attn.q_proj.m"), {3}));
  CHECK(dora.load().config.fields.at("use_dora") == FieldValue(true));
  CHECK(dora.load().layers.begin()->second.at("lora_magnitude_vector").shape == std::vector<Index>{3});
  dora.tensors.back().name = "model.layers.0.self_attn.q_proj.m2";
  dora.refused("unexpected tensor \"model.layers.0.self_attn.q_proj.m2\"");
  dora.with("\"dora\"", "\"lora\"").tensors.back().name = "model.layers.1.self_attn.q_proj.m";
  dora.refused("unexpected tensor \"model.layers.0.self_attn.q_proj.m\"; fine_tune_type is lora");

  MlxFolder brain;
  const std::vector<BFloat16> values{BFloat16(1.0f), BFloat16(2.0f), BFloat16(3.0f), BFloat16(4.0f), BFloat16(5.0f), BFloat16(6.0f)};
  brain.tensors[1] = make_tensor<BFloat16>(brain.tensors[1].name, {2, 3}, values);
  CHECK(brain.load().layers.begin()->second.b().dtype == DType::bf16);
  CHECK(to_weight(brain.load().layers.begin()->second.b())(2, 1) == 6.0f);
}

TEST_CASE("mlx: configurations that mean something else are refused by name") {
  const auto refused = [](std::string_view from, std::string_view to, std::string_view part) { MlxFolder().with(from, to).refused(part); };
  refused("\"lora\"", "\"full\"", "fine_tune_type is \"full\" but must be lora or dora");
  refused("\"lora\"", "7", "fine_tune_type is 7");
  refused("\"num_layers\": 2", "\"num_layers\": 1", "tensors for 2 blocks but num_layers is 1");
  refused("\"num_layers\": 2", "\"num_layers\": -2", "num_layers is -2");
  refused("\"num_layers\": 2,", "", "lora_layers is null");
  refused("\"rank\": 2", "\"rank\": 0", "rank is 0");
  refused("\"rank\": 2", "\"rank\": 3", "lora_a [5, 2] and lora_b [2, 3] but rank 3 needs [in, 3] and [3, out]");
  refused("20.0", "0", "scale is 0");
  refused("20.0", "1e400", "not valid JSON");
  refused("20.0", "\"20\"", "scale is \"20\"");
  refused("0.1", "1.0", "dropout is 1.0");
  refused("\"dropout\"", "\"alpha\"", "lora_parameters has the key \"alpha\"");
  refused("{\"rank\": 2, \"scale\": 20.0, \"dropout\": 0.1}", "[]", "lora_parameters is []");
  CHECK(MlxFolder().with("\"num_layers\": 2", "\"num_layers\": -1").load().layers.size() == 2);
  CHECK(MlxFolder().with("num_layers", "lora_layers").load().layers.size() == 2);
}

TEST_CASE("mlx: tensors that are missing, unexpected, of the wrong shape or not finite are refused by name") {
  MlxFolder f;
  f.tensors.pop_back();
  f.refused("missing tensor \"model.layers.1.self_attn.q_proj.lora_b\"");
  f.tensors.push_back(ramp("model.layers.1.self_attn.q_proj.lora_b", {3, 2}));
  f.refused("\"model.layers.1.self_attn.q_proj\" has lora_a [5, 2] and lora_b [3, 2]");
  f.tensors.back() = ramp("model.layers.1.self_attn.q_proj.lora_b", {2, 3, 1});
  f.refused("lora_b [2, 3, 1]");
  f.tensors.back() = ramp("model.norm.weight", {3});
  f.refused("unexpected tensor \"model.norm.weight\"");
  const std::vector<float> wrong(6, std::numeric_limits<float>::quiet_NaN());
  f.tensors.back() = make_tensor<float>("model.layers.1.self_attn.q_proj.lora_b", {2, 3}, wrong);
  f.refused("holds nan at position 0");
  f.tensors.clear();
  f.refused("no adapter tensor");
}
