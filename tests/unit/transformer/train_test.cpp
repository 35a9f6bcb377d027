#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include <lowrank/core/batch_invariant.hpp>

#include <transformer/adapters.hpp>
#include <transformer/load.hpp>
#include <transformer/steps.hpp>
#include <transformer/train.hpp>

#include "transformer_support.hpp"

using namespace transformer;

namespace {

Transformer small_model() { return load_model(transformer_test::golden_folder / "tiny_llama", Base::fp32); }

LoraSet small_update(Transformer& model, double dropout = 0) {
  lowrank::LoraConfig config;
  config.rank = 4, config.alpha = 8, config.dropout = dropout;
  config.target_modules = parse_targets("all-linear");
  LoraSet set = new_lora(model, config, lowrank::LoraInit::kaiming, 1);
  lowrank::Random random(7);
  for (auto& update : set.slots)
    if (auto* weights = update.lora())
      for (Index i = 0; i < weights->b.size(); ++i) weights->b.value.data()[i] = 0.02f * static_cast<float>(random.uniform(-1, 1));
  return set;
}

/// Texts of unequal lengths of which unequal parts count.
std::vector<Example> texts(const std::vector<Index>& lengths) {
  std::vector<Example> examples;
  lowrank::Random random(3);
  for (const Index length : lengths) {
    Example& example = examples.emplace_back();
    for (Index i = 0; i < length; ++i) example.ids.push_back(static_cast<std::int32_t>(random.below(256)));
    example.learned.resize(static_cast<std::size_t>(length));
    std::fill(example.learned.begin() + 1 + length / 3, example.learned.end(), true);
  }
  return examples;
}

Batch batch_of(const std::vector<Example>& examples, std::size_t begin, std::size_t end) {
  std::vector<const Example*> chosen;
  for (std::size_t i = begin; i < end; ++i) chosen.push_back(&examples[i]);
  return make_batch(chosen);
}

Batch packed_batch(const std::vector<Row>& rows, Packing packing) {
  std::vector<const Row*> chosen;
  for (const Row& row : rows) chosen.push_back(&row);
  return make_batch(chosen, packing);
}

/// Loss and gradients of one step of these passes.
struct OneStep {
  double loss = 0;
  std::vector<float> gradient;

  OneStep(const std::vector<Batch>& parts) {
    Transformer model = small_model();
    LoraSet set = small_update(model);
    const auto references = parameters(model, set);
    lowrank::AdamW<float> optimizer(references, {});
    const TrainOptions options{.clip_norm = 0};
    loss = Steps<Cpu>(model, &set, optimizer, references, options).run(parts);
    for (const auto& reference : references)
      for (const float g : reference.grad()) gradient.push_back(g);
  }
};

/// The largest difference as a share of the largest number.
double difference(const OneStep& a, const OneStep& b) {
  REQUIRE(a.gradient.size() == b.gradient.size());
  double most = 0, largest = 0;
  for (std::size_t i = 0; i < a.gradient.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a.gradient[i]) - static_cast<double>(b.gradient[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b.gradient[i])));
  }
  return most / largest;
}

/// All numbers that training changes, one after the other.
std::vector<float> numbers_of(LoraSet& set) {
  std::vector<float> numbers;
  for (const auto& reference : lowrank::parameters(set)) numbers.insert(numbers.end(), reference.value().begin(), reference.value().end());
  return numbers;
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> numbers;

  Trained(const std::vector<Example>& examples, const TrainOptions& options, const std::vector<Stretch>& stretches) {
    Transformer model = small_model();
    LoraSet set = small_update(model, 0.3);
    const auto references = parameters(model, set);
    lowrank::AdamW<float> optimizer(references, {.learning_rate = 1e-2});
    for (const Stretch& stretch : stretches)
      train(
          model, &set, optimizer, references, examples, options, [&](const StepReport& step) { losses.push_back(step.loss); }, stretch);
    numbers = numbers_of(set);
  }
};

}  // namespace

