// Fine-tunes weights of a GGUF file in a model of one's own: tune_gguf GGUF STATE [STEP TO DIE AT]
// Written from the documents alone: docs/write_a_model.md, docs/save_and_resume.md, docs/from_peft.md.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <lowrank/adapters.hpp>
#include <lowrank/io.hpp>
#include <lowrank/lowrank.hpp>

using namespace lowrank;

namespace {

constexpr Index width = 64, inner = 160, classes = 40, blocks = 2, steps = 20;

using Projection = LoraLinear<AnyLinear>;

struct Block {
  Projection up, down;

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "up", up, "down", down);
  }
};

struct Model {
  std::vector<Block> layers;
  Parameter<float> norm;
  Projection head;

  explicit Model(const Weights& weights) : norm("", weights.vector("norm.weight")), head(projection(weights, "head", 2 * blocks)) {
    norm.trainable = false;
    for (Index i = 0; i < blocks; ++i) {
      const std::string name = "blk." + std::to_string(i);
      layers.push_back({projection(weights, name + ".up", 2 * i), projection(weights, name + ".down", 2 * i + 1)});
    }
  }
  Var<float> operator()(Var<float> x) {
    for (Block& block : layers) x = x + block.down(silu(block.up(rms_norm(x, norm, 1e-5f))));
    return head(rms_norm(x, norm, 1e-5f));
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "layers", layers, "norm", norm, "head", head);
  }

 private:
  static Projection projection(const Weights& weights, const std::string& name, Index number) {
    return Projection{AnyLinear{weights.matrix(name + ".weight")},
                      {.rank = 32, .alpha = 32, .dropout = 0.1, .stream = static_cast<std::uint64_t>(number)}};
  }
};

/// A model that somebody else has made.
void write_gguf(const std::filesystem::path& file) {
  std::vector<gguf::Tensor> tensors;
  const auto add = [&](const std::string& name, Index out, Index in, GgmlType type) {
    Weight<float> w(out, in);
    fill_normal(w, 0.1, Random(tensors.size()));
    tensors.push_back(gguf::save_matrix(safetensors::matrix(from_weight(name, w)), name, type).tensor);
  };
  for (Index i = 0; i < blocks; ++i) {
    add("blk." + std::to_string(i) + ".up.weight", inner, width, GgmlType::q4_1);
    add("blk." + std::to_string(i) + ".down.weight", width, inner, GgmlType::q8_0);
  }
  add("head.weight", classes, width, GgmlType::f16);
  const Weight<float> ones = Weight<float>::Ones(1, width);
  tensors.push_back({"norm.weight", GgmlType::f32, {width}, make_tensor<float>("", {width}, std::span(ones.data(), width)).bytes});
  gguf::write(file, {}, tensors);
}

/// The data of a step: points, and the class that a hidden map gives each.
struct Batch {
  Activation<float> x{width, 16};
  std::vector<std::int32_t> classes_of;

  explicit Batch(Index step) {
    Weight<float> hidden(classes, width);
    fill_normal(hidden, 1, Random(99));
    fill_normal(x, 1, Random(7, static_cast<std::uint64_t>(step)));
    const Activation<float> scores = hidden * x;
    for (Index t = 0; t < x.cols(); ++t) {
      Index best = 0;
      scores.col(t).maxCoeff(&best);
      classes_of.push_back(static_cast<std::int32_t>(best));
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path weights_file = argc > 1 ? argv[1] : "someones.gguf", file = argc > 2 ? argv[2] : "run.safetensors";
  const Index dies_at = argc > 3 ? std::atol(argv[3]) : -1;
  if (!std::filesystem::exists(weights_file)) write_gguf(weights_file);

  Model model(load_weights(weights_file));
  AdamW8bit optimizer{parameters(model), {.learning_rate = 1e-2}};
  if (std::filesystem::exists(file)) load(model, optimizer, file, {.frozen = false});
  for (Index step = optimizer.steps(); step < steps; ++step) {
    if (step == dies_at) std::_Exit(9);
    const Batch batch(step);
    optimizer.set_learning_rate_share(cosine_schedule(step, {.steps = steps, .warmup = 4}));
    optimizer.zero_grad();
    Tape tape;
    const Var loss = cross_entropy(model(tape.input(batch.x)), batch.classes_of);
    tape.backward(loss);
    optimizer.step();
    if (step % 5 == 0) std::printf("step %td: loss %.4f\n", step, static_cast<double>(loss.item()));
    if (step % 5 == 4) save(model, optimizer, file, {.frozen = false});
  }

  std::cout << summary(model);
  const Adapter adapter = adapter_of(model);
  peft::save(adapter, "adapter");
  Model served(load_weights(weights_file));
  load_adapter(served, peft::load("adapter"));
  const Var x(Batch(steps).x);
  return served(x).value() == model(x).value() ? 0 : 1;
}
