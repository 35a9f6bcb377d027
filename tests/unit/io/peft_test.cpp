#include <doctest/doctest.h>

#include <limits>
#include <map>

#include <lowrank/io/json.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {

const std::string golden = LOWRANK_GOLDEN_DIR "/adapters/";

StoredTensor filled(std::string name, std::vector<Index> shape, float value = 0.5f) {
  StoredTensor tensor{std::move(name), DType::f32, std::move(shape), {}};
  const std::vector<float> values(static_cast<std::size_t>(tensor.size()), value);
  return make_tensor<float>(tensor.name, tensor.shape, values);
}

/// A folder with one adapted layer, r = 2; tests change the one or the other file.
struct PeftFolder {
  test::TemporaryFolder folder;
  std::string config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})";
  std::vector<StoredTensor> tensors{filled("base_model.model.x.q_proj.lora_A.weight", {2, 5}),
                                    filled("base_model.model.x.q_proj.lora_B.weight", {3, 2})};

  Adapter load() const {
    test::write_file(folder / "adapter_config.json", config);
    safetensors::write(folder / "adapter_model.safetensors", tensors);
    return peft::load(folder.path());
  }
  void check_complaint(std::string_view part) const {
    const std::string complaint = test::complaint([&] { load(); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
    CHECK(complaint.find(folder.path().string()) != complaint.npos);
  }
};

void check_config(std::string_view config, std::string_view part) {
  PeftFolder f;
  f.config = config;
  f.check_complaint(part);
}

/// The configuration with one more member.
void check_member(const std::string& member, std::string_view part) {
  check_config(R"({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], )" + member + '}', part);
}

}  // namespace

TEST_CASE("peft: adapters that PEFT saved are written back byte by byte, both files") {
  for (const char* name :
       {"lora_r8", "lora_qv_r4", "rslora_r16", "patterns", "regex_layer1", "dora_r8", "lora_bias_r8", "save_head_r8", "embed_r4"}) {
    CAPTURE(name);
    const test::TemporaryFolder folder;
    const Adapter adapter = peft::load(golden + name);
    CHECK(adapter.notes.empty());
    peft::save(adapter, folder / "new/folder");
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      CHECK(test::read_file(folder / "new/folder" / file) == test::read_file(golden + name + '/' + file));
  }
}

TEST_CASE("peft: what an adapter holds") {
  const Adapter patterns = peft::load(golden + "patterns");
  const ModuleTensors& q = patterns.layers.at("model.layers.0.self_attn.q_proj");
  CHECK(q.rank() == 4);
  CHECK(q.scale == 32.0 / 4);
  const ModuleTensors& down = patterns.layers.at("model.layers.1.mlp.down_proj");
  CHECK(down.rank() == 12);
  CHECK(down.scale == 16.0 / 12);
  CHECK(down.in() == 160);
  CHECK(down.out() == 64);
  CHECK(patterns.layers.at("model.layers.0.mlp.down_proj").scale == 2);
  CHECK(patterns.config.task_type == "CAUSAL_LM");
  CHECK(peft::load(golden + "rslora_r16").layers.begin()->second.scale == 8.0 / 4);
  CHECK(peft::load(golden + "dora_r8").layers.begin()->second.find("lora_magnitude_vector"));
  CHECK(peft::load(golden + "lora_bias_r8").layers.begin()->second.bias());
  CHECK(peft::load(golden + "save_head_r8").saved.at(0).name == "lm_head.weight");
  const Adapter embedding = peft::load(golden + "embed_r4");
  CHECK(embedding.layers.at("model.embed_tokens").is_embedding);
  CHECK(embedding.saved.at(0).name == "model.embed_tokens.base_layer.weight");
  CHECK(peft::load(golden + "lora_qv_r4").parameter_count() == 1792);
}