TEST_CASE("accumulated passes have the loss and the gradient of the larger batch to 1e-6, by tokens and not by passes") {
  const auto examples = texts({21, 5, 13, 34, 8, 3});
  const OneStep whole({batch_of(examples, 0, 6)});
  for (const std::size_t size : {1u, 2u, 3u}) {
    std::vector<Batch> parts;
    for (std::size_t i = 0; i < 6; i += size) parts.push_back(batch_of(examples, i, i + size));
    const OneStep accumulated(parts);
    CHECK(accumulated.loss == doctest::Approx(whole.loss).epsilon(1e-6));
    CHECK(difference(accumulated, whole) < 1e-6);
  }
  double mean_of_means = 0;
  for (std::size_t i = 0; i < 6; ++i) mean_of_means += OneStep({batch_of(examples, i, i + 1)}).loss / 6;
  CHECK(std::abs(mean_of_means - whole.loss) > 1e-4 * whole.loss);
}

TEST_CASE("texts packed with walls have the loss and the gradient of the texts by themselves to 1e-6") {
  const auto examples = texts({21, 5, 13, 34, 8, 3, 2});
  const auto rows = make_rows(examples, {Packing::walls, 40});
  REQUIRE(rows.size() < examples.size());
  const Batch packed = packed_batch(rows, Packing::walls);
  CHECK(packed.ids.size() == 21 + 5 + 13 + 34 + 8 + 3 + 2 - 7);  // nothing is filled up
  std::vector<Batch> alone;
  for (std::size_t i = 0; i < examples.size(); ++i) alone.push_back(batch_of(examples, i, i + 1));
  const OneStep with_walls({packed}), singly(alone), filled({batch_of(examples, 0, examples.size())});
  CHECK(with_walls.loss == doctest::Approx(singly.loss).epsilon(1e-6));
  CHECK(difference(with_walls, singly) < 1e-6);
  CHECK(with_walls.loss == doctest::Approx(filled.loss).epsilon(1e-6));
  CHECK(difference(with_walls, filled) < 1e-6);
  CHECK(std::abs(OneStep({packed_batch(make_rows(examples, {Packing::stream, 40}), Packing::stream)}).loss - singly.loss) > 1e-4);
}

TEST_CASE("with BatchInvariant, texts behind walls have the very bits of the texts by themselves") {
  const lowrank::BatchInvariant invariant;
  Transformer model = small_model();
  LoraSet set = small_update(model);
  const auto examples = texts({21, 5, 34, 2});
  const auto rows = make_rows(examples, {Packing::walls, 100});
  REQUIRE(rows.size() == 1);
  const Batch batch = packed_batch(rows, Packing::walls);
  const lowrank::Activation<float> packed = model.logits(batch.ids, batch.sequences, {.lora = &set}).value();
  Index at = 0;
  for (const Example* example : rows.front()) {
    const auto count = static_cast<Index>(example->ids.size()) - 1;
    const lowrank::Activation<float> own = model.logits(std::span(example->ids).first(example->ids.size() - 1), 1, {.lora = &set}).value();
    CHECK(packed.middleCols(at, count) == own);
    at += count;
  }
}

TEST_CASE("texts of unequal length are refused where positions follow the length of the text") {
  Transformer model = small_model();
  model.config.growth = {.kind = RopeGrowth::Kind::dynamic, .original_context = 4, .factor = 2};
  const auto ids = texts({10}).front().ids;
  const std::span all(ids);
  CHECK_THROWS_WITH_AS(model.logits(all, lowrank::Sequences::with_lengths({7, 3})), doctest::Contains("one of several texts has 7 tokens"),
                       lowrank::ValueError);
  CHECK_NOTHROW(model.logits(all.first(7), lowrank::Sequences::with_lengths({4, 3})));
  CHECK_NOTHROW(model.logits(all, 2));
}

TEST_CASE("texts packed without walls are one text, and no text predicts another's first token") {
  const auto examples = texts({6, 4});
  const auto rows = make_rows(examples, {Packing::stream, 9});  // the last token of a row need not be read
  REQUIRE(rows.size() == 1);
  const Batch batch = packed_batch(rows, Packing::stream);
  std::vector<std::int32_t> ids = examples[0].ids, targets(9, lowrank::ignored_target);
  ids.insert(ids.end(), examples[1].ids.begin(), examples[1].ids.end());
  for (const std::size_t i : {2u, 3u, 4u, 7u, 8u}) targets[i] = ids[i + 1];
  ids.pop_back();
  CHECK(batch.ids == ids);
  CHECK(batch.targets == targets);
  CHECK(batch.sequences == lowrank::Sequences::with_lengths({9}));
  CHECK(make_rows(examples, {Packing::stream, 8}).size() == 2);
}

