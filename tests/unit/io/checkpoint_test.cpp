#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/io/checkpoint.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/optim/schedule.hpp>
#include <lowrank/optim/sgd.hpp>
#include <lowrank/quant/nf4.hpp>

#include <support/temporary.hpp>

using namespace lowrank;

namespace {

struct Run {
  LoraLinear<QuantizedLinear<Nf4<64>>> first;
  LoraLinear<Linear<float, 8, 6>, 2> second{Linear<float, 8, 6>()};
  AdamW<float> optimizer{{}, {}};

  explicit Run(std::uint64_t seed = 3, double dropout = 0.5)
      : first(QuantizedLinear{quantize<Nf4<64>>(Weight<float>(Weight<float>::Constant(8, 64, 0.5f)))},
              {.rank = 2, .dropout = dropout, .seed = seed}) {
    optimizer = AdamW<float>{parameters(*this), {.learning_rate = 0.01}};
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "first", first, "second", second);
  }
  void go_on_to(Index end) {
    Tape tape;
    for (Index step = optimizer.steps(); step < end; ++step) {
      Random random(7, static_cast<std::uint64_t>(step));
      Activation<float> x(64, 4);
      fill_normal(x, 1.0, random);
      optimizer.set_learning_rate_share(cosine_schedule(step, {.steps = 10, .warmup = 2}));
      optimizer.zero_grad();
      tape.backward(mse(second(first(tape.input(x))), Activation<float>::Ones(6, 4)));
      optimizer.step();
    }
  }
  std::vector<std::byte> bytes() {
    std::vector<std::byte> all;
    for (const auto& array : with_optimizer(state(*this), optimizer)) all.insert(all.end(), array.bytes.begin(), array.bytes.end());
    return all;
  }
};

std::string load_message(Run& run, const std::filesystem::path& file) {
  try {
    load(run, run.optimizer, file);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a run that is saved and loaded goes on to the same bits") {
  const ::TemporaryFolder folder;
  const auto file = folder.path() / "run.safetensors";
  Run whole, before;
  whole.go_on_to(6);
  before.go_on_to(3);
  save(before, before.optimizer, file);
  Run after(99);  // other numbers, other masks
  load(after, after.optimizer, file);
  CHECK(after.optimizer.steps() == 3);
  CHECK(after.optimizer.learning_rate() == before.optimizer.learning_rate());
  CHECK(after.first.update().dropout.stream == 3);
  CHECK(after.bytes() == before.bytes());
  after.go_on_to(6);
  CHECK(after.bytes() == whole.bytes());
  Run served;
  load(served, file);  // what was trained, without the optimizer
  CHECK(served.first.a().value == before.first.a().value);
  CHECK(served.optimizer.steps() == 0);
}

TEST_CASE("a file that does not fit is refused with a list of names, and nothing changes") {
  const ::TemporaryFolder folder;
  const auto file = folder.path() / "run.safetensors";
  Run run;
  run.go_on_to(2);
  save(run, file, {.frozen = false});
  const auto before = run.bytes();
  std::string message = load_message(run, file);
  CHECK(has(message, "missing second.base_layer.weight, optimizer/0/first.lora_A.weight/first_moment, "));
  CHECK(has(message, " more"));
  CHECK_FALSE(has(message, "unexpected"));
  std::vector<float> numbers(12, 0.0f);
  auto arrays = with_optimizer(state(run), run.optimizer);
  arrays.push_back(state_array("third", std::span(numbers), {3, 4}));
  save_state(file, arrays);
  CHECK(has(load_message(run, file), "; unexpected third; "));
  arrays.pop_back();
  arrays[0] = state_array(arrays[0].name, std::span(numbers), {3, 4});
  save_state(file, arrays);
  CHECK(has(load_message(run, file), "shape: first.lora_A.weight (F32 [3, 4] there, F32 [2, 64] here)"));
  CHECK(run.bytes() == before);
}

TEST_CASE("a state with a negative number of steps or a rate that is no number is refused") {
  const ::TemporaryFolder folder;
  const auto file = folder.path() / "run.safetensors";
  Run run;
  const auto before = run.bytes();
  for (const auto& [name, fault] : {std::pair{"optimizer/steps", "a number of steps cannot be negative"},
                                    std::pair{"optimizer/group 0/learning_rate", "a learning rate must be finite"}}) {
    auto arrays = with_optimizer(state(run), run.optimizer);
    const auto found = std::ranges::find(arrays, std::string(name), &StateArray::name);
    REQUIRE(found != arrays.end());
    std::vector<std::byte> ones(8, std::byte{0xff});
    found->bytes = ones;
    save_state(file, arrays);
    CHECK(has(load_message(run, file), fault));
  }
  CHECK(run.bytes() == before);
  CHECK_THROWS_AS(load(run, folder.path() / "none.safetensors"), IoError);
}