TEST_CASE("peft: an adapter made here is saved with PEFT's configuration") {
  const test::TemporaryFolder folder;
  Adapter adapter;
  adapter.config = {.rank = 4, .alpha = 8, .target_modules = std::vector<std::string>{"q_proj"}, .base_model = "tiny"};
  adapter.layers["x.q_proj"] = lora_tensors(filled("", {4, 5}), filled("", {3, 4}), 2.0);
  peft::save(adapter, folder.path());
  const Adapter loaded = peft::load(folder.path());
  CHECK(loaded.layers.at("x.q_proj").scale == 2);
  CHECK(loaded.config.base_model == "tiny");
  const std::string text = test::read_file(folder / "adapter_config.json");
  for (const char* line : {"\"r\": 4", "\"lora_alpha\": 8", "\"peft_type\": \"LORA\"", "\"inference_mode\": true", "\"task_type\": null"})
    CHECK(text.find(line) != text.npos);
  adapter = loaded;
  adapter.config.dropout = 0.05;
  adapter.config.base_model = "é";
  CHECK(peft::config_text(adapter.config).find("\"base_model_name_or_path\": \"\\u00e9\"") != std::string::npos);
  CHECK(peft::config_text(adapter.config).find("\"lora_dropout\": 0.05") != std::string::npos);
}

TEST_CASE("peft: ranks and scales that no pattern says are written as one path each") {
  const test::TemporaryFolder folder;
  Adapter adapter;
  adapter.config = {.rank = 4, .alpha = 8, .target_modules = std::vector<std::string>{"q_proj"}};
  adapter.layers["a.q_proj"] = lora_tensors(filled("", {4, 5}), filled("", {3, 4}), 2.0);
  adapter.layers["b.q_proj"] = lora_tensors(filled("", {6, 5}), filled("", {3, 6}), 0.5);
  peft::save(adapter, folder.path());
  const Adapter loaded = peft::load(folder.path());
  CHECK(loaded.layers.at("b.q_proj").rank() == 6);
  CHECK(loaded.layers.at("b.q_proj").scale == 0.5);
  CHECK(loaded.config.rank_pattern == Patterns<Index>{{"b.q_proj", 6}});
  CHECK(loaded.config.alpha_pattern == Patterns<double>{{"b.q_proj", 3}});
}

TEST_CASE("peft: patterns that overlap are reported, and keep their meaning when their keys are sorted") {
  PeftFolder f;
  f.config =
      R"({"peft_type": "LORA", "r": 8, "lora_alpha": 4, "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2, "a.q_proj": 3}})";
  f.tensors.push_back(filled("base_model.model.a.q_proj.lora_A.weight", {2, 5}));
  f.tensors.push_back(filled("base_model.model.a.q_proj.lora_B.weight", {3, 2}));
  const Adapter adapter = f.load();
  REQUIRE(adapter.notes.size() == 1);
  CHECK(adapter.notes[0].find("both match a.q_proj") != std::string::npos);
  const test::TemporaryFolder folder;
  peft::save(adapter, folder.path());  // sorted, "a.q_proj" would come first and mean 3
  const Adapter again = peft::load(folder.path());
  CHECK(again.layers.at("a.q_proj").rank() == 2);
  CHECK(again.layers.at("x.q_proj").rank() == 2);
  CHECK(again.notes.empty());
}