TEST_CASE("rows hold every text once, none more tokens than it may, and are filled by best fit") {
  const auto examples = texts({30, 11, 9, 21, 21, 12, 41, 60});  // tokens in a row with walls: one less
  const auto rows = make_rows(examples, {Packing::walls, 40});
  std::set<const Example*> seen;
  std::size_t count = 0;
  for (const Row& row : rows) {
    Index tokens = 0;
    for (const Example* example : row) tokens += static_cast<Index>(example->ids.size()) - 1, seen.insert(example), ++count;
    CHECK((tokens <= 40 || row.size() == 1));
  }
  CHECK(seen.size() == 8);
  CHECK(count == 8);
  CHECK(rows.size() == 5);  // 59 | 40 | 29 + 11 | 20 + 20 | 10 + 8
  CHECK(rows[2] == Row{&examples[0], &examples[5]});
  CHECK(make_rows(examples).size() == 8);
}

TEST_CASE("batches of n rows are those of 2n in halves, and an epoch deals each row once") {
  const auto examples = texts({4, 5, 6, 7, 8, 9});
  BatchStream whole(examples, 4, 5), halves(examples, 2, 5);
  for (Index step = 0; step < 6; ++step) {
    std::vector<std::int32_t> counted, split;
    for (const auto t : whole.at(step).targets)
      if (t != lowrank::ignored_target) counted.push_back(t);
    for (const Index half : {2 * step, 2 * step + 1})
      for (const auto t : halves.at(half).targets)
        if (t != lowrank::ignored_target) split.push_back(t);
    CHECK(counted == split);
  }
  std::multiset<std::int32_t> firsts, expected;
  for (Index step = 0; step < 3; ++step)
    firsts.insert(halves.at(step).ids.front()), firsts.insert(halves.at(step).ids[halves.at(step).ids.size() / 2]);
  for (const Example& example : examples) expected.insert(example.ids.front());
  CHECK(firsts == expected);
}

TEST_CASE("a run in stretches has the bits of one, with accumulation and masks of dropout") {
  const auto examples = texts({21, 5, 13, 34, 8, 3});
  for (const Schedule schedule : {Schedule::linear, Schedule::constant}) {
    const TrainOptions options{.steps = 5, .batch = 2, .warmup = 2, .accumulate = 2, .schedule = schedule, .seed = 9};
    const Trained whole(examples, options, {{}}), stretches(examples, options, {{0, 2}, {2, 3}, {3, 9}});
    CHECK(whole.losses.size() == 5);
    CHECK(stretches.losses == whole.losses);
    CHECK(stretches.numbers == whole.numbers);
  }
}

TEST_CASE("a constant rate makes a longer run the continuation of a shorter one, a falling one does not") {
  const auto examples = texts({21, 5, 13, 34});
  TrainOptions shorter{.steps = 2, .batch = 2, .schedule = Schedule::constant}, longer = shorter;
  longer.steps = 4;
  const Trained two(examples, shorter, {{}}), four(examples, longer, {{}});
  CHECK(std::equal(two.losses.begin(), two.losses.end(), four.losses.begin()));
  shorter.schedule = longer.schedule = Schedule::linear;
  CHECK(Trained(examples, shorter, {{}}).numbers != Trained(examples, longer, {{0, 2}}).numbers);
}

TEST_CASE("the first step of a warm-up moves by 1 / warmup of the rate in every schedule") {
  for (const Schedule schedule : {Schedule::linear, Schedule::cosine, Schedule::constant}) {
    const TrainOptions options{.steps = 100, .warmup = 5, .schedule = schedule};
    CHECK(learning_rate_share(options, 0) == 0.2);
    CHECK(learning_rate_share(options, 4) == 1);
    CHECK(learning_rate_share(options, 5) == 1);
  }
}

TEST_CASE("a data set's hash holds every token and what is predicted") {
  const auto examples = texts({21, 5, 13});
  auto other = examples;
  CHECK(fingerprint(other) == fingerprint(examples));
  other[1].ids[3] ^= 1;
  CHECK(fingerprint(other) != fingerprint(examples));
  other = examples, other[2].learned[6].flip();
  CHECK(fingerprint(other) != fingerprint(examples));
  other = examples, std::swap(other[0], other[2]);
  CHECK(fingerprint(other) != fingerprint(examples));
  other = examples, other.pop_back();
  CHECK(fingerprint(other) != fingerprint(examples));
}
