#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/optim/adamw.hpp>

#include <tests/support/golden.hpp>
#include <transformer/adapters.hpp>
#include <transformer/generate.hpp>
#include <transformer/load.hpp>
#include <transformer/merged_weight.hpp>

using namespace lowrank;
using transformer::LoraSet;
using transformer::Transformer;

namespace {

const std::string golden = LOWRANK_GOLDEN_DIR;

// Three sequences of 24 tokens, each of which predicts the next; the last one of a sequence predicts nothing.
struct Text {
  std::vector<std::int32_t> ids, targets;
};
Text golden_text() {
  test::GoldenFile file(golden + "/tiny_llama/expected.safetensors");
  Text text{file.ints("ids"), {}};
  for (std::size_t i = 0; i < text.ids.size(); ++i) text.targets.push_back(i % 24 == 23 ? ignored_target : text.ids[i + 1]);
  return text;
}

// Largest difference over the largest number.
template <class Values>
double relative_difference(const std::vector<float>& expected, const Values& given) {
  const Eigen::Map<const Column<float>> want(expected.data(), static_cast<Index>(expected.size()));
  const Eigen::Map<const Column<float>> have(given.data(), given.size());
  REQUIRE(want.size() == have.size());
  return static_cast<double>((want - have).cwiseAbs().maxCoeff() / want.cwiseAbs().maxCoeff());
}

void check_gradients(LoraSet& set, const test::GoldenFile& expected, const std::string& prefix) {
  int checked = 0;
  const auto check_parameter = [&](const Parameter<float>& parameter, const std::string& name) {
    if (!parameter.needs_grad()) return;
    CAPTURE(name);
    CHECK(relative_difference(expected.floats(prefix + "grad.base_model.model." + name), parameter.grad) < 1e-4);
    ++checked;
  };
  for (auto& update : set.slots)
    if (update)
      update.visit_parameters([&](const Parameter<float>& parameter) {
        check_parameter(parameter, parameter.name + (parameter.name.ends_with("magnitude_vector") ? ".weight" : ""));
      });
  for (const auto& [slot, copy] : set.copies) {
    const auto& weight = copy.base.get_if<Linear<float>>()->weight();
    check_parameter(weight, weight.name.substr(0, weight.name.rfind(".weight")) + ".modules_to_save.weight");
  }
  CHECK(checked > 0);
}

// Logits, loss and gradients of an adapter on a base against what PEFT computed.
void check_adapter(Transformer& model, LoraSet& set, const test::GoldenFile& expected, const std::string& prefix) {
  const Text text = golden_text();
  CHECK(relative_difference(expected.floats(prefix + "logits"), model.logits(text.ids, 3, {.lora = &set}).value()) < 1e-5);
  const auto references = transformer::parameters(model, set);
  Tape<float> tape;
  const Var<float> loss = model.loss(text.ids, text.targets, 3, {.tape = &tape, .lora = &set});
  CHECK(static_cast<double>(loss.item()) == doctest::Approx(static_cast<double>(expected.floats(prefix + "loss")[0])).epsilon(1e-5));
  tape.backward(loss);
  check_gradients(set, expected, prefix);
}

// bitsandbytes 0.50's CPU path takes scale row · ⌊in / block⌋ + col / block where in is no multiple of the block but of 16, and the golden
// numbers were made with it. Here 160 / 64: the down projections. Their weights as it sees them, dense.
void imitate_cpu_scales(Transformer& model) {
  const auto file = safetensors::File::open(golden + "/tiny_llama_nf4/model.safetensors");
  for (Index i = 0; i < model.config.layers; ++i) {
    const Index s = model.slot(i, transformer::Projection::down);
    const auto matrix = std::get<QuantizedMatrix<Nf4<64, DoubleQuant>>>(bitsandbytes::load(file, model.config.path(s)));
    const auto& storage = matrix.storage();
    Weight<float> w(matrix.rows(), matrix.cols());
    for (Index row = 0; row < w.rows(); ++row) {
      for (Index col = 0; col < w.cols(); ++col) {
        const Index at = row * w.cols() + col;
        const auto byte = storage.codes().as<std::uint8_t>()[at / 2];
        const auto code = at % 2 == 0 ? byte >> 4 : byte & 15;
        w(row, col) = storage.table()[static_cast<std::size_t>(code)] * storage.scales()[row * (w.cols() / 64) + col / 64];
      }
    }
    AnyLinear layer{Linear<float>(w)};
    layer.set_trainable(false);
    model.layer(s) = AdaptedLinear(layer);
  }
}

}  // namespace

