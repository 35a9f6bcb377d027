#include <doctest/doctest.h>

#include <limits>

#include <lowrank/adapters/combine.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q8_0.hpp>
#include <lowrank/quant/matrix.hpp>

#include <lowrank/update/dora.hpp>

#include <transformer/batch.hpp>
#include <transformer/initialize.hpp>
#include <transformer/initialize_lora.hpp>
#include <transformer/open_adapter.hpp>

#include <support/files.hpp>

#include "transformer_support.hpp"

using namespace transformer;
using lowrank::Weight;
using transformer_test::distance;

namespace {

constexpr std::uint64_t seed = 3;

Transformer small_model() {
  ModelConfig config;
  config.vocabulary = 40;
  config.hidden = 32;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_size = 8;
  config.intermediate = 64;
  config.context = 32;
  config.tied_head = true;
  config.rope.head_size = 8;
  Transformer model = random_model(config, seed);
  for (Index s = 0; s < model.head_slot(); ++s) {  // larger than a fresh model's, so that every layer matters
    auto& w = model.layer(s).base.get_if<lowrank::Linear<float>>()->weight().value;
    w *= 8;
  }
  model.set_trainable(false);
  return model;
}

std::vector<Example> small_data() {
  std::vector<Example> examples;
  lowrank::Random random(seed, 77);
  for (int i = 0; i < 8; ++i) {
    Example example;
    for (int t = 0; t < 24; ++t) example.ids.push_back(static_cast<std::int32_t>(random.below(40)));
    examples.push_back(std::move(example));
  }
  return examples;
}

LoraConfig small_lora() {
  LoraConfig config;
  config.rank = 4;
  config.alpha = 6;  // s = 1.5
  config.target_modules = std::vector<std::string>{"q_proj", "v_proj", "up_proj", "down_proj"};
  return config;
}

Activation<float> small_logits(Transformer& model, LoraSet* lora) {
  return model.logits(small_data().front().ids, 1, {.lora = lora}).value();
}

/// As training would.
void change(LoraSet& set) {
  std::uint64_t stream = 0;
  for (auto& update : set.slots) {
    LoraWeights<float>* const weights = update.lora();
    if (!weights) continue;
    Weight<float> a(weights->a.rows(), weights->a.cols()), b(weights->b.rows(), weights->b.cols());
    fill_normal(a, 0.05, lowrank::Random(9, stream++));
    fill_normal(b, 0.05, lowrank::Random(9, stream++));
    weights->a.value += a;
    weights->b.value += b;
  }
}

}  // namespace

TEST_CASE("start_lora: the model begins as it was, and the plain set on the untouched model is the trained one") {
  for (const bool quantized : {false, true}) {
    for (const char* name : {"default", "orthogonal", "pissa", "pissa_fast", "olora", "eva", "lora_ga"}) {
      CAPTURE(name);
      CAPTURE(quantized);
      Transformer model = small_model();
      if (quantized)
        for (Index s = 0; s < model.head_slot(); ++s)
          model.layer(s) = lowrank::AnyLinear(lowrank::AnyMatrix(lowrank::quantize<lowrank::Q8_0>(dense_weight(model.layer(s)))));
      Transformer untouched = model;
      LoraConfig config = small_lora();
      const auto before = small_logits(model, nullptr);
      StartedLora started = start_lora(model, config, {.start = parse_start(name), .seed = seed, .batch = 2, .batches = 2}, small_data());
      CHECK(distance(small_logits(model, &started.lora), before) < 2e-5);
      change(started.lora);
      const auto trained = small_logits(model, &started.lora);
      CHECK(distance(trained, before) > 1e-3);
      LoraSet plain = plain_lora(started, config);
      CHECK(distance(small_logits(untouched, &plain), trained) < 2e-5);
      const bool moved = started.moved.has_value();
      CHECK(config.rank == (moved ? 8 : 4));
      CHECK(plain.at(model.slot(0, transformer::Projection::query))->lora()->rank() == config.rank);
      CHECK(lowrank::lora_scale(config.rank, config.alpha, config.use_rslora) == doctest::Approx(1.5));
    }
  }
}

