#include <lowrank/cuda/kernels/adamw.hpp>
#include <lowrank/optim/adamw.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

/// Tensors of awkward sizes with their state, as AdamWRule and as the kernels hold it.
struct Model {
  std::vector<Index> sizes{0, 1, 1024, 0, 1025, 5000, 0};
  std::vector<std::vector<float>> value, grad, memory;
  std::vector<cuda::OptimizedTensor> tensors;
  int blocks = 0;

  Model() {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      value.push_back(random_numbers(sizes[i], 10 + i));
      grad.push_back(random_numbers(sizes[i], 20 + i));
      memory.emplace_back(2 * static_cast<std::size_t>(sizes[i]), 0.01f);
    }
    for (std::size_t i = 0; i < sizes.size(); ++i)
      tensors.push_back({value[i].data(), grad[i].data(), memory[i].data(), memory[i].data() + sizes[i], sizes[i], 0});
    blocks = cuda::number_blocks(tensors.data(), static_cast<int>(tensors.size()));
  }
  Model(const Model&) = delete;
};

}  // namespace

TEST_CASE("AdamW over many tensors in one launch, as AdamWRule on each") {
  const AdamWOptions options{.learning_rate = 0.01};
  Model expected;
  for (std::size_t i = 0; i < expected.sizes.size(); ++i) {
    for (float& g : expected.grad[i]) g *= 0.5f;
    Moments<float> memory = AdamWRule::memory<float>(options, 1, expected.sizes[i]);
    memory.numbers = expected.memory[i];
    AdamWRule::update<float>(options, {expected.value[i], expected.grad[i], 1, expected.sizes[i], 3}, memory);
    expected.memory[i] = memory.numbers;
  }
  const cuda::AdamWNumbers numbers{static_cast<float>(1 - options.learning_rate * options.weight_decay),
                                   static_cast<float>(options.learning_rate / (1 - std::pow(options.beta1, 3))),
                                   static_cast<float>(std::sqrt(1 - std::pow(options.beta2, 3))),
                                   static_cast<float>(options.beta2),
                                   static_cast<float>(options.epsilon),
                                   static_cast<float>(1 - options.beta1),
                                   static_cast<float>(1 - options.beta2)};
  const float factor = 0.5f;
  const auto values = on_every_schedule([&](Machine& machine) {
    Model model;
    launch(machine, cuda::AdamWUpdate{model.tensors.data(), 7, model.blocks, &numbers, &factor});
    std::vector<float> all;
    for (std::size_t i = 0; i < model.sizes.size(); ++i) {
      all.insert(all.end(), model.value[i].begin(), model.value[i].end());
      for (std::size_t k = 0; k < model.memory[i].size(); ++k)
        CHECK(model.memory[i][k] == doctest::Approx(expected.memory[i][k]).epsilon(1e-6));
      for (const float g : model.grad[i]) CHECK(g == 0);
    }
    return all;
  });
  std::size_t at = 0;
  for (const auto& value : expected.value)
    for (const float v : value) CHECK(values[at++] == doctest::Approx(v).epsilon(1e-5));
}

TEST_CASE("the norm of all gradients and the factor that clips it") {
  Model model;
  double squares = 0;
  for (const auto& grad : model.grad)
    for (const float g : grad) squares += static_cast<double>(g) * static_cast<double>(g);
  const double norm = std::sqrt(squares);
  for (const float max_norm : {1.0f, 1000.0f}) {
    const auto result = on_every_schedule([&](Machine& machine) {
      std::vector<double> partials(static_cast<std::size_t>(model.blocks));
      std::vector<float> out(2);
      launch(machine, cuda::SquaredSums{model.tensors.data(), 7, model.blocks, partials.data()});
      launch(machine, cuda::ClipFactor{partials.data(), model.blocks, max_norm, &out[0], &out[1]});
      return out;
    });
    CHECK(result[0] == doctest::Approx(norm).epsilon(1e-6));
    CHECK(result[1] == doctest::Approx(max_norm < 2 ? 1 / (norm + 1e-6) : 1).epsilon(1e-6));
  }
  model.grad[4][7] = INFINITY;
  std::vector<double> partials(static_cast<std::size_t>(model.blocks));
  float out[2];
  Machine machine;
  launch(machine, cuda::SquaredSums{model.tensors.data(), 7, model.blocks, partials.data()});
  launch(machine, cuda::ClipFactor{partials.data(), model.blocks, 1, &out[0], &out[1]});
  CHECK(std::isinf(out[0]));
  CHECK(out[1] == 1);
}
