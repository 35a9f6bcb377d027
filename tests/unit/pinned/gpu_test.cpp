#include "together.hpp"

#include <lowrank/cuda.hpp>
#include <support/test_gpu.hpp>

using namespace lowrank;
using pins::Method;
using pins::Together;

namespace {

/// A parameter's gradient on the GPU, on the host.
Weight<float> gradient_on_gpu(simt_test::ModelGpu& gpu, Parameter<float>& parameter) {
  Weight<float> gradient(parameter.rows(), parameter.cols());
  gpu.download(reinterpret_cast<const std::byte*>(cuda::on_device(parameter).gradient()), gradient.data(),
               static_cast<std::size_t>(parameter.size()) * sizeof(float));
  return gradient;
}
void add_gpu_gradients(pins::Results& results, const std::string& name, simt_test::ModelGpu& gpu, LoraWeights<float>& update) {
  results.add(name + "/da", gradient_on_gpu(gpu, update.a));
  results.add(name + "/db", gradient_on_gpu(gpu, update.b));
  if (!update.bias.empty()) results.add(name + "/dbias", gradient_on_gpu(gpu, update.bias));
}

void pin_gpu_group(pins::Results& results, const std::string& name, Index tokens, bool has_wgmma) {
  const auto gpu = simt_test::test_gpu({}, has_wgmma);
  cuda::Use use(gpu);
  Together<float> group(Compute::bf16, {Method::lora, Method::none, Method::biased});
  std::vector<LayerUse> uses;
  for (std::size_t i = 0; i < group.layers.size(); ++i) uses.push_back({&group.layers[i], group.update(i)});
  const cuda::DeviceActivation x(pins::drawn_columns(128, tokens, 1));
  for (const auto& y : forward_together(uses, Var<float, Cuda>(x))) results.add(name + "/y", to_host(y.value()));
  for (const bool needs_dx : {true, false}) {
    const std::string prefix = needs_dx ? name : name + "/frozen_x";
    Tape<float, Cuda> tape;
    const auto input = needs_dx ? tape.variable(x) : tape.input(x);
    const auto y = forward_together(uses, input);
    const Index rows = y[0].value().rows();
    results.add(prefix + "/taped", to_host(y[1].value()));
    tape.backward(y[0], cuda::DeviceActivation(pins::drawn_columns(rows, tokens, 2)));
    if (needs_dx) results.add(prefix + "/dx", to_host(tape.gradient(input)));
    add_gpu_gradients(results, prefix + "/0", *gpu, *group.updates[0]);
  }
  {
    Tape<float, Cuda> tape;
    const auto input = tape.variable(x);
    const auto y = forward_together(uses, input);
    tape.backward(y[2], cuda::DeviceActivation(pins::drawn_columns(y[2].value().rows(), tokens, 3)));
    results.add(name + "/dx_of_2", to_host(tape.gradient(input)));
    add_gpu_gradients(results, name + "/2", *gpu, *group.updates[2]);
  }
}

void pin_gpu_ranges(pins::Results& results, const std::string& name, std::size_t i) {
  const auto gpu = simt_test::test_gpu();
  cuda::Use use(gpu);
  auto layer = std::move(pins::drawn_layers<float>(Compute::bf16)[i]);
  auto small = pins::drawn_update(layer, Method::lora, 2, 30), biased = pins::drawn_update(layer, Method::biased, 20, 40);
  const LayerUse uses[] = {{&layer, {}, {{0, 5, &small}, {5, 4, nullptr}, {9, 17, &biased}, {26, 6, &small}}}};
  Tape<float, Cuda> tape;
  const auto x = tape.variable(cuda::DeviceActivation(pins::drawn_columns(layer.in_features(), 32, 1)));
  const auto y = forward_together(uses, x)[0];
  results.add(name + "/y", to_host(y.value()));
  tape.backward(y, cuda::DeviceActivation(pins::drawn_columns(layer.out_features(), 32, 2)));
  results.add(name + "/dx", to_host(tape.gradient(x)));
  add_gpu_gradients(results, name + "/small", *gpu, small);
  add_gpu_gradients(results, name + "/biased", *gpu, biased);
}

}  // namespace

TEST_CASE("pinned: layers of one x on a GPU") {
  pins::check_pinned("gpu_groups", [](pins::Results& results) {
    for (const Index tokens : {1, 8, 9, 40})
      for (const bool has_wgmma : {false, true})
        pin_gpu_group(results, (has_wgmma ? "wgmma/t" : "mma/t") + std::to_string(tokens), tokens, has_wgmma);
  });
}

TEST_CASE("pinned: an update for each range of a batch on a GPU") {
  pins::check_pinned("gpu_ranges", [](pins::Results& results) {
    for (const std::size_t i : {0, 1, 2}) pin_gpu_ranges(results, std::to_string(i), i);
  });
}