TEST_CASE("Training on a residual base: gradients are those of the same base made dense") {
  Transformer model = small_model();
  for (Index s = 0; s < model.head_slot(); ++s)
    model.layer(s) = lowrank::AnyLinear(lowrank::AnyMatrix(lowrank::quantize<lowrank::Q8_0>(dense_weight(model.layer(s)))));
  LoraConfig config = small_lora();
  StartedLora started = start_lora(model, config, {.start = LoraStart::pissa_fast, .seed = seed}, {});
  Transformer dense = model;
  for (Index s = 0; s < model.head_slot(); ++s) dense.layer(s) = converted(model.layer(s), Base::fp32);
  LoraSet same = started.lora;
  const std::vector<Example> data = small_data();
  const auto backward = [&](Transformer& m, LoraSet& set) {
    BatchStream batches(data, 2, seed);
    const Batch batch = batches.at(0);
    Tape<float> tape;
    tape.backward(m.loss(batch.ids, batch.targets, batch.sequences, {.tape = &tape, .lora = &set}));
  };
  backward(model, started.lora);
  backward(dense, same);
  for (const Index s : target_slots(model, config)) {
    const auto &x = *started.lora.at(s)->lora(), &y = *same.at(s)->lora();
    CHECK(y.a.grad.norm() > 0);
    CHECK((x.a.grad - y.a.grad).norm() < 1e-4f * y.a.grad.norm());
    CHECK((x.b.grad - y.b.grad).norm() < 1e-4f * y.b.grad.norm());
  }
}

TEST_CASE("start_lora with DoRA: lengths are those of the whole weight, and the plain set is the trained one") {
  for (const char* name : {"pissa", "pissa_fast", "olora", "lora_ga", "orthogonal", "eva"}) {
    CAPTURE(name);
    Transformer model = small_model();
    for (Index s = 0; s < model.head_slot(); s += 2)  // dense and quantized in turn
      model.layer(s) = lowrank::AnyLinear(lowrank::AnyMatrix(lowrank::quantize<lowrank::Q8_0>(dense_weight(model.layer(s)))));
    Transformer untouched = model;
    LoraConfig config = small_lora();
    lowrank::set_method(config, "dora");
    const auto before = small_logits(model, nullptr);
    StartedLora started = start_lora(model, config, {.start = parse_start(name), .seed = seed, .batch = 2, .batches = 2}, small_data());
    CHECK(distance(small_logits(model, &started.lora), before) < 2e-5);
    change(started.lora);
    for (auto& update : started.lora.slots)
      if (update) update.get_if<lowrank::DoraWeights<float>>()->magnitude.value *= 1.1f;
    const auto trained = small_logits(model, &started.lora);
    LoraSet plain = plain_lora(started, config);
    CHECK(distance(small_logits(untouched, &plain), trained) < 2e-5);
  }
}

TEST_CASE("start_lora loftq: the base is NF4 and the update brings the model nearer to what it was") {
  Transformer model = small_model(), rounded = small_model();
  const auto before = small_logits(model, nullptr);
  LoraConfig config = small_lora();
  config.rank = 16;
  StartedLora started = start_lora(model, config, {.start = LoraStart::loftq, .seed = seed}, {});
  for (const Index s : target_slots(model, config)) {
    rounded.layer(s) = converted(rounded.layer(s), Base::nf4);
    CHECK(dense_weight(model.layer(s)) == dense_weight(rounded.layer(s)));
    CHECK(dense_weight(converted(model.layer(s), Base::nf4)) == dense_weight(model.layer(s)));  // rounding again changes nothing
  }
  CHECK(distance(small_logits(model, &started.lora), before) < 0.8 * distance(small_logits(rounded, nullptr), before));
}

TEST_CASE("an adapter of loftq says what base it needs, and is refused over another") {
  Transformer dense = small_model(), rounded = small_model();
  convert_base(rounded, Base::nf4);
  LoraConfig config = small_lora();
  Transformer trained_on = small_model();
  const StartedLora started = start_lora(trained_on, config, {.start = LoraStart::loftq, .seed = seed}, {});
  CHECK(config.needs_base == "nf4");
  const lowrank::test::TemporaryFolder folder;
  lowrank::peft::save(to_adapter(trained_on, plain_lora(started, config), config), folder / "a");
  Adapter adapter = lowrank::peft::load(folder / "a");
  LoraSet bound = bind(rounded, adapter);
  CHECK(distance(small_logits(rounded, &bound), small_logits(dense, nullptr)) <
        distance(small_logits(rounded, nullptr), small_logits(dense, nullptr)));
  CHECK_THROWS_WITH_AS(bind(dense, adapter), doctest::Contains("q_proj is fp32 [32, 32]; pass --base nf4"), lowrank::ValueError);
  const Index first = rounded.slot(0, Projection::query);  // NF4, but of other blocks
  rounded.layer(first) = lowrank::AnyLinear(lowrank::AnyMatrix(lowrank::quantize<lowrank::Nf4<128>>(dense_weight(dense.layer(first)))));
  CHECK_THROWS_AS(bind(rounded, adapter), lowrank::ValueError);
  CHECK_THROWS_WITH_AS(lowrank::gguf::save_adapter(adapter, gguf_base(dense.config), folder / "a.gguf"),
                       doctest::Contains("which no GGUF file is"), lowrank::ValueError);
  const lowrank::WeightedAdapter alone{&adapter, 1};
  CHECK(lowrank::combine({&alone, 1}, {}).adapter.config.needs_base == "nf4");
  Adapter other = adapter;
  other.config.needs_base.clear();  // the numbers alone, which nothing ties to a base
  CHECK_NOTHROW(bind(dense, other));
  const lowrank::WeightedAdapter both[] = {{&adapter, 0.5}, {&other, 0.5}};
  CHECK_THROWS_AS(lowrank::combine(both, {}), lowrank::ValueError);
  for (const char* name : {"default", "pissa", "olora", "eva", "lora_ga"}) {  // of the base as its file has it
    LoraConfig plain = small_lora();
    Transformer model = small_model();
    start_lora(model, plain, {.start = parse_start(name), .seed = seed, .batch = 2, .batches = 2}, small_data());
    CHECK(plain.needs_base.empty());
  }
}