TEST_CASE("a Hugging Face Llama gives the logits and the loss of transformers") {
  const Text text = golden_text();
  for (const std::string name : {"tiny_llama", "tiny_llama_nf4"}) {
    CAPTURE(name);
    Transformer model = transformer::load_model(golden + "/" + name);
    if (name == "tiny_llama_nf4") imitate_cpu_scales(model);
    test::GoldenFile expected(golden + "/" + name + "/expected.safetensors");
    CHECK(relative_difference(expected.floats("logits"), model.logits(text.ids, 3).value()) < 1e-5);
    CHECK(static_cast<double>(model.loss(text.ids, text.targets, 3).item()) ==
          doctest::Approx(static_cast<double>(expected.floats("loss")[0])).epsilon(1e-5));
  }
}

TEST_CASE("adapters of PEFT give its logits, gradients and AdamW losses") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  for (const std::string name :
       {"lora_r8", "lora_qv_r4", "rslora_r16", "patterns", "regex_layer1", "dora_r8", "lora_bias_r8", "save_head_r8", "embed_r4"}) {
    CAPTURE(name);
    test::GoldenFile expected(golden + "/adapters/" + name + "/expected.safetensors");
    LoraSet set = transformer::bind(model, peft::load(golden + "/adapters/" + name));
    check_adapter(model, set, expected, "");
    AdamW<float> optimizer(transformer::parameters(model, set), {.learning_rate = 1e-2, .weight_decay = 1e-2});
    for (const float want : expected.floats("adamw_losses_lr1e-2_wd1e-2")) {
      optimizer.zero_grad();
      Tape<float> tape;
      const Var<float> loss = model.loss(text.ids, text.targets, 3, {.tape = &tape, .lora = &set});
      CHECK(static_cast<double>(loss.item()) == doctest::Approx(static_cast<double>(want)).epsilon(1e-4));
      tape.backward(loss);
      optimizer.step();
    }
  }
}

TEST_CASE("another adapter in each row of a batch, LoRA, DoRA, of the token table and none, forward and backward") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  LoraSet plain = transformer::bind(model, peft::load(golden + "/adapters/lora_r8"));
  LoraSet dora = transformer::bind(model, peft::load(golden + "/adapters/dora_r8"));
  LoraSet table = transformer::bind(model, peft::load(golden + "/adapters/embed_r4"));
  table.copies.clear();  // PEFT's copy of the table itself
  for (const auto& rows : {std::vector<LoraSet*>{&plain, &dora, nullptr}, std::vector<LoraSet*>{&table, &plain, &plain}}) {
    const Activation<float> together = model.logits(text.ids, 3, {.row_loras = rows}).value();
    Tape<float> tape;
    for (LoraSet* set : {&plain, &dora, &table})
      for (auto& parameter : transformer::parameters(model, *set)) std::ranges::fill(parameter.grad(), 0.0f);
    tape.backward(model.loss(text.ids, text.targets, 3, {.tape = &tape, .row_loras = rows}));
    const Weight<float> gradient = plain.slots[0].lora()->b.grad;
    plain.slots[0].lora()->b.grad.setZero();
    for (std::size_t row = 0; row < 3; ++row) {
      const std::span<const std::int32_t> ids = std::span(text.ids).subspan(24 * row, 24),
                                          targets = std::span(text.targets).subspan(24 * row, 24);
      const Activation<float> apart = model.logits(ids, 1, {.lora = rows[row]}).value();
      const auto columns = together.middleCols(static_cast<Index>(24 * row), 24);
      CHECK((columns - apart).cwiseAbs().maxCoeff() < 1e-5f * apart.cwiseAbs().maxCoeff());
      const Var<float> loss = model.loss(ids, targets, 1, {.tape = &tape, .lora = rows[row]});
      if (loss.requires_grad()) tape.backward(scale(loss, 1.0f / 3));
    }
    CHECK((plain.slots[0].lora()->b.grad - gradient).norm() < 1e-4f * gradient.norm());
  }
  LoraSet head = transformer::bind(model, peft::load(golden + "/adapters/save_head_r8"));
  const std::vector<LoraSet*> with_copy{&head, nullptr, nullptr}, two{&plain, &plain};
  CHECK_THROWS_WITH_AS(model.logits(text.ids, 3, {.row_loras = with_copy}), doctest::Contains("modules_to_save"), ValueError);
  CHECK_THROWS_AS(model.logits(text.ids, 3, {.row_loras = two}), ValueError);
}

