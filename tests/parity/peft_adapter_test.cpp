#include <doctest/doctest.h>

#include <limits>
#include <string>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/update/dora.hpp>

using namespace lowrank;

// PEFT's merged weights: W + s B A with the rank and scale that the configuration gives each module.
TEST_CASE("peft: base plus scaled update is the weight that PEFT merged") {
  const auto base = safetensors::File::open(LOWRANK_GOLDEN_DIR "/tiny_llama/model.safetensors");
  for (const char* name : {"lora_r8", "lora_qv_r4", "rslora_r16", "patterns", "regex_layer1", "dora_r8", "save_head_r8", "embed_r4"}) {
    const std::string folder = std::string(LOWRANK_GOLDEN_DIR "/adapters/") + name;
    const Adapter adapter = peft::load(folder);
    const auto expected = safetensors::File::open(folder + "/expected.safetensors");
    int compared = 0;
    for (const auto& tensor : expected.tensors()) {
      if (!tensor.name.starts_with("merged.")) continue;
      const std::string weight = tensor.name.substr(7), path = weight.substr(0, weight.rfind(".weight"));
      CAPTURE(name);
      CAPTURE(weight);
      Weight<float> w = to_weight(base.at(weight));
      if (const auto layer = adapter.layers.find(path); layer != adapter.layers.end()) {
        DoraWeights<float> update;
        update.a.value = to_weight(layer->second.a()), update.b.value = to_weight(layer->second.b());
        update.scale = static_cast<float>(layer->second.scale);
        Linear<float> linear(w);
        linear.set_trainable(false);
        if (const auto* m = layer->second.find("lora_magnitude_vector")) update.magnitude.value = to_weight(*m).transpose();
        MergedSource(linear.source(), update.plan({.layer = detail::layer_view(linear)}))
            .decode(0, w.rows(), 0, w.cols(), w.data(), w.cols());
        ++compared;
      }
      const Weight<float> merged = to_weight(tensor);
      const float tolerance = 8 * std::numeric_limits<float>::epsilon() * merged.cwiseAbs().maxCoeff();
      CHECK((w - merged).cwiseAbs().maxCoeff() <= tolerance);
    }
    CHECK_MESSAGE(compared > 0, name);
  }
}

// The modules of the model that the adapters were made for, and of one that is smaller.
TEST_CASE("peft: adapters fit the model they were made for and no other") {
  const auto base = safetensors::File::open(LOWRANK_GOLDEN_DIR "/tiny_llama/model.safetensors");
  std::vector<ModuleShape> modules, narrow;
  for (const auto& tensor : base.tensors())
    if (tensor.name.ends_with("_proj.weight"))
      modules.push_back({tensor.name.substr(0, tensor.name.rfind('.')), tensor.shape[1], tensor.shape[0]});
  for (ModuleShape module : modules) {
    if (module.in == 160) module.in = 128;
    narrow.push_back(module);
  }
  CHECK(modules.size() == 14);
  for (const char* name : {"lora_r8", "lora_qv_r4", "rslora_r16", "patterns", "regex_layer1", "dora_r8", "lora_bias_r8", "save_head_r8"})
    CHECK_NOTHROW(check_fits(peft::load(std::string(LOWRANK_GOLDEN_DIR "/adapters/") + name), modules));
  CHECK_THROWS_WITH_AS(check_fits(peft::load(LOWRANK_GOLDEN_DIR "/adapters/lora_r8"), narrow),
                       doctest::Contains("model.layers.0.mlp.down_proj is"), ShapeError);
  modules.pop_back();
  CHECK_THROWS_WITH_AS(check_fits(peft::load(LOWRANK_GOLDEN_DIR "/adapters/lora_r8"), modules),
                       doctest::Contains("which the model does not have"), ShapeError);
}