TEST_CASE("eva: A spans what the layer reads; ranks are redistributed under the same budget and scale") {
  Transformer model = small_model();
  LoraConfig config = small_lora();
  const StartOptions options{.start = LoraStart::eva, .seed = seed, .batch = 2, .batches = 4, .rank_spread = 2};
  const StartedLora started = start_lora(model, config, options, small_data());
  Index budget = 0;
  for (const Index s : target_slots(model, config)) {
    const auto& weights = *started.lora.slots[static_cast<std::size_t>(s)].lora();
    budget += weights.rank();
    CHECK(weights.rank() <= 8);
    CHECK(weights.scale == doctest::Approx(1.5));
    CHECK((weights.a.value * weights.a.value.transpose() - Weight<float>::Identity(weights.rank(), weights.rank())).norm() < 1e-4f);
    CHECK(weights.b.value.isZero());
  }
  CHECK(budget == 8 * 4);
}

TEST_CASE("gradient_directions: the singular directions of the dense gradient, from low-rank probes") {
  Transformer model = small_model();
  const std::vector<Index> slots{model.slot(0, transformer::Projection::query), model.slot(1, transformer::Projection::down)};
  const StartOptions options{.seed = seed, .batch = 2, .batches = 3};
  const std::vector<lowrank::Svd> found = gradient_directions(model, slots, 6, options, small_data());
  const std::vector<Example> data = small_data();
  for (const Index s : slots) model.layer(s).base.set_trainable(true);
  BatchStream batches(data, options.batch, options.seed);
  Tape<float> tape;
  for (Index i = 0; i < options.batches; ++i) {
    const Batch batch = batches.at(i);
    tape.backward(model.loss(batch.ids, batch.targets, batch.sequences, {.tape = &tape}));
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto& dense = model.layer(slots[i]).base.get_if<lowrank::Linear<float>>()->weight().grad;
    const lowrank::Svd best = lowrank::thin_svd(dense.cast<double>());
    CHECK((found[i].s - best.s.head(6)).norm() < 0.02 * best.s.head(6).norm());
    const Eigen::MatrixXd kept = found[i].u * found[i].s.asDiagonal() * found[i].v.transpose();
    CHECK((kept - dense.cast<double>()).norm() < 1.02 * best.s.tail(best.s.size() - 6).norm());
  }
}

TEST_CASE("a beginning without a linear target, and scales that are 0 or infinite in fp32, are refused before the training") {
  Transformer model = small_model();
  LoraConfig config = small_lora();
  for (const double alpha : {1e-300, 1e300, std::numeric_limits<double>::quiet_NaN()}) {
    config.alpha = alpha;
    CHECK_THROWS_WITH_AS(start_lora(model, config, {}, {}), doctest::Contains("it must be finite and not 0"), lowrank::ValueError);
  }
  config = small_lora();
  config.target_modules = std::vector<std::string>{"embed_tokens"};
  CHECK_NOTHROW(start_lora(model, config, {}, {}));
  CHECK_THROWS_WITH_AS(start_lora(model, config, {.start = LoraStart::pissa}, {}), doctest::Contains("for linear layers"),
                       lowrank::ValueError);
}

TEST_CASE("parse_start names what there is") { CHECK_THROWS_AS(parse_start("best"), lowrank::ValueError); }