TEST_CASE("several adapters at a time: their scaled updates add up, swapped by name") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  transformer::AdapterSet adapters;
  for (const std::string name : {"lora_r8", "rslora_r16", "lora_bias_r8", "dora_r8"})
    adapters.add(name, transformer::bind(model, peft::load(golden + "/adapters/" + name)));
  adapters.activate({{"lora_r8", 0.75}, {"rslora_r16", -0.5}, {"lora_bias_r8", 0.25}});
  CHECK(adapters.is_active("rslora_r16"));
  CHECK(!adapters.is_active("dora_r8"));
  // The same as one after the other merged into the weights, but for the biases.
  adapters.activate({{"lora_r8", 0.75}, {"rslora_r16", -0.5}});
  LoraSet first = adapters.at("lora_r8"), second = adapters.at("rslora_r16");
  lowrank::scale(first, 0.75), lowrank::scale(second, -0.5);
  Transformer merged = transformer::merged(transformer::merged(model, first), second);
  const Activation<float> expected = merged.logits(text.ids, 3).value();
  const Activation<float> given = model.logits(text.ids, 3, {.lora = adapters.active()}).value();
  CHECK((given - expected).cwiseAbs().maxCoeff() < 1e-5f * expected.cwiseAbs().maxCoeff());
  CHECK_THROWS_AS(adapters.activate({{"dora_r8", 0.5}}), ValueError);
  CHECK_THROWS_AS(adapters.activate("none"), ValueError);
}

TEST_CASE("threads run one model with adapters of their own, to the same bits as alone") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  std::vector<LoraSet> sets;
  std::vector<Activation<float>> alone, together(4);
  for (const std::string name : {"lora_r8", "dora_r8", "lora_bias_r8", "embed_r4"}) {
    sets.push_back(transformer::bind(model, peft::load(golden + "/adapters/" + name)));
    alone.push_back(model.logits(text.ids, 3, {.lora = &sets.back()}).value());
  }
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 5; ++repeat) together[i] = model.logits(text.ids, 3, {.lora = &sets[i]}).value();
    });
  for (auto& thread : threads) thread.join();
  for (std::size_t i = 0; i < 4; ++i) CHECK(together[i] == alone[i]);
}

TEST_CASE("batch-invariant: a token's logits have the same bits alone, in a batch, and read one by one") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  LoraSet set = transformer::bind(model, peft::load(golden + "/adapters/lora_r8"));
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    model.set_compute(compute);
    const BatchInvariant guard;
    const Activation<float> batch = model.logits(text.ids, 3, {.lora = &set}).value();
    for (Index row = 0; row < 3; ++row) {
      const auto ids = std::span(text.ids).subspan(static_cast<std::size_t>(24 * row), 24);
      CHECK(model.logits(ids, 1, {.lora = &set}).value() == batch.middleCols(24 * row, 24));
      transformer::Cache cache;
      for (std::size_t begin = 0, count = 1; begin < 24; begin += count, count = std::min<std::size_t>(count + 2, 24 - begin)) {
        const Activation<float> part = model.logits(ids.subspan(begin, count), 1, {.lora = &set, .cache = &cache}).value();
        CHECK(part == batch.middleCols(24 * row + static_cast<Index>(begin), static_cast<Index>(count)));
      }
    }
  }
  CHECK(!BatchInvariant::is_on());
}

