#include <doctest/doctest.h>

#include <lowrank/core/random.hpp>
#include <lowrank/cuda.hpp>
#include <lowrank/optim/clip.hpp>
#include <lowrank/quant.hpp>

#include <support/test_gpu.hpp>

#include "random_numbers.hpp"

using namespace lowrank;
using cuda_test::random_numbers;
using simt_test::test_gpu;

namespace {

Activation<float> random_activation(Index rows, Index cols, std::uint64_t stream) {
  const auto numbers = random_numbers(rows * cols, stream);
  return ConstActivationMap<float>(numbers.data(), rows, cols);
}

/// ‖a − b‖∞ / ‖b‖∞.
double difference(const Activation<float>& a, const Activation<float>& b) {
  REQUIRE(a.rows() == b.rows());
  REQUIRE(a.cols() == b.cols());
  return static_cast<double>((a - b).cwiseAbs().maxCoeff()) / std::max(1e-30, static_cast<double>(b.cwiseAbs().maxCoeff()));
}
constexpr double bfloat16_rounding = 0x1p-6;  // of several factors in a row

LoraWeights<float> random_update(Index in, Index out, Index rank, std::uint64_t stream) {
  auto update = make_lora<float>(in, out, {.rank = rank, .alpha = 2.0 * static_cast<double>(rank), .lora_bias = true});
  const auto b = random_numbers(out * rank, stream, -0.2f, 0.2f), bias = random_numbers(out, stream + 1);
  update.b.value = ConstWeightMap<float>(b.data(), out, rank);
  update.bias.value = ConstWeightMap<float>(bias.data(), out, 1);
  return update;
}

/// A transformer block in small: 4 heads on 2, NF4 and Q8_0 and dense weights.
struct Block {
  static constexpr Index hidden = 128, width = 128, tokens = 36, sequences = 2, vocabulary = 50;
  std::vector<AdaptedLinear> layers;
  std::vector<LoraWeights<float>> updates;
  Parameter<float> norm;
  AnyLinear head;
  std::shared_ptr<const RopeTable<float>> table;
  std::vector<std::int32_t> targets;

  explicit Block(Compute compute = Compute::bf16) {
    const auto add = [&](AnyMatrix weight, Column<float> bias = {}) {
      layers.emplace_back(AnyLinear(std::move(weight), std::move(bias)));
      layers.back().base.set_compute(compute);
      updates.push_back(random_update(layers.back().in_features(), layers.back().out_features(), 4, 50 + layers.size()));
    };
    const auto numbers = random_numbers(hidden * width, 3, -0.3f, 0.3f), bias = random_numbers(width, 4);
    const Weight<float> w = ConstWeightMap<float>(numbers.data(), width, hidden);
    add(AnyMatrix(quantize<Nf4<64>>(w)), ConstWeightMap<float>(bias.data(), width, 1));
    add(AnyMatrix(quantize<Q8_0>(Weight<float>(w.topRows(64)))));
    add(AnyMatrix(quantize<Nf4<64, DoubleQuant>>(Weight<float>(w.bottomRows(64)))));
    add(AnyMatrix(quantize<Q4_1>(w)));
    add(AnyMatrix(quantize<Q4_0>(w)));
    const auto scale = random_numbers(hidden, 5, 0.5f, 1.5f), head_numbers = random_numbers(vocabulary * hidden, 6);
    norm.value = ConstWeightMap<float>(scale.data(), hidden, 1);
    Linear<float> dense(Weight<float>(ConstWeightMap<float>(head_numbers.data(), vocabulary, hidden)));
    dense.set_trainable(false);
    head = AnyLinear(std::move(dense));
    head.set_compute(compute);
    std::vector<Index> positions(tokens);
    for (Index t = 0; t < tokens; ++t) {
      positions[static_cast<std::size_t>(t)] = t % (tokens / sequences);
      targets.push_back(t % 7 == 0 ? ignored_target : static_cast<std::int32_t>((t * 13) % vocabulary));
    }
    table = std::make_shared<const RopeTable<float>>(positions, RopeOptions{.head_size = 32});
  }