TEST_CASE("peft: tensors that are missing, unexpected, of the wrong shape or not finite are refused by name") {
  CHECK(PeftFolder().load().layers.size() == 1);
  for (std::size_t half : {0u, 1u}) {
    PeftFolder f;
    f.tensors.erase(f.tensors.begin() + static_cast<std::ptrdiff_t>(half));
    f.check_complaint(half == 0 ? "missing tensor base_model.model.x.q_proj.lora_A.weight"
                                : "missing tensor base_model.model.x.q_proj.lora_B.weight");
  }
  const auto with = [](StoredTensor tensor, std::string_view part) {
    PeftFolder f;
    f.tensors.push_back(std::move(tensor));
    f.check_complaint(part);
  };
  with(filled("x.q_proj.lora_A.weight", {2, 5}), "names must begin with base_model.model.");
  with(filled("base_model.model.y.weight", {2, 5}), "unexpected tensor \"base_model.model.y.weight\"");
  with(filled("base_model.model.x.q_proj.lora_C.weight", {2, 5}), "unexpected tensor");
  with(filled("base_model.model.x.q_proj.lora_magnitude_vector", {3}), "without use_dora is true");
  with(filled("base_model.model.x.q_proj.lora_B.bias", {3}), "without lora_bias is true");
  with(filled("base_model.model.x.q_proj.lora_embedding_A", {2, 5}), "of a linear layer and of an embedding");
  PeftFolder f;
  f.tensors.push_back(filled("base_model.model.x.k_proj.lora_A.weight", {2, 5}));
  f.tensors.push_back(filled("base_model.model.x.k_proj.lora_B.weight", {3, 2}));
  f.check_complaint("target_modules does not name its module");
  f.tensors = {};
  f.check_complaint("no adapter tensor in it");
  for (const std::vector<Index>& shape : {std::vector<Index>{4, 5}, {2, 5, 1, 1}, {2, 0}, {10}, {0, 5}}) {
    PeftFolder g;
    g.tensors[0] = filled("base_model.model.x.q_proj.lora_A.weight", shape);
    g.check_complaint("x.q_proj has A " + shape_text(shape) + " and B [3, 2]");
  }
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    PeftFolder g;
    g.tensors[1] = filled("base_model.model.x.q_proj.lora_B.weight", {3, 2}, value);
    g.check_complaint("\"base_model.model.x.q_proj.lora_B.weight\" holds ");
  }
}

TEST_CASE("peft: what the configuration announces must be there") {
  PeftFolder f;
  f.config = R"({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "use_dora": true})";
  f.check_complaint("missing tensor base_model.model.x.q_proj.lora_magnitude_vector, needed as use_dora is true");
  f.tensors.push_back(filled("base_model.model.x.q_proj.lora_magnitude_vector", {2}));
  f.check_complaint("lora_magnitude_vector is [2] but must be [3]");
  PeftFolder g;
  g.config = R"({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "modules_to_save": ["head"]})";
  g.check_complaint("modules_to_save names \"head\" but no tensor of it is there");
  g.tensors.push_back(filled("base_model.model.x.head.weight", {2}));
  CHECK(g.load().saved.size() == 1);
}

TEST_CASE("peft: configuration values that make no sense are refused, with key and value") {
  check_config("", "not valid JSON");
  check_config("[]", "must be a JSON object");
  check_config("{}", "peft_type is null but only LORA");
  check_config(R"({"peft_type": "BOFT"})", "peft_type is \"BOFT\"");
  check_config(R"({"peft_type": "LORA", "r": 2, "r": 3})", "\"r\" occurs twice");
  for (const char* rank : {"0", "-1", "2.0", "\"2\"", "4294967296", "[2]"})
    check_config(std::string(R"({"peft_type": "LORA", "target_modules": ["q_proj"], "r": )") + rank + '}', "r is ");
  for (const char* alpha : {"0", "\"16\"", "true"}) check_member(std::string("\"lora_alpha\": ") + alpha, "lora_alpha is ");
  for (const char* dropout : {"1", "-0.1", "[]"}) check_member(std::string("\"lora_dropout\": ") + dropout, "lora_dropout is ");
  check_member("\"use_rslora\": 1", "use_rslora is 1 but must be true or false");
  check_member("\"bias\": \"some\"", "bias is \"some\" but must be none, all or lora_only");
  check_member("\"exclude_modules\": [1]", "exclude_modules is [1] but must be a string or a list of strings");
  check_member("\"exclude_modules\": \"(\"", "exclude_modules: \"(\" has a ( without its )");
  check_member("\"modules_to_save\": \"x\"", "modules_to_save is \"x\" but must be a list of names");
  check_member("\"layers_to_transform\": [-1]", "layers_to_transform is [-1]");
  check_member("\"rank_pattern\": []", "rank_pattern is [] but must be an object");
  check_member("\"rank_pattern\": {\"q\": 0}", "rank_pattern is {\"q\":0}");
  check_member("\"rank_pattern\": {\"(\": 2}", "rank_pattern: \"(\" has a ( without its )");
  check_member("\"alpha_pattern\": {\"q\": \"x\"}", "alpha_pattern is {\"q\":\"x\"}");
  check_member("\"alpha_pattern\": {\"q\": 0}", "alpha_pattern is {\"q\":0} but must be without 0");
}

