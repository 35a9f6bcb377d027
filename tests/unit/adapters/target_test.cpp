#include <doctest/doctest.h>

#include <lowrank/adapters/target.hpp>

using namespace lowrank;

namespace {

using Names = std::vector<std::string>;

bool is_target(const LoraConfig& config, std::string_view path) { return TargetMatcher(config)(path); }

std::vector<ModuleShape> small_model() {
  std::vector<ModuleShape> modules;
  for (const char* layer : {"model.layers.0.", "model.layers.1."})
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"}) modules.push_back({std::string(layer) + name, 8, 6});
  modules.push_back({"lm_head", 8, 20});
  return modules;
}

Adapter adapter_for(const std::vector<std::string>& paths) {
  Adapter adapter;
  adapter.config.target_modules = Names{"q_proj"};
  for (const std::string& path : paths) {
    adapter.layers[path] = lora_tensors({.name = "a", .shape = {8, 8}}, {.name = "b", .shape = {6, 8}});
  }
  return adapter;
}

}  // namespace

TEST_CASE("TargetMatcher: lists match equal paths and dotted ends") {
  LoraConfig config;
  config.target_modules = Names{"q_proj", "mlp.down_proj", "model.layers.0.self_attn.v_proj"};
  CHECK(is_target(config, "q_proj"));
  CHECK(is_target(config, "model.layers.0.self_attn.q_proj"));
  CHECK(is_target(config, "model.layers.3.mlp.down_proj"));
  CHECK(is_target(config, "model.layers.0.self_attn.v_proj"));
  CHECK_FALSE(is_target(config, "model.layers.1.self_attn.v_proj"));
  CHECK_FALSE(is_target(config, "model.layers.0.self_attn.xq_proj"));
  CHECK_FALSE(is_target(config, "model.layers.0.q_proj.inner"));
  CHECK_FALSE(is_target(LoraConfig{}, "q_proj"));
}

TEST_CASE("TargetMatcher: expressions match whole paths, all-linear everything") {
  LoraConfig config;
  config.target_modules = std::string(".*\\.(q|v)_proj");
  CHECK(is_target(config, "a.q_proj"));
  CHECK_FALSE(is_target(config, "q_proj"));
  config.target_modules = std::string("All-Linear");
  CHECK(is_target(config, "anything"));
}

TEST_CASE("TargetMatcher: excluded and saved modules never match") {
  LoraConfig config;
  config.target_modules = Names{"q_proj", "lm_head"};
  config.exclude_modules = Names{"layers.1.self_attn.q_proj"};
  config.modules_to_save = {"lm_head"};
  CHECK(is_target(config, "model.layers.0.self_attn.q_proj"));
  CHECK_FALSE(is_target(config, "model.layers.1.self_attn.q_proj"));
  CHECK_FALSE(is_target(config, "lm_head"));
  config.exclude_modules = std::string(".*\\.0\\..*");
  CHECK_FALSE(is_target(config, "model.layers.0.self_attn.q_proj"));
}

TEST_CASE("TargetMatcher: chosen layers are the first number of a path") {
  LoraConfig config;
  config.target_modules = Names{"q_proj", "model.layers.7.v_proj"};
  config.layers_to_transform = {1, 3};
  CHECK(is_target(config, "model.layers.1.self_attn.q_proj"));
  CHECK_FALSE(is_target(config, "model.layers.2.self_attn.q_proj"));
  CHECK(is_target(config, "model.layers.3.experts.0.q_proj"));
  CHECK_FALSE(is_target(config, "model.layers.0.experts.1.q_proj"));
  CHECK_FALSE(is_target(config, "layers.1.q_proj"));  // PEFT wants two parts before the number
  CHECK(is_target(config, "model.layers.7.v_proj"));  // named in full: the layer does not matter
  config.layers_pattern = {"layers"};
  CHECK(is_target(config, "layers.1.q_proj"));
  CHECK_FALSE(is_target(config, "model.blocks.1.q_proj"));
}