  template <class Device>
  Var<float, Device> loss(const Var<float, Device>& x, bool recompute) {
    const auto block = [this](const Var<float, Device>& in) {
      const auto use = [&](std::size_t i) { return LayerUse{&layers[i], &updates[i]}; };
      const auto n = rms_norm(in, norm, 1e-5f);
      const LayerUse qkv[] = {use(0), use(1), use(2)};
      auto outputs = forward_together(qkv, n);
      const auto y =
          attention(rope(outputs[0], table), rope(outputs[1], table), outputs[2], AttentionShape{4, 2, 32, sequences}, head.compute());
      const LayerUse gates[] = {use(3), use(4)};
      auto gated = forward_together(gates, in + y);
      return swiglu(gated[0], gated[1]) + in;
    };
    return linear_cross_entropy(head, recompute ? checkpoint(x, block) : block(x), targets);
  }
  /// Loss, dX, and all parameters' gradients.
  std::vector<Activation<float>> on_cpu(const Activation<float>& x) {
    Tape<float> tape;
    const auto in = tape.variable(x);
    const auto value = loss(in, false);
    tape.backward(value);
    std::vector<Activation<float>> results{value.value(), tape.gradient(in)};
    for_each_parameter([&](Parameter<float>& p) { results.push_back(p.grad); });
    return results;
  }
  std::vector<Activation<float>> on_gpu(const Activation<float>& x, bool recompute) {
    Tape<float, Cuda> tape;
    const auto in = tape.variable(cuda::DeviceActivation(x));
    const auto value = loss(in, recompute);
    tape.backward(value);
    std::vector<Activation<float>> results{value.value().to_host(), tape.gradient(in).to_host()};
    for_each_parameter([&](Parameter<float>& p) {
      Weight<float> gradient(p.rows(), p.cols());
      auto& machine = cuda::Machine::current();
      machine.download(reinterpret_cast<const std::byte*>(cuda::on_device(p).gradient()), gradient.data(),
                       static_cast<std::size_t>(p.size()) * sizeof(float));
      results.push_back(gradient);
    });
    return results;
  }
  template <class F>
  void for_each_parameter(const F& f) {
    f(norm);
    for (auto& update : updates) update.visit_parameters(f);
  }
};

}  // namespace

TEST_CASE("a block of a transformer on a GPU: loss and every gradient as on the CPU, recomputed or not, under every schedule") {
  const auto x = random_activation(Block::hidden, Block::tokens, 1);
  Block exact(Compute::fp32), rounding;
  const auto expected = exact.on_cpu(x), rounded = rounding.on_cpu(x);
  const auto run = [&](const simt_test::Schedule& schedule, bool has_wgmma, bool recompute) {
    const auto gpu = test_gpu(schedule, has_wgmma);
    cuda::Use use(gpu);
    Block block;
    const auto results = block.on_gpu(x, recompute);
    REQUIRE(results.size() == expected.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      CAPTURE(i);
      CHECK(difference(results[i], expected[i]) < 2 * difference(rounded[i], expected[i]) + 1e-3);  // no worse than the CPU's bf16
    }
    return results;
  };
  for (const bool has_wgmma : {false, true}) {
    const auto first = run(simt_test::schedules[0], has_wgmma, false);
    CHECK(run(simt_test::schedules[1], has_wgmma, true)[0] == first[0]);
    if (!has_wgmma) CHECK(run(simt_test::schedules[2], has_wgmma, false) == first);  // to the bit
  }
}