TEST_CASE("peft: keys that would change the mathematics are refused by name, inert ones are kept") {
  for (const char* member : {"\"use_qalora\": true", "\"layer_replication\": [[0, 2]]", "\"target_parameters\": [\"x\"]",
                             "\"alora_invocation_tokens\": [1]", "\"future\": {\"on\": 1}", "\"future\": 3"}) {
    const std::string_view key = std::string_view(member).substr(0, std::string_view(member).find(':'));
    check_member(member, std::string(key) + " is ");
  }
  for (const char* init : {"\"pissa\"", "\"olora\"", "\"loftq\"", "\"pissa_niter_4\"", "\"corda\""})
    check_member(std::string("\"init_lora_weights\": ") + init, "init_lora_weights is ");
  PeftFolder f;
  f.config =
      R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4.0, "target_modules": ["q_proj"], "future": null, "other": {}, "revision": "v1",)"
      R"( "init_lora_weights": "gaussian", "layers_to_transform": null})";
  const std::string text = peft::config_text(f.load().config);
  for (const char* line :
       {"\"future\": null", "\"other\": {}", "\"revision\": \"v1\"", "\"lora_alpha\": 4.0", "\"init_lora_weights\": \"gaussian\""})
    CHECK(text.find(line) != text.npos);
  CHECK(text.find("task_type") == text.npos);  // nothing is added to what the file said
}

