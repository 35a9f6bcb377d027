#include <doctest/doctest.h>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/nn/forward_together.hpp>
#include <lowrank/nn/parameter.hpp>
#include <lowrank/optim/adamw.hpp>

#include <tests/support/temporary.hpp>

#include "method_cases.hpp"

using namespace lowrank;
using namespace method_cases;

namespace {

/// Values of an update's numbers, and what the layers give for X, as one list.
std::vector<Activation<float>> state(Layers& layers, UpdateSet& set, const Activation<float>& x) {
  std::vector<Activation<float>> all{layers(x, set)};
  set.visit_parameters([&](Parameter<float>& parameter) { all.push_back(parameter.value); });
  return all;
}

void train(Layers& layers, UpdateSet& set, const Activation<float>& x) {
  const auto target = nn_test::random_columns<float>(64, x.cols(), 9);
  AdamW<float> optimizer(parameters(set), {.learning_rate = 0.02});
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    const Var<float> loss = mse(layers(tape.input(x), set), target);
    tape.backward(loss);
    optimizer.step();
  }
}

}  // namespace

TEST_CASE("trained, saved as PEFT does and loaded again, every method has the same bits, over dense and 4-bit bases") {
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  for (const std::string& format : formats) {
    Layers layers(format);
    for (const Case& method : all_cases()) {
      const auto& name = method.name;
      const LoraConfig& config = method.config;
      CAPTURE(format);
      CAPTURE(name);
      const auto named = layers.named_layers();
      UpdateSet set = new_updates(named, config, LoraInit::kaiming, 3);
      const auto before = state(layers, set, x);
      train(layers, set, x);
      const auto trained = state(layers, set, x);
      CHECK(trained.front() != before.front());
      const TemporaryFolder folder;
      peft::save(adapter_of(set, named, config), folder.path() / "adapter");
      UpdateSet again = apply(peft::load(folder.path() / "adapter"), layers);  // by the model, as by its list
      CHECK(state(layers, again, x) == trained);
      peft::save(adapter_of(again, layers, peft::load(folder.path() / "adapter").config), folder.path() / "again");
      UpdateSet third = lowrank::apply(peft::load(folder.path() / "again"), named);
      CHECK(state(layers, third, x) == trained);
    }
  }
}

TEST_CASE("ranges of one batch with updates of all methods give what each gives alone, forward and backward") {
  const auto all = all_cases();
  for (const std::string& format : formats) {
    CAPTURE(format);
    Layers layers(format);
    std::vector<UpdateSet> sets;
    for (const Case& method : all) {
      sets.push_back(new_updates(layers.named_layers(), method.config, LoraInit::kaiming, 3));
      move(sets.back());
    }
    const Index tokens = 3 * static_cast<Index>(sets.size()) + 2;
    const auto x = nn_test::random_columns<float>(64, tokens, 5), g = nn_test::random_columns<float>(96, tokens, 6);
    std::vector<UpdateRange> ranges;
    for (std::size_t i = 0; i < sets.size(); ++i) ranges.push_back({3 * static_cast<Index>(i), 3, sets[i].at(0)});
    const auto clear = [&] {
      for (UpdateSet& set : sets) set.visit_parameters([](Parameter<float>& p) { p.gradient().setZero(); });
    };
    const auto gradients = [](UpdateSet& set) {
      std::vector<Activation<float>> values;
      set.at(0)->visit_parameters([&](Parameter<float>& p) { values.push_back(p.grad); });
      return values;
    };
    clear();
    Tape<float> tape;
    const Var<float> input = tape.variable(x);
    const LayerUse use{&layers.up, {}, ranges};
    const Var<float> y = forward_together(std::span(&use, 1), input).front();
    tape.backward(y, g);
    std::vector<std::vector<Activation<float>>> together;
    for (UpdateSet& set : sets) together.push_back(gradients(set));
    clear();
    for (std::size_t i = 0; i < sets.size(); ++i) {
      CAPTURE(all[i].name);
      const Index begin = 3 * static_cast<Index>(i);
      Tape<float> own;
      const Var<float> part = own.variable(x.middleCols(begin, 3));
      const Var<float> alone = layers.up.forward(part, sets[i].at(0));
      own.backward(alone, g.middleCols(begin, 3));
      CHECK(alone.value().isApprox(y.value().middleCols(begin, 3), 1e-5f));
      CHECK(own.gradient(part).isApprox(tape.gradient(input).middleCols(begin, 3), 1e-5f));
      const auto apart = gradients(sets[i]);
      for (std::size_t k = 0; k < apart.size(); ++k) CHECK((apart[k] - together[i][k]).norm() <= 1e-5f * (1 + apart[k].norm()));
    }
    CHECK(layers.up.forward(Activation<float>(x.rightCols(2))).isApprox(y.value().rightCols(2), 1e-5f));
  }
}