TEST_CASE("a recorded step: AdamW with clipping and two groups, as on the CPU, from new ids each time and without a new allocation") {
  const auto x = random_activation(Block::hidden, Block::tokens, 1);
  const AdamWOptions slow{.learning_rate = 1e-2, .weight_decay = 0.1}, fast{.learning_rate = 4e-2, .weight_decay = 0};
  const auto optimizer_of = [&](Block& block) {
    std::vector<ParameterRef<float>> a, b;
    for (auto& update : block.updates) a.push_back(reference(update.a)), b.push_back(reference(update.b));
    block.norm.trainable = false;
    for (auto& update : block.updates) update.bias.trainable = false;
    AdamW<float> optimizer(a, slow);
    optimizer.add_group(b, fast);
    return optimizer;
  };
  const auto parameters_of = [](Block& block) {
    std::vector<ParameterRef<float>> all;
    for (auto& update : block.updates) all.push_back(reference(update.a)), all.push_back(reference(update.b));
    return all;
  };
  const auto targets_of_step = [](Block& block, int step) {
    for (auto& target : block.targets) target = target == ignored_target ? target : (target + step) % static_cast<int>(Block::vocabulary);
  };

  Block host;
  auto optimizer = optimizer_of(host);
  std::vector<float> losses;
  for (int step = 0; step < 4; ++step) {
    targets_of_step(host, step);
    Tape<float> tape;
    const auto loss = host.loss(tape.input(x), false);
    optimizer.zero_grad();
    tape.backward(loss);
    clip_gradient_norm(parameters_of(host), 0.5);
    optimizer.step();
    losses.push_back(loss.item());
  }

  const auto gpu = test_gpu();
  cuda::Use use(gpu);
  Block block;
  auto on_host = optimizer_of(block);
  cuda::DeviceAdamW steps(on_host);
  const cuda::DeviceActivation input(x);
  Tape<float, Cuda> tape;
  Var<float, Cuda> loss;
  const auto step = [&] {
    loss = block.loss(tape.input(input), false);
    tape.backward(loss);
    steps.update(0.5);
  };
  std::vector<float> results;
  targets_of_step(block, 0);
  steps.begin_step();
  step();  // as it is
  results.push_back(loss.item());
  targets_of_step(block, 1);
  steps.begin_step();
  std::vector<Var<float, Cuda>> seen;
  cuda::Recording recording(*gpu, [&] {
    step();
    seen.push_back(loss);
  });
  results.push_back(seen[0].item());  // the rehearsal was the second step
#if !defined(LOWRANK_TEST_ON_A_GPU)
  const int allocations = gpu->heap->allocations;
#endif
  for (int i = 2; i < 4; ++i) {
    targets_of_step(block, i);
    steps.begin_step();
    recording.run();
    results.push_back(seen[1].item());
  }
#if !defined(LOWRANK_TEST_ON_A_GPU)
  CHECK(gpu->heap->allocations == allocations);
#endif
  for (std::size_t i = 0; i < 4; ++i) CHECK(results[i] == doctest::Approx(losses[i]).epsilon(2e-2));
  steps.download();
  CHECK(on_host.steps() == 4);
  for (std::size_t i = 0; i < block.updates.size(); ++i) {
    const auto &a = block.updates[i].a.value, &expected = host.updates[i].a.value;
    Block start;
    const double moved = static_cast<double>((expected - start.updates[i].a.value).norm());
    CHECK(moved > 0);
    CHECK(static_cast<double>((a - expected).norm()) <
          0.2 * moved);  // AdamW's first steps are signs of gradients, small ones of which flip
  }
}

namespace {

/// A layer with two updates of ranges of its 40 tokens gives on a GPU what it gives on the CPU, gradients too.
template <class First, class Second>
void check_as_on_cpu(First first, Second second, std::vector<UpdateRange> (*ranges_of)(First&, Second&)) {
  const Index in = 96, out = 64, tokens = 40;
  const auto w = random_numbers(in * out, 2, -0.3f, 0.3f);
  AdaptedLinear layer{AnyLinear(AnyMatrix(quantize<Nf4<32>>(Weight<float>(ConstWeightMap<float>(w.data(), out, in)))))};
  layer.base.set_compute(Compute::bf16);
  const auto x = random_activation(in, tokens, 1), g = random_activation(out, tokens, 9);
  const LayerUse uses[] = {{&layer, {}, ranges_of(first, second)}};

  Tape<float> tape;
  const auto host_x = tape.variable(x);
  const auto y = forward_together(uses, host_x)[0];
  tape.backward(y, g);

  const auto gpu = test_gpu(simt_test::schedules[2]);
  cuda::Use use(gpu);
  Tape<float, Cuda> device_tape;
  const auto device_x = device_tape.variable(cuda::DeviceActivation(x));
  const auto device_y = forward_together(uses, device_x)[0];
  device_tape.backward(device_y, cuda::DeviceActivation(g));
  CHECK(difference(to_host(device_y.value()), y.value()) < bfloat16_rounding);
  CHECK(difference(to_host(device_tape.gradient(device_x)), tape.gradient(host_x)) < bfloat16_rounding);
  const auto check_gradient = [&](Parameter<float>& p) {
    Weight<float> gradient(p.rows(), p.cols());
    gpu->download(reinterpret_cast<const std::byte*>(cuda::on_device(p).gradient()), gradient.data(),
                  static_cast<std::size_t>(p.size()) * sizeof(float));
    CHECK(difference(gradient, p.grad) < bfloat16_rounding);
  };
  first.visit_parameters(check_gradient);
  second.visit_parameters(check_gradient);
}

/// A method of its own: s B M A, M dense or a diagonal.
struct WithMiddle {
  using Scalar = float;
  Parameter<float> a, b, m;

