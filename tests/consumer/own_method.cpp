// A stranger's method (strength.hpp), trained over a dense and a 4-bit layer, saved, loaded and compared.
#include <cstdio>

#include <lowrank/io/peft.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/ops/loss.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/update/set.hpp>

#include "strength.hpp"

int main() {
  using namespace lowrank;
  register_method(mine::strength_method());

  Weight<float> w(96, 64), v(64, 96);
  fill_normal(w, 0.2, Random(1)), fill_normal(v, 0.2, Random(2));
  AdaptedLinear up{AnyLinear(Linear<float>(w))}, down{AnyLinear(AnyMatrix(quantize<Nf4<32>>(v)))};
  up.base.set_trainable(false);
  const std::vector<NamedLayer> layers{{"mlp.up_proj", &up}, {"mlp.down_proj", &down}};

  LoraConfig config;
  set_method(config, "strength");
  config.fields["r"] = 4.0;
  config.target_modules = std::vector<std::string>{"up_proj", "down_proj"};
  UpdateSet set = new_updates(layers, config, LoraInit::kaiming, 3);

  Activation<float> x(64, 8), target(64, 8);
  fill_normal(x, 1, Random(4)), fill_normal(target, 1, Random(5));
  AdamW<float> optimizer(parameters(set), {.learning_rate = 0.02});
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    Var<float> loss = mse(down.forward(up.forward(tape.input(x), set.at(0)), set.at(1)), target);
    if (step % 10 == 0) std::printf("step %d: loss %.4f\n", step, static_cast<double>(loss.item()));
    tape.backward(loss);
    optimizer.step();
  }

  peft::save(adapter_of(set, layers, config), "strength_adapter");
  UpdateSet again = lowrank::apply(peft::load("strength_adapter"), layers);
  const auto result = [&](UpdateSet& of) { return down.forward(up.forward(x, of.at(0)), of.at(1)); };
  const bool same = result(again) == result(set), moved = result(set) != down.forward(up.forward(x));
  std::printf("loaded: %s\n", same ? "the same bits" : "something else");
  return same && moved ? 0 : 1;
}
