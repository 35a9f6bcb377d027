#include <lowrank/io/peft.hpp>
#include <lowrank/optim/adamw.hpp>

#include <tests/support/golden.hpp>
#include <transformer/adapters.hpp>
#include <transformer/load.hpp>

#include "problems.hpp"

using namespace lowrank;
using transformer::LoraSet;
using transformer::Transformer;

namespace {

const std::string golden_folder = LOWRANK_GOLDEN_DIR;
const std::string adapter_names[] = {"lora_r8", "dora_r8", "embed_r4", "lora_bias_r8"};

/// Three sequences of 24 tokens, each of which predicts the next.
struct GoldenText {
  std::vector<std::int32_t> ids = test::GoldenFile(golden_folder + "/tiny_llama/expected.safetensors").ints("ids"), targets;
  GoldenText() {
    for (std::size_t i = 0; i < ids.size(); ++i) targets.push_back(i % 24 == 23 ? ignored_target : ids[i + 1]);
  }
};

Transformer tiny_model(transformer::Base base, Compute compute) {
  Transformer model = transformer::load_model(golden_folder + "/tiny_llama", base);
  model.set_compute(compute);
  return model;
}
LoraSet adapter(const Transformer& model, const std::string& name) {
  return transformer::bind(model, peft::load(golden_folder + "/adapters/" + name));
}

Activation<float> scalar(float number) { return Activation<float>::Constant(1, 1, number); }

/// All gradients of a set, those of a kind (a, b, bias, magnitude, copies) in one hash.
void add_set_gradients(pins::Results& results, const std::string& name, const Transformer& model, LoraSet& set) {
  for (Index slot = 0; slot <= model.embedding_slot(); ++slot) {
    AnyUpdate* const update = set.at(slot);
    if (!update) continue;
    if (const auto* dora = update->get_if<DoraWeights<float>>())
      pins::add_gradients(results, name, *dora);
    else
      pins::add_gradients(results, name, *update->lora());
  }
  for (auto& [slot, copy] : set.copies)
    copy.visit_parameters([&](Parameter<float>& parameter) {
      if (parameter.needs_grad()) results.add(name + "/dcopy", parameter.grad);
    });
}
void clear_set(Transformer& model, LoraSet& set) {
  for (auto& parameter : transformer::parameters(model, set)) std::ranges::fill(parameter.grad(), 0.0f);
}

/// One prompt and then token by token.
void pin_decode(pins::Results& results, const std::string& name, Transformer& model, LoraSet* set, const GoldenText& text) {
  transformer::Cache<Cpu> cache;
  const std::span<const std::int32_t> ids(text.ids);
  results.add(name, model.next_logits(ids.first(9), {.lora = set, .cache = &cache}).value());
  for (std::size_t t = 9; t < 12; ++t) results.add(name, model.next_logits(ids.subspan(t, 1), {.lora = set, .cache = &cache}).value());
}

void pin_adapter(pins::Results& results, const std::string& name, Transformer& model, LoraSet& set, const GoldenText& text) {
  results.add(name + "/logits", model.logits(text.ids, 3, {.lora = &set}).value());
  pin_decode(results, name + "/decode", model, &set, text);
  for (const bool recompute : {false, true}) {
    const std::string at = recompute ? name + "/recomputed" : name;
    clear_set(model, set);
    Tape<float> tape;
    const Var<float> loss = model.loss(text.ids, text.targets, 3, {.tape = &tape, .lora = &set, .recompute = recompute});
    results.add(at + "/loss", loss.value());
    tape.backward(loss);
    add_set_gradients(results, at, model, set);
  }
  AdamW<float> optimizer(transformer::parameters(model, set), {.learning_rate = 1e-2, .weight_decay = 1e-2});
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    tape.backward(model.loss(text.ids, text.targets, 3, {.tape = &tape, .lora = &set}));
    optimizer.step();
  }
  results.add(name + "/loss_after_3_steps", scalar(model.loss(text.ids, text.targets, 3, {.lora = &set}).item()));
}

struct Setting {
  std::string name;
  transformer::Base base;
  Compute compute;
};
const Setting settings[] = {{"fp32/", transformer::Base::fp32, Compute::fp32}, {"nf4/", transformer::Base::nf4, Compute::bf16}};

}  // namespace

TEST_CASE("pinned: a model with each kind of adapter: logits, decoding, gradients, steps") {
  pins::check_pinned("transformer", [](pins::Results& results) {
    const GoldenText text;
    for (const Setting& setting : settings) {
      Transformer model = tiny_model(setting.base, setting.compute);
      pin_decode(results, setting.name + "bare/decode", model, nullptr, text);
      for (const std::string& name : adapter_names) {
        LoraSet set = adapter(model, name);
        pin_adapter(results, setting.name + name, model, set, text);
      }
    }
  });
}

TEST_CASE("pinned: a model whose rows have adapters of their own") {
  pins::check_pinned("transformer_rows", [](pins::Results& results) {
    const GoldenText text;
    for (const Setting& setting : settings) {
      Transformer model = tiny_model(setting.base, setting.compute);
      LoraSet plain = adapter(model, "lora_r8"), dora = adapter(model, "dora_r8"), biased = adapter(model, "lora_bias_r8"),
              table = adapter(model, "embed_r4");
      table.copies.clear();  // a row cannot bring a table of its own
      for (const auto& [name, rows] : {std::pair{"dora", std::vector{&plain, &dora, static_cast<LoraSet*>(nullptr)}},
                                       std::pair{"table", std::vector{&table, &biased, &plain}}}) {
        const std::string at = setting.name + name;
        results.add(at + "/logits", model.logits(text.ids, 3, {.row_loras = rows}).value());
        for (LoraSet* set : rows)
          if (set) clear_set(model, *set);
        Tape<float> tape;
        const Var<float> loss = model.loss(text.ids, text.targets, 3, {.tape = &tape, .row_loras = rows});
        results.add(at + "/loss", loss.value());
        tape.backward(loss);
        for (std::size_t row = 0; row < rows.size(); ++row)
          if (rows[row]) add_set_gradients(results, at + "/row" + std::to_string(row), model, *rows[row]);
      }
    }
  });
}

TEST_CASE("pinned: a model with dropout") {
  pins::check_pinned("dropout/transformer", [](pins::Results& results) {
    const GoldenText text;
    for (const Setting& setting : settings) {
      Transformer model = tiny_model(setting.base, setting.compute);
      for (const std::string name : {"lora_r8", "dora_r8"}) {
        LoraSet set = adapter(model, name);
        for (Index slot = 0; slot < model.slots(); ++slot)
          if (set.at(slot)) set.at(slot)->lora()->dropout.probability = 0.25f;
        Tape<float> tape;
        const Var<float> loss = model.loss(text.ids, text.targets, 3, {.tape = &tape, .lora = &set, .recompute = true});
        results.add(setting.name + name + "/loss", loss.value());
        tape.backward(loss);
        add_set_gradients(results, setting.name + name, model, set);
      }
    }
  });
}
