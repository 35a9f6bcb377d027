// What each optimizer brings and costs on the tiny model: LoRA of one rank for a number of steps, each optimizer at the learning rate of a
// grid that serves it best. Prints a table: held-out loss (validation chooses the rate, the test text is read once), bytes of state, time.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/io/gguf.hpp>
#include <lowrank/optim/adamw8bit.hpp>
#include <lowrank/optim/clip.hpp>
#include <lowrank/optim/lion.hpp>
#include <lowrank/optim/sgd.hpp>

#include <transformer/adapters.hpp>
#include <transformer/load_gguf.hpp>
#include <transformer/tokenizer.hpp>
#include <transformer/train.hpp>

namespace {

using lowrank::Index;
using transformer::Example;

constexpr Index steps = 40, batch = 8, sequence = 128, rank = 16;

struct Texts {
  std::vector<Example> train, validation, test;
};

struct Result {
  double rate = 0, validation = std::numeric_limits<double>::infinity(), test = 0, step_milliseconds = 0;
  std::size_t state_bytes = 0;
};

template <class Optimizer>
Result run(transformer::Transformer& model, const Texts& texts, double rate, std::uint64_t seed) {
  lowrank::LoraConfig config;
  config.rank = rank;
  config.alpha = 2.0 * rank;
  config.target_modules = std::string("all-linear");
  transformer::LoraSet lora = transformer::new_lora(model, config, lowrank::LoraInit::kaiming, seed);
  const auto parameters = transformer::parameters(model, lora);
  Optimizer optimizer(parameters, {.learning_rate = rate, .weight_decay = 0});
  transformer::BatchStream batches(texts.train, batch, seed);
  lowrank::Tape tape;
  std::chrono::duration<double, std::milli> in_steps{0};
  for (Index step = 0; step < steps; ++step) {
    optimizer.set_learning_rate_share(transformer::learning_rate_share({.steps = steps, .warmup = 3}, step));
    const transformer::Batch b = batches.at(step);
    optimizer.zero_grad();
    tape.backward(model.loss(b.ids, b.targets, b.sequences, {.tape = &tape, .lora = &lora}));
    lowrank::clip_gradient_norm(parameters, 1.0);
    const auto start = std::chrono::steady_clock::now();
    optimizer.step();
    in_steps += std::chrono::steady_clock::now() - start;
  }
  Result result{rate};
  result.validation = transformer::evaluate(model, &lora, texts.validation).mean_nll;
  result.test = transformer::evaluate(model, &lora, texts.test).mean_nll;
  result.step_milliseconds = in_steps.count() / steps;
  result.state_bytes = optimizer.bytes();
  return result;
}

template <class Optimizer>
void compare(const char* name, transformer::Transformer& model, const Texts& texts, const std::vector<double>& rates) {
  Result best;
  for (const double rate : rates) {
    const Result result = run<Optimizer>(model, texts, rate, 1);
    if (result.validation < best.validation) best = result;
  }
  double test = best.test, squares = best.test * best.test;
  constexpr int seeds = 3;
  for (std::uint64_t seed = 2; seed <= seeds; ++seed) {
    const double loss = run<Optimizer>(model, texts, best.rate, seed).test;
    test += loss, squares += loss * loss;
  }
  const double mean = test / seeds, deviation = std::sqrt(std::max(0.0, (squares - test * mean) / (seeds - 1)));
  std::printf("| %-9s | %-7g | %.4f ± %.4f | %6.1f KiB | %6.3f ms |\n", name, best.rate, mean, deviation,
              static_cast<double>(best.state_bytes) / 1024, best.step_milliseconds);
}

}  // namespace

int main() {
  const std::filesystem::path folder = std::filesystem::path(LOWRANK_EXAMPLES_DIR) / "data";
  const auto file = lowrank::gguf::File::open(folder / "demo.gguf");
  transformer::Transformer model = transformer::load_gguf(file);
  const auto tokenizer = transformer::Tokenizer::from_gguf(file);
  const auto read = [&](const char* name) {
    return transformer::windows(tokenizer.encode(transformer::read_text(folder / "domains" / name)), sequence);
  };
  Texts texts{read("legal.train.txt"), {}, read("legal.heldout.txt")};
  const std::size_t held = texts.train.size() / 8;
  texts.validation.assign(texts.train.end() - static_cast<std::ptrdiff_t>(held), texts.train.end());
  texts.train.resize(texts.train.size() - held);
  std::printf("LoRA of rank %td, all linear layers, %td steps of %td x %td tokens, test loss of %d seeds; bare base %.4f\n\n", rank, steps,
              batch, sequence, 3, transformer::evaluate(model, nullptr, texts.test).mean_nll);
  std::printf("| optimizer | rate    | test loss       | state      | a step    |\n|---|---|---|---|---|\n");
  compare<lowrank::AdamW<float>>("AdamW", model, texts, {4e-3, 8e-3, 1.6e-2, 3.2e-2});
  compare<lowrank::AdamW8bit<float>>("AdamW8bit", model, texts, {4e-3, 8e-3, 1.6e-2, 3.2e-2});
  compare<lowrank::Lion<float>>("Lion", model, texts, {1e-3, 2e-3, 4e-3, 8e-3});
  compare<lowrank::Sgd<float>>("SGD", model, texts, {0.3, 1, 3});
}
