#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include <lowrank/cuda.hpp>
#include <lowrank/update/dora.hpp>

#include <transformer/adapters.hpp>
#include <transformer/generate.hpp>
#include <transformer/load.hpp>
#include <transformer/train.hpp>

#include <support/test_gpu.hpp>

using namespace transformer;
using lowrank::Compute;
using lowrank::Cuda;
using lowrank::to_host;
using simt_test::test_gpu;

namespace {

Transformer tiny_model(Base base = Base::nf4) {
  Transformer model = load_model(std::filesystem::path(LOWRANK_GOLDEN_DIR) / "tiny_llama", base);
  model.set_compute(Compute::bf16);
  return model;
}

LoraSet update_of(Transformer& model, std::uint64_t seed, Index rank = 4) {
  lowrank::LoraConfig config;
  config.rank = rank, config.alpha = 2 * static_cast<double>(rank);
  config.target_modules = parse_targets("all-linear");
  LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, seed);
  lowrank::Random random(seed, 99);
  for (auto& update : set.slots)
    if (auto* weights = update.lora())
      for (Index i = 0; i < weights->b.size(); ++i) weights->b.value.data()[i] = 0.02f * static_cast<float>(random.uniform(-1, 1));
  return set;
}

std::vector<std::int32_t> some_ids(std::size_t count, std::uint64_t seed) {
  std::vector<std::int32_t> ids(count);
  lowrank::Random random(seed);
  for (auto& id : ids) id = static_cast<std::int32_t>(random.below(256));
  return ids;
}

std::vector<Example> some_examples(std::size_t count, std::size_t length, std::size_t predict_from) {
  std::vector<bool> learned(length);
  std::fill(learned.begin() + static_cast<std::ptrdiff_t>(predict_from), learned.end(), true);
  std::vector<Example> examples;
  for (std::size_t i = 0; i < count; ++i) examples.push_back({some_ids(length, i), learned});
  return examples;
}

double difference(const Activation<float>& a, const Activation<float>& b) {
  return static_cast<double>((a - b).norm()) / static_cast<double>(b.norm());
}

}  // namespace

TEST_CASE("logits of a model on a GPU, alone and with an adapter, whole and token by token") {
  Transformer model = tiny_model();
  LoraSet set = update_of(model, 1);
  const auto ids = some_ids(9, 3);
  const auto bare = model.logits(ids).value(), adapted = model.logits(ids, 1, {.lora = &set}).value();
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  CHECK(difference(to_host(model.logits<Cuda>(ids).value()), bare) < 0x1p-7);
  CHECK(difference(to_host(model.logits<Cuda>(ids, 1, {.lora = &set}).value()), adapted) < 0x1p-7);
  Cache<Cuda> cache;
  const std::span all(ids);
  model.next_logits<Cuda>(all.first(4), {.lora = &set, .cache = &cache});
  Activation<float> last;
  for (std::size_t i = 4; i < ids.size(); ++i)
    last = to_host(model.next_logits<Cuda>(all.subspan(i, 1), {.lora = &set, .cache = &cache}).value());
  CHECK(cache.length == 9);
  CHECK(difference(last, adapted.rightCols(1)) < 0x1p-6);
}

TEST_CASE("another adapter in each row of a batch on a GPU") {
  Transformer model = tiny_model();
  LoraSet first = update_of(model, 1), second = update_of(model, 2, 20);
  const auto ids = some_ids(12, 3);
  LoraSet* const rows[] = {&second, nullptr, &first};
  const auto expected = model.logits(ids, 3, {.row_loras = rows}).value();
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  CHECK(difference(to_host(model.logits<Cuda>(ids, 3, {.row_loras = rows}).value()), expected) < 0x1p-6);
}