  WithMiddle(Index rank_a, Index rank_b, bool is_diagonal) {
    const auto fill = [](Parameter<float>& parameter, Index rows, Index cols, std::uint64_t stream) {
      const auto numbers = random_numbers(rows * cols, stream);
      parameter.value = ConstWeightMap<float>(numbers.data(), rows, cols);
    };
    fill(a, rank_a, 96, 60), fill(b, 64, rank_b, 61), fill(m, rank_b, is_diagonal ? 1 : rank_a, 62);
  }
  Plan<float> plan(const PlanRequest<float>&) {
    Plan<float> plan;
    plan.a = factor(a), plan.b = factor(b), plan.middle = factor(m);
    plan.scale = 0.5f;
    plan.trains_a = plan.trains_b = plan.trains_middle = true;
    return plan;
  }
  void add_gradients(const PlanGradients<float>& gradients) {
    add_gradient(a, gradients.a), add_gradient(b, gradients.b), add_gradient(m, gradients.middle);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a), visitor(b), visitor(m);
  }
};

}  // namespace

TEST_CASE("another update for each range of tokens on a GPU, as on the CPU") {
  using Lora = LoraWeights<float>;
  check_as_on_cpu<Lora, Lora>(random_update(96, 64, 3, 20), random_update(96, 64, 40, 30), [](auto& small, auto& large) {
    return std::vector<UpdateRange>{{0, 5, nullptr}, {5, 17, &large}, {22, 1, &small}, {23, 17, &large}};
  });
}

TEST_CASE("updates that share tokens add up on a GPU, as on the CPU") {
  using Lora = LoraWeights<float>;
  check_as_on_cpu<Lora, Lora>(random_update(96, 64, 3, 20), random_update(96, 64, 40, 30), [](auto& small, auto& large) {
    return std::vector<UpdateRange>{{0, 40, &small}, {0, 40, &large}, {7, 20, &small}};
  });
}

TEST_CASE("updates with a middle factor on a GPU, as on the CPU") {
  check_as_on_cpu<WithMiddle, WithMiddle>({7, 5, false}, {6, 6, true}, [](auto& dense, auto& diagonal) {
    return std::vector<UpdateRange>{{0, 40, &dense}, {3, 30, &diagonal}};
  });
  check_as_on_cpu<WithMiddle, WithMiddle>({4, 33, false}, {6, 6, true}, [](auto& dense, auto& diagonal) {
    return std::vector<UpdateRange>{{0, 40, &diagonal}, {0, 12, &dense}};
  });
}

TEST_CASE("the loss of a head in slices of tokens is that of all at once") {
  const auto gpu = test_gpu();
  cuda::Use use(gpu);
  Block block;
  const auto x = random_activation(Block::hidden, Block::tokens, 1);
  const auto run = [&](Index slice_numbers) {
    Tape<float, Cuda> tape;
    const auto in = tape.variable(cuda::DeviceActivation(x));
    const auto loss = linear_cross_entropy(block.head, in, block.targets, slice_numbers);
    tape.backward(loss);
    return std::pair{loss.item(), to_host(tape.gradient(in))};
  };
  const auto [whole, gradient] = run(1 << 20);
  const auto [sliced, sliced_gradient] = run(5 * Block::vocabulary);
  CHECK(sliced == whole);
  CHECK(difference(sliced_gradient, gradient) < 1e-6);
  Tape<float, Cuda> tape;
  const auto in = tape.variable(cuda::DeviceActivation(x));
  AdaptedLinear head{block.head};
  const LayerUse heads[] = {{&head}};
  const auto loss = cross_entropy(forward_together(heads, in)[0], block.targets);
  tape.backward(loss);
  CHECK(loss.item() == doctest::Approx(whole).epsilon(1e-6));
  CHECK(difference(to_host(tape.gradient(in)), gradient) < 1e-2);
}