TEST_CASE("merged into dense numbers every method gives what it gives beside its base, dense or in 4 bits") {
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  for (const std::string& format : formats)
    for (const Case& method : all_cases()) {
      const auto& name = method.name;
      const LoraConfig& config = method.config;
      CAPTURE(format);
      CAPTURE(name);
      Layers layers(format);
      UpdateSet set = new_updates(layers.named_layers(), config, LoraInit::kaiming, 3);
      move(set);
      const auto plan = set.at(0)->plan({.layer = detail::layer_view(layers.up.base)});
      const MergedSource merged(layers.up.base.source(), plan);
      Weight<float> w(96, 64), part(40, 17);
      merged.decode(0, 96, 0, 64, w.data(), 64);
      merged.decode(31, 40, 13, 17, part.data(), 17);  // as a window
      CHECK(part.isApprox(w.block(31, 13, 40, 17), 1e-5f));
      const Linear<float> whole(w, merged_bias(plan, layers.up.base.bias().value));
      CHECK(whole(x).isApprox(layers.up.forward(x, set.at(0)), 1e-4f));
    }
}

TEST_CASE("merged into its 4-bit base every method loses what rounding loses, and unmerged the base's bits are back") {
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  Weight<float> w(96, 64);
  fill_normal(w, 0.2, Random(1));
  const auto run = [&](const auto& base) {
    Layers layers("dense");
    layers.up = AdaptedLinear(AnyLinear(base));
    for (const Case& method : all_cases()) {
      const auto& name = method.name;
      const LoraConfig& config = method.config;
      CAPTURE(name);
      UpdateSet set = new_updates(layers.named_layers(), config, LoraInit::kaiming, 3);
      move(set);
      Adapted layer(base, *set.at(0));
      const Activation<float> y = layer(x);
      const MergeReport report = merge(layer);
      CHECK(report.relative_error < 0.15);
      CHECK((layer(x) - y).norm() < 0.2 * y.norm());
      unmerge(layer);
      CHECK(layer(x) == y);
    }
  };
  run(QuantizedLinear<Nf4<32>>(quantize<Nf4<32>>(w)));
  run(QuantizedLinear<Q4_1>(quantize<Q4_1>(w)));
}

TEST_CASE("methods that are a sum become LoRA, exactly where the rank suffices; the others are refused") {
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  for (const Case& method : all_cases()) {
    const auto& name = method.name;
    const LoraConfig& config = method.config;
    CAPTURE(name);
    Layers layers("nf4");
    UpdateSet set = new_updates(layers.named_layers(), config, LoraInit::kaiming, 3);
    move(set);
    const bool is_sum = !name.starts_with("dora") && !name.starts_with("ia3") && !name.starts_with("oft") && !name.starts_with("hra");
    if (!is_sum) {
      CHECK_THROWS_WITH_AS(to_lora(set, layers.named_layers(), RankChoice::rank(64)), doctest::Contains("merge it into the base"),
                           ValueError);
      continue;
    }
    const FittedAdapter exact = to_lora(set, layers.named_layers(), RankChoice::rank(64));
    for (const auto& [path, fit] : exact.fits) CHECK(fit.residual < 1e-5);
    const TemporaryFolder folder;
    peft::save(exact.adapter, folder.path() / "lora");
    UpdateSet lora = lowrank::apply(peft::load(folder.path() / "lora"), layers.named_layers());
    CHECK(layers(x, lora).isApprox(layers(x, set), 1e-4f));
    const FittedAdapter most = to_lora(set, layers.named_layers(), RankChoice::energy(0.9));
    for (const auto& [path, fit] : most.fits) {
      CHECK(fit.residual <= std::sqrt(0.1) + 1e-6);
      CHECK(fit.rank <= exact.fits.at(path).rank);
    }
  }
}