TEST_CASE("PatternTable: the first key that matches decides, and overlaps are told") {
  const PatternTable<Index> table({{"layers\\.1\\.mlp\\.down_proj", 12}, {"q_proj", 4}, {"1.self_attn.q_proj", 6}, {"k_proj", 4}},
                                  "rank_pattern");
  CHECK(table.value("model.layers.1.mlp.down_proj", 8) == 12);
  CHECK(table.value("model.layers.0.mlp.down_proj", 8) == 8);
  CHECK(table.value("model.layers.1.self_attn.q_proj", 8) == 4);
  CHECK_FALSE(table.overlap("model.layers.0.self_attn.q_proj").has_value());
  CHECK(table.overlap("model.layers.1.self_attn.q_proj") ==
        "rank_pattern: \"q_proj\" (4) and \"1.self_attn.q_proj\" (6) both match model.layers.1.self_attn.q_proj; the first one counts");
}

TEST_CASE("select_targets: names that match nothing are errors with near names") {
  LoraConfig config;
  config.target_modules = Names{"k_proj", "q_proj"};
  CHECK(select_targets(config, small_model()) == Names{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj",
                                                       "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"});
  config.target_modules = Names{"q_proj", "qproj"};
  CHECK_THROWS_WITH_AS(select_targets(config, small_model()),
                       "[target_modules] no module is named \"qproj\"; the model has q_proj, k_proj, down_proj, lm_head", ValueError);
  config.target_modules = std::string("nothing.*");
  CHECK_THROWS_WITH_AS(select_targets(config, small_model()), doctest::Contains("matches none of the model's 7 modules"), ValueError);
  CHECK_THROWS_AS(select_targets(LoraConfig{}, small_model()), ValueError);
}

TEST_CASE("select_targets: exclusions, layers and patterns that change nothing are errors, too") {
  LoraConfig config;
  config.target_modules = Names{"k_proj", "q_proj"};
  const auto refused = [&](const char* part) {
    CHECK_THROWS_WITH_AS(select_targets(config, small_model()), doctest::Contains(part), ValueError);
  };
  config.exclude_modules = Names{"kproj"};
  refused("[exclude_modules] no module is named \"kproj\"");
  config.exclude_modules = Names{"k_proj"};
  config.layers_to_transform = {1, 2};
  refused("no target is in layer 2");
  config.layers_to_transform = {1};
  CHECK(select_targets(config, small_model()) == Names{"model.layers.1.self_attn.q_proj"});
  config.rank_pattern = {{"k_proj", 4}};  // excluded
  refused("[rank_pattern] no target matches \"k_proj\", to which it gives 4");
  config.rank_pattern = {{"1.self_attn.q_proj", 4}};
  config.alpha_pattern = {{"q_prj", 2.5}};
  refused("[alpha_pattern] no target matches \"q_prj\", to which it gives 2.5");
  config.alpha_pattern.clear();
  CHECK(select_targets(config, small_model()).size() == 1);
  config.target_modules = std::string(".*q_proj");
  refused("named by a list");
}

TEST_CASE("check_fits: the first mismatch is named") {
  const auto modules = small_model();
  const std::string q0 = "model.layers.0.self_attn.q_proj", q1 = "model.layers.1.self_attn.q_proj";
  CHECK_NOTHROW(check_fits(adapter_for({q0, q1}), modules));
  CHECK_THROWS_WITH_AS(check_fits(adapter_for({q0}), modules), doctest::Contains("names model.layers.1.self_attn.q_proj but it has no"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(check_fits(adapter_for({q0, q1, "model.layers.2.self_attn.q_proj"}), modules),
                       doctest::Contains("which the model does not have"), ShapeError);
  Adapter wide = adapter_for({q0, q1});
  wide.layers[q1].b().shape = {7, 8};
  CHECK_THROWS_WITH_AS(check_fits(wide, modules), doctest::Contains("is [6, 8] in the model but the adapter was made for [7, 8]"),
                       ShapeError);
}

TEST_CASE("lora_scale: alpha over r or its root") {
  CHECK(lora_scale(16, 32, false) == 2);
  CHECK(lora_scale(16, 32, true) == 8);
}
