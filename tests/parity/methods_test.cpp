#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <lowrank/io/peft.hpp>

#include <tests/support/golden.hpp>
#include <tests/support/temporary.hpp>
#include <transformer/adapters.hpp>
#include <transformer/load.hpp>
#include <transformer/merged_weight.hpp>

// Adapters of PEFT's other methods on the tiny Llama: logits, gradients, and the way back into a file.

using namespace lowrank;
using transformer::LoraSet;
using transformer::Transformer;

namespace {

const std::string methods_golden = LOWRANK_GOLDEN_DIR;
const std::vector<std::string> method_names{"vera_r16", "vera_unsaved_r16", "ia3",     "oft_b16", "oft_b16_neumann",
                                            "hra_r8",   "miss_r8",          "adalora", "loha_r4", "lokr_r4"};

template <class Values>
double largest_difference_of(const std::vector<float>& expected, const Values& given) {
  const Eigen::Map<const Column<float>> want(expected.data(), static_cast<Index>(expected.size()));
  const Eigen::Map<const Column<float>> have(given.data(), given.size());
  REQUIRE(want.size() == have.size());
  return static_cast<double>((want - have).cwiseAbs().maxCoeff() / want.cwiseAbs().maxCoeff());
}

/// A parameter's gradient as PEFT names it: with the adapter's name behind, or before the last part of a submodule's.
std::string gradient_name(const std::string& name) {
  const bool is_submodule = name.ends_with(".weight");
  return "grad.base_model.model." + (is_submodule ? name.substr(0, name.rfind('.')) + ".default.weight" : name + ".default");
}

}  // namespace

TEST_CASE("PEFT's methods give PEFT's logits and gradients, over a dense base") {
  for (const std::string& name : method_names) {
    CAPTURE(name);
    Transformer model = transformer::load_model(methods_golden + "/tiny_llama");
    const Adapter adapter = peft::load(methods_golden + "/methods/" + name);
    LoraSet set = transformer::bind(model, adapter);
    test::GoldenFile expected(methods_golden + "/methods/" + name + "/expected.safetensors");
    const std::vector<std::int32_t> ids = expected.ints("ids");
    std::vector<std::int32_t> targets;
    for (std::size_t i = 0; i < ids.size(); ++i) targets.push_back(i % 24 == 23 ? ignored_target : ids[i + 1]);
    CHECK(largest_difference_of(expected.floats("logits"), model.logits(ids, 3, {.lora = &set}).value()) < 1e-5);
    transformer::parameters(model, set);
    Tape<float> tape;
    const Var<float> loss = model.loss(ids, targets, 3, {.tape = &tape, .lora = &set});
    tape.backward(loss);
    const double whole = static_cast<double>(loss.item()) + add_penalties(set);  // AdaLoRA's holds the term of orthogonality
    CHECK(whole == doctest::Approx(static_cast<double>(expected.floats("loss")[0])).epsilon(1e-5));
    set.visit_parameters([&](const Parameter<float>& parameter) {
      CAPTURE(parameter.name);
      CHECK(largest_difference_of(expected.floats(gradient_name(parameter.name)), parameter.grad) < 1e-4);
    });
  }
}

TEST_CASE("merged, PEFT's methods give PEFT's logits, over dense numbers, and over 4 bits those of the unmerged model") {
  for (const std::string& name : method_names) {
    CAPTURE(name);
    const Adapter adapter = peft::load(methods_golden + "/methods/" + name);
    test::GoldenFile expected(methods_golden + "/methods/" + name + "/expected.safetensors");
    const std::vector<std::int32_t> ids = expected.ints("ids");
    const Transformer model = transformer::load_model(methods_golden + "/tiny_llama");
    Transformer dense = transformer::merged(model, transformer::bind(model, adapter));
    CHECK(largest_difference_of(expected.floats("logits"), dense.logits(ids, 3).value()) < 1e-5);
    Transformer quantized = transformer::load_model(methods_golden + "/tiny_llama_nf4");
    LoraSet set = transformer::bind(quantized, adapter);
    const Activation<float> beside = quantized.logits(ids, 3, {.lora = &set}).value(),
                            within = transformer::merged(quantized, set).logits(ids, 3).value();
    CHECK((beside - within).cwiseAbs().maxCoeff() < 1e-5f * beside.cwiseAbs().maxCoeff());
  }
}

TEST_CASE("LoHa, LoKr, VeRA, MiSS and AdaLoRA as LoRA of full rank give PEFT's logits, and at a share of the energy near ones") {
  for (const std::string name : {"loha_r4", "lokr_r4", "vera_r16", "miss_r8", "adalora"}) {
    CAPTURE(name);
    Transformer model = transformer::load_model(methods_golden + "/tiny_llama");
    test::GoldenFile expected(methods_golden + "/methods/" + name + "/expected.safetensors");
    const std::vector<std::int32_t> ids = expected.ints("ids");
    const LoraSet set = transformer::bind(model, peft::load(methods_golden + "/methods/" + name));
    const auto difference = [&](const RankChoice& choice) {
      LoraSet lora = transformer::bind(model, transformer::to_lora(model, set, choice).adapter);
      return largest_difference_of(expected.floats("logits"), model.logits(ids, 3, {.lora = &lora}).value());
    };
    CHECK(difference(RankChoice::rank(64)) < 1e-5);
    CHECK(difference(RankChoice::energy(0.99)) < 0.2);
  }
}

TEST_CASE("what a method's adapter was loaded from is what it is saved as") {
  for (const std::string& name : method_names) {
    CAPTURE(name);
    const Transformer model = transformer::load_model(methods_golden + "/tiny_llama");
    const Adapter adapter = peft::load(methods_golden + "/methods/" + name);
    const TemporaryFolder folder;
    peft::save(transformer::to_adapter(model, transformer::bind(model, adapter), adapter.config), folder.path() / "saved");
    const Adapter again = peft::load(folder.path() / "saved");
    CHECK(again.shared.size() == adapter.shared.size());
    CHECK(again.config.json == adapter.config.json);
    REQUIRE(again.layers.size() == adapter.layers.size());
    for (const auto& [path, module] : adapter.layers)
      for (const auto& [tensor, value] : module.tensors) {
        REQUIRE(again.layers.at(path).find(tensor) != nullptr);
        CHECK(again.layers.at(path).find(tensor)->shape == value.shape);
        CHECK(to_floats(*again.layers.at(path).find(tensor)) == to_floats(value));
      }
  }
}