TEST_CASE("a reader goes back to where it was, and its cache holds what it is asked to") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Text text = golden_text();
  const auto ids = std::span(text.ids).first(24);
  using lowrank::CachePrecision;
  for (const Compute compute : {Compute::fp32, Compute::bf16}) {
    model.set_compute(compute);
    const auto read = [&](transformer::CachePrecision precision) {
      transformer::Reader<> reader(model, nullptr, precision);
      reader(ids.first(9));
      const Activation<float> one = reader(ids.subspan(9, 1));
      reader(ids.subspan(12, 7));  // another continuation, which the way back forgets
      reader.rewind(9);
      CHECK(reader.length() == 9);
      CHECK(reader(ids.subspan(9, 1)) == one);
      CHECK_THROWS_AS(reader.rewind(11), ValueError);
      return one;
    };
    const Activation<float> automatic = read({}), whole = read(CachePrecision::fp32), rounded = read(CachePrecision::bf16);
    CHECK(automatic == (compute == Compute::fp32 ? whole : rounded));
    const float difference = (whole - rounded).cwiseAbs().maxCoeff();
    CHECK(difference > 0);
    CHECK(difference < 0x1p-6f * whole.cwiseAbs().maxCoeff());
  }
}

TEST_CASE("an adapter of PEFT on a base of bitsandbytes") {
  Transformer model = transformer::load_model(golden + "/tiny_llama_nf4");
  imitate_cpu_scales(model);
  LoraSet set = transformer::bind(model, peft::load(golden + "/adapters/lora_r8"));
  check_adapter(model, set, test::GoldenFile(golden + "/tiny_llama_nf4/expected.safetensors"), "lora_r8.");
}

TEST_CASE("a set becomes the adapter that it came from, and a merged model computes the same") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  const Adapter adapter = peft::load(golden + "/adapters/lora_r8");
  LoraSet set = transformer::bind(model, adapter);
  const Adapter back = transformer::to_adapter(model, set, adapter.config);
  REQUIRE(back.layers.size() == adapter.layers.size());
  for (const auto& [path, layer] : adapter.layers) CHECK(to_weight(back.layers.at(path).b()) == to_weight(layer.b()));
  const Text text = golden_text();
  Transformer dense = transformer::merged(model, set);
  const Activation<float> merged = dense.logits(text.ids, 3).value(), unmerged = model.logits(text.ids, 3, {.lora = &set}).value();
  CHECK((merged - unmerged).cwiseAbs().maxCoeff() < 1e-5f * unmerged.cwiseAbs().maxCoeff());
  const LoraSet both = lowrank::sum(std::vector{set, set});
  CHECK(both.slots[0].lora()->rank() == 16);
}

TEST_CASE("the loss of a head with an update or a cap is taken a slice at a time, with the gradients of the whole") {
  Transformer model = transformer::load_model(golden + "/tiny_llama");
  LoraConfig config{.rank = 4, .alpha = 8, .target_modules = std::vector<std::string>{"lm_head", "q_proj"}};
  LoraSet set = transformer::new_lora(model, config, LoraInit::kaiming, 1);
  for (auto& update : set.slots)
    if (update) fill_normal(update.lora()->b.value, 0.1, Random(3, 4));
  const std::vector<std::int32_t> first = golden_text().ids;
  std::vector<std::int32_t> ids, targets;
  for (int i = 0; i < 300; ++i) {
    ids.push_back(first[static_cast<std::size_t>(i) % first.size()]);
    targets.push_back(i % 7 == 0 || (i > 130 && i < 260) ? ignored_target : first[static_cast<std::size_t>(i * 5 + 1) % first.size()]);
  }
  model.config.context = 512;
  for (const double cap : {0.0, 5.0}) {
    model.config.logit_cap = cap;
    const auto gradients = [&](bool whole) {
      Tape<float> tape;
      for (auto* parameter : {&set.slots[static_cast<std::size_t>(model.head_slot())].lora()->b, &set.slots[0].lora()->a})
        parameter->zero_grad();
      const transformer::Pass<> pass{.tape = &tape, .lora = &set};
      const Var<float> loss = whole ? cross_entropy(model.logits(ids, 1, pass), targets) : model.loss(ids, targets, 1, pass);
      tape.backward(loss);
      return std::tuple(loss.item(), set.slots[static_cast<std::size_t>(model.head_slot())].lora()->b.grad, set.slots[0].lora()->a.grad);
    };
    const auto [loss, head, query] = gradients(false);
    const auto [right_loss, right_head, right_query] = gradients(true);
    CHECK(loss == doctest::Approx(right_loss).epsilon(1e-6));
    CHECK((head - right_head).cwiseAbs().maxCoeff() < 1e-5f * right_head.cwiseAbs().maxCoeff());
    CHECK((query - right_query).cwiseAbs().maxCoeff() < 1e-5f * right_query.cwiseAbs().maxCoeff());
  }
}