TEST_CASE("training on a GPU follows the CPU, in recorded steps, and its parameters and state come back") {
  const auto curve = [](auto device, const std::vector<Example>& examples, Recompute recompute, std::vector<double>& losses) {
    Transformer model = tiny_model();
    LoraSet set = update_of(model, 1);
    const auto references = parameters(model, set);
    lowrank::AdamW<float> optimizer(references, {.learning_rate = 1e-2});
    train<decltype(device)>(model, &set, optimizer, references, examples,
                            {.steps = 5, .batch = 2, .learning_rate = 1e-2, .recompute = recompute},
                            [&](const StepReport& step) { losses.push_back(step.loss); });
    double norm = 0;
    for (const auto& reference : references)
      for (const float x : reference.value()) norm += static_cast<double>(x) * static_cast<double>(x);
    for (const auto& array : optimizer.state()) {
      if (array.dtype != lowrank::DType::f32) continue;  // steps and rates
      for (const float x : array.template numbers<float>()) norm += static_cast<double>(x) * static_cast<double>(x);
    }
    losses.push_back(std::sqrt(norm));
  };
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  for (const std::size_t predict_from : {std::size_t{1}, std::size_t{5}})  // the whole text, and completions, whose prompts do not count
    for (const Recompute recompute : {Recompute::never, Recompute::always}) {
      CAPTURE(predict_from);
      const auto examples = some_examples(4, 11, predict_from);
      std::vector<double> host, device;
      curve(lowrank::Cpu{}, examples, recompute, host);
      curve(Cuda{}, examples, recompute, device);
      REQUIRE(device.size() == host.size());
      CHECK(host[4] < host[0]);
      for (std::size_t i = 0; i < host.size(); ++i) CHECK(device[i] == doctest::Approx(host[i]).epsilon(2e-3));
    }
}

TEST_CASE("accumulated passes and texts packed with walls on a GPU follow the CPU") {
  std::vector<Example> examples;
  for (std::size_t i = 0; i < 6; ++i) {
    std::vector<bool> learned(5 + 4 * i, true);
    std::fill_n(learned.begin(), 1 + i, false);
    examples.push_back({some_ids(5 + 4 * i, i), learned});
  }
  const auto losses_of = [&](auto device, const TrainOptions& options) {
    Transformer model = tiny_model();
    LoraSet set = update_of(model, 1);
    const auto references = parameters(model, set);
    lowrank::AdamW<float> optimizer(references, {.learning_rate = 1e-2});
    std::vector<double> losses;
    train<decltype(device)>(model, &set, optimizer, references, examples, options,
                            [&](const StepReport& step) { losses.push_back(step.loss); });
    return losses;
  };
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  const TrainOptions accumulated{.steps = 3, .batch = 2, .accumulate = 3};
  const TrainOptions packed{.steps = 3, .batch = 2, .accumulate = 1, .pack = {Packing::walls, 30}};
  for (const TrainOptions& options : {accumulated, packed}) {
    const auto host = losses_of(lowrank::Cpu{}, options), device = losses_of(Cuda{}, options);
    REQUIRE(device.size() == 3);
    CHECK(host[2] < host[0]);
    for (std::size_t i = 0; i < host.size(); ++i) CHECK(device[i] == doctest::Approx(host[i]).epsilon(2e-3));
  }
}

TEST_CASE("evaluation and generation on a GPU") {
  Transformer model = load_model(std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data/demo.gguf");
  model.set_compute(Compute::bf16);
  const auto tokenizer = Tokenizer::from_gguf(lowrank::gguf::File::open(std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data/demo.gguf"));
  const std::vector<Example> examples{{tokenizer.encode("The sea was calm")}};
  const auto prompt = tokenizer.encode("The lighthou");
  const auto expected = evaluate(model, nullptr, examples);
  const auto text = generate(model, nullptr, tokenizer, prompt, {.tokens = 3});
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  const auto result = evaluate<Cuda>(model, nullptr, examples);
  CHECK(result.tokens == expected.tokens);
  CHECK(result.mean_nll == doctest::Approx(expected.mean_nll).epsilon(5e-3));
  CHECK(generate<Cuda>(model, nullptr, tokenizer, prompt, {.tokens = 3}).text == text.text);
}

TEST_CASE("what the GPU's transformer does not do is refused in a sentence") {
  Transformer model = tiny_model();
  LoraSet set = update_of(model, 1);
  const auto ids = some_ids(4, 1);
  const auto gpu = test_gpu();
  lowrank::cuda::Use use(gpu);
  lowrank::DoraWeights<float> dora{*set.slots[0].lora()};
  dora.magnitude.value.setOnes(dora.b.rows(), 1);
  set.slots[0] = dora;
  CHECK_THROWS_WITH_AS(model.logits<Cuda>(ids, 1, {.lora = &set}), doctest::Contains("updates that are a sum"), lowrank::ValueError);
  LoraSet table;
  table.slots.resize(set.slots.size());
  table.slots.back() = lowrank::make_lora<float>(256, 64, {.rank = 2});
  CHECK_THROWS_WITH_AS(model.logits<Cuda>(ids, 1, {.lora = &table}), doctest::Contains("token table"), lowrank::ValueError);
  const std::vector<std::int32_t> outside{256};
  CHECK_THROWS_WITH_AS(model.logits<Cuda>(outside), doctest::Contains("vocabulary"), lowrank::ValueError);
}