TEST_CASE("peft: every field of PEFT's LoraConfig is kept or refused by name") {
  // PEFT 0.21.2, each with a value that is not its default.
  const std::map<std::string, const char*> kept{{"task_type", "\"CAUSAL_LM\""},
                                                {"auto_mapping", R"({"base_model_class": "Llama"})"},
                                                {"peft_version", "\"0.21.2\""},
                                                {"base_model_name_or_path", "\"x\""},
                                                {"revision", "\"main\""},
                                                {"inference_mode", "true"},
                                                {"r", "2"},
                                                {"target_modules", "\"all-linear\""},
                                                {"exclude_modules", R"(["k_proj"])"},
                                                {"lora_alpha", "3.5"},
                                                {"lora_dropout", "0.25"},
                                                {"fan_in_fan_out", "true"},
                                                {"bias", "\"all\""},
                                                {"use_rslora", "true"},
                                                {"init_lora_weights", "\"gaussian\""},
                                                {"layers_to_transform", "[0]"},
                                                {"layers_pattern", "\"x\""},
                                                {"rank_pattern", R"({"k_proj": 3})"},
                                                {"alpha_pattern", R"({"k_proj": 3})"},
                                                {"megatron_core", "\"megatron.other\""},
                                                {"loftq_config", R"({"loftq_bits": 4})"},
                                                {"eva_config", R"({"rho": 2.0})"},
                                                {"corda_config", R"({"x": 1})"},
                                                {"lora_ga_config", R"({"x": 1})"},
                                                {"qalora_group_size", "32"},
                                                {"runtime_config", R"({"ephemeral_gpu_offload": true})"},
                                                {"ensure_weight_tying", "true"}};
  const std::map<std::string, const char*> refused{{"peft_type", "\"BOFT\""},
                                                   {"megatron_config", R"({"x": 1})"},
                                                   {"velora_config", R"({"x": 1})"},
                                                   {"alora_invocation_tokens", "[1]"},
                                                   {"use_qalora", "true"},
                                                   {"monteclora_config", R"({"x": 1})"},
                                                   {"layer_replication", "[[0, 2]]"},
                                                   {"target_parameters", R"(["x"])"},
                                                   {"use_bdlora", R"({"x": 1})"},
                                                   {"arrow_config", R"({"x": 1})"},
                                                   {"kasa_config", R"({"x": 1})"}};
  const std::map<std::string, const char*> needing_tensors{
      {"modules_to_save", R"(["head"])"}, {"use_dora", "true"}, {"lora_bias", "true"}, {"trainable_token_indices", "[1]"}};
  CHECK(kept.size() + refused.size() + needing_tensors.size() == 42);
  const auto with = [](const std::string& key, const char* value) {
    nlohmann::json config{{"peft_type", "LORA"}, {"r", 2}, {"target_modules", {"q_proj"}}, {"layers_to_transform", nullptr}};
    config[key] = nlohmann::json::parse(value);
    PeftFolder f;
    for (StoredTensor& tensor : f.tensors) tensor.name.replace(tensor.name.find("x.q_proj"), 8, "model.x.0.q_proj");
    f.config = config.dump();
    return test::complaint([&] {
      const auto saved = nlohmann::json::parse(peft::config_text(f.load().config));
      CHECK(saved.at(key) == config.at(key));
    });
  };
  for (const auto& [key, value] : kept) CHECK_MESSAGE(with(key, value).empty(), key);
  for (const auto& [key, value] : refused) CHECK_MESSAGE(with(key, value).find(key) != std::string::npos, with(key, value));
  for (const auto& [key, value] : needing_tensors) CHECK_MESSAGE(with(key, value).find(key) != std::string::npos, with(key, value));
}

TEST_CASE("peft: the file says which version wrote it and what base it needs; needs of later versions are refused") {
  PeftFolder f;
  Adapter adapter = f.load();
  CHECK(adapter.config.made_by.empty());
  const test::TemporaryFolder folder;
  const auto metadata = [&](const Adapter& saved) {
    peft::save(saved, folder.path());
    return safetensors::File::open(folder / "adapter_model.safetensors").metadata();
  };
  CHECK(metadata(adapter) == safetensors::Metadata{{"format", "pt"}});  // another's file stays as it was
  adapter.config.json.clear();
  adapter.config.needs_base = "nf4";
  const safetensors::Metadata own = metadata(adapter);
  REQUIRE(own.size() == 3);
  CHECK(own[1] == std::pair<std::string, std::string>("lowrank.base", "nf4"));
  CHECK(own[2].first == "lowrank.version");
  const Adapter again = peft::load(folder.path());
  CHECK(again.config.needs_base == "nf4");
  CHECK(again.config.made_by == own[2].second);
  CHECK(metadata(again) == own);
  CHECK(test::read_file(folder / "adapter_config.json").find("lowrank") == std::string::npos);  // PEFT would warn of it
  for (const auto& [key, value] : {std::pair("lowrank.base", "nf3"), {"lowrank.tokens", "4"}}) {
    safetensors::write(folder / "adapter_model.safetensors", f.tensors, {{"format", "pt"}, {key, value}, {"lowrank.version", "9.1"}});
    const std::string complaint = test::complaint([&] { peft::load(folder.path()); });
    CHECK_MESSAGE(complaint.find(key) != complaint.npos, complaint);
    CHECK_MESSAGE(complaint.find("9.1") != complaint.npos, complaint);
  }
}