TEST_CASE("rows of a token table of every kind") {
  const auto gpu = test_gpu();
  cuda::Use use(gpu);
  const auto numbers = random_numbers(10 * 64, 3);
  const Weight<float> w = ConstWeightMap<float>(numbers.data(), 10, 64);
  const std::int32_t ids[] = {3, 0, 9, 3};
  Linear<float> dense(w);
  dense.set_trainable(false);
  for (AnyLinear table :
       {AnyLinear(AnyMatrix(quantize<Nf4<64>>(w))), AnyLinear(AnyMatrix(quantize<Q8_0>(w))), AnyLinear(std::move(dense))}) {
    const Tape<float, Cuda>* none = nullptr;
    const auto x = embed(table, const_cast<Tape<float, Cuda>*>(none), ids);
    CHECK(difference(to_host(x.value()), table.embed(ids)) < 0x1p-8);
    const std::int32_t outside[] = {10};
    CHECK_THROWS_AS(embed(table, const_cast<Tape<float, Cuda>*>(none), outside), ValueError);
  }
}

#if !defined(LOWRANK_TEST_ON_A_GPU)
TEST_CASE("memory goes back to the pool, and is asked for again only when the pool has none of that size") {
  const auto gpu = test_gpu();
  cuda::Use use(gpu);
  const auto x = random_activation(33, 5, 1);
  {
    const cuda::DeviceActivation a(x), copy = a;
    CHECK(copy.data() != a.data());
    CHECK(copy.to_host() == x);
    CHECK(a.rightCols(2).to_host() == x.rightCols(2));
    CHECK(a(4, 3) == x(4, 3));
  }
  const int before = gpu->heap->allocations;
  { const cuda::DeviceActivation again(x), more(x); }
  CHECK(gpu->heap->allocations == before);
  gpu->heap->room = gpu->heap->used() + 2000;  // what is unused is given back before it is too little
  const cuda::DeviceActivation other(1, 600);
  CHECK_THROWS_AS(cuda::DeviceActivation(1000, 1000), Error);
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{512}, std::size_t{513}, std::size_t{100000}, std::size_t{1} << 30}) {
    CHECK(cuda::Pool::size_class(bytes) >= bytes);
    CHECK(cuda::Pool::size_class(bytes) <= bytes + std::max<std::size_t>(511, bytes / 4));
  }
}
#endif

TEST_CASE("what a GPU does not do is refused in a sentence") {
  CHECK_THROWS_WITH_AS(cuda::DeviceActivation(1, 1), doctest::Contains("no GPU is in use"), Error);
  const auto gpu = test_gpu();
  cuda::Use use(gpu);
  Block block;
  const cuda::DeviceActivation x(random_activation(Block::hidden, 3, 1));
  Tape<float, Cuda> tape;
  const LayerUse uses[] = {{&block.layers[0], &block.updates[0]}};
  block.updates[0].dropout.probability = 0.1f;
  CHECK_THROWS_WITH_AS(forward_together(uses, tape.input(x)), doctest::Contains("dropout"), ValueError);
  CHECK_NOTHROW(forward_together(uses, Var<float, Cuda>(x)));
  AdaptedLinear trained{AnyLinear(Linear<float>(Weight<float>::Zero(8, Block::hidden)))};
  const LayerUse whole[] = {{&trained}};
  CHECK_THROWS_WITH_AS(forward_together(whole, Var<float, Cuda>(x)), doctest::Contains("frozen"), ValueError);
  CHECK_THROWS_AS(forward_together(uses, Var<float, Cuda>(cuda::DeviceActivation(random_activation(5, 3, 1)))), ShapeError);
  const cuda::DeviceActivation odd(random_activation(3, 2, 1));
  CHECK_THROWS_WITH_AS(cuda::attention_forward(odd, odd, odd, AttentionShape{1, 1, 3, 1}), doctest::Contains("even"), ShapeError);
}