TEST_CASE("peft: modules_to_save names modules by the ends of their paths, and what is around them; tokens have a row each") {
  PeftFolder f;
  f.config = R"({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "modules_to_save": ["norm", "mlp"]})";
  for (const char* name : {"x.input_layernorm.weight", "norm.weight", "x.mlp.up_proj.weight"})
    f.tensors.push_back(filled(std::string("base_model.model.") + name, {3}));
  CHECK(f.load().saved.size() == 3);
  f.tensors.push_back(filled("base_model.model.x.norms.weight", {3}));
  f.check_complaint("x.norms.weight\"; it is no part of LORA");
  f.tensors.resize(2);
  f.config = R"({"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "trainable_token_indices": [4, 1]})";
  f.check_complaint("trainable_token_indices has 2 tokens of \"the token table\"");
  f.tensors.push_back(filled("base_model.model.t.token_adapter.trainable_tokens_delta", {2, 5}));
  CHECK(f.load().config.trained_tokens.at("") == std::vector<Index>{4, 1});
  f.tensors.back() = filled("base_model.model.t.token_adapter.trainable_tokens_delta", {3, 5});
  f.check_complaint("with a row for each is there");
  check_member(R"("trainable_token_indices": [1, 1])", "names each token once");
  check_member(R"("trainable_token_indices": [-1])", "a list of whole numbers");
  check_member(R"("trainable_token_indices": 3)", "a list of tokens");
}

TEST_CASE("peft: an initialization that changes the base is refused with what to do about it") {
  for (const char* init : {"pissa", "pissa_niter_4", "olora", "corda", "lora_ga"})
    check_member(std::string("\"init_lora_weights\": \"") + init + '"', "path_initial_model_for_weight_conversion");
  check_member(R"("init_lora_weights": "loftq")", "right over the weights that LoftQ left only");
  check_member(R"("init_lora_weights": "new")", "is not known here");
}

TEST_CASE("peft: another kind of folder is told what it is") {
  const test::TemporaryFolder folder;
  const auto refused = [&](const std::filesystem::path& path, const char* part) {
    const std::string complaint = test::complaint([&] { peft::load(path); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  };
  for (const char* name : {"model", "run", "run/checkpoint-5", "gguf"}) std::filesystem::create_directories(folder / name);
  test::write_file(folder / "model/config.json", "{}");
  test::write_file(folder / "run/checkpoint-5/adapter_config.json", "{}");
  test::write_file(folder / "gguf/a.gguf", "GGUF");
  refused(folder / "model", "is the folder of a model; give it as the model");
  refused(folder / "run", "checkpoint-5");
  refused(folder / "gguf", "a.gguf\"; give that file");
}

TEST_CASE("peft: folders without an adapter are refused with advice") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(peft::load(folder / "missing"), doctest::Contains("is not a folder"), IoError);
  CHECK_THROWS_WITH_AS(peft::load(folder.path()), doctest::Contains("adapter_config.json"), IoError);
  test::write_file(folder / "adapter_model.bin", "pickle");
  CHECK_THROWS_WITH_AS(peft::load(folder.path()), doctest::Contains("safe_serialization=True"), IoError);
}

TEST_CASE("peft::save: an adapter that could not be loaded again is refused before anything is written") {
  const test::TemporaryFolder folder;
  Adapter adapter = PeftFolder().load();
  adapter.layers.at("x.q_proj").b() = filled("", {3, 7});
  CHECK_THROWS_AS(peft::save(adapter, folder / "new"), FormatError);
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
  test::write_file(folder / "file", "old");
  CHECK_THROWS_WITH_AS(peft::save(PeftFolder().load(), folder / "file"), doctest::Contains("cannot be created"), IoError);
  CHECK_THROWS_AS(peft::save(PeftFolder().load(), folder / "file/below"), IoError);
  CHECK(test::read_file(folder / "file") == "old");
  std::filesystem::create_directories(folder / "blocked/adapter_model.safetensors");
  test::write_file(folder / "blocked/adapter_config.json", "old");
  CHECK_THROWS_AS(peft::save(PeftFolder().load(), folder / "blocked"), IoError);
  CHECK(test::read_file(folder / "blocked/adapter_config.json") == "old");
}
