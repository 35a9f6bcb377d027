/// A QLoRA step on a GPU, with random weights: tokens a second and what the device's memory holds after it.
///
///   benchmark_cuda_step [HIDDEN INTERMEDIATE HEADS KV_HEADS LAYERS VOCABULARY [SEQUENCES TOKENS [RANK [RECOMPUTE [STEPS [KEEP]]]]]]
///
/// Default: 65B, 1 x 512, rank 16, blocks recomputed (RECOMPUTE 1), 12 steps; 7B is 4096 11008 32 32 32 32000 4 512 16 0. Exit 77 where
/// there is no device. What the backward pass reads is kept in bfloat16, or as it is, in fp32, where KEEP is 32: more memory, fewer copies.
/// The median leaves out the first two steps: one runs as it is, one is recorded.
#include <algorithm>
#include <cstdio>

#include <lowrank/cuda.hpp>

#include "shaped_model.hpp"

namespace {

using namespace shaped;

Weight<float> random_weight(Index out, Index in) {
  Weight<float> w(out, in);
  parallel_for(out, [&](Index i) {
    Random random(3, static_cast<std::uint64_t>(i));
    for (Index k = 0; k < in; ++k) w(i, k) = random.uniform(-0.03f, 0.03f);
  });
  return w;
}
AnyMatrix four_bits(Index out, Index in) { return AnyMatrix(quantize<Nf4<64, DoubleQuant>>(random_weight(out, in))); }
AnyMatrix bfloat16_rows(Index out, Index in) {
  const Weight<float> w = random_weight(out, in);
  Buffer numbers = Buffer::allocate(static_cast<std::size_t>(w.size()) * sizeof(BFloat16));
  BFloat16* const to = numbers.mutable_as<BFloat16>();
  for (Index i = 0; i < w.size(); ++i) to[i] = BFloat16(w.data()[i]);
  return AnyMatrix(StoredMatrix<BFloat16>(out, in, std::move(numbers)));
}

int run(int argc, char** argv) {
  const Shape shape = read_shape(argc, argv);
  const bool recomputes = argc <= 10 || std::strtol(argv[10], nullptr, 10) != 0;
  const Index steps = argc > 11 ? std::strtol(argv[11], nullptr, 10) : 12;
  const bool keeps_fp32 = argc > 12 && std::strtol(argv[12], nullptr, 10) == 32;
  cuda::Use use(cuda::open_gpu());
  Transformer model = make_model(shape.config, four_bits, bfloat16_rows);
  if (keeps_fp32) model.set_compute(Compute::fp32);
  transformer::LoraSet set = make_updates(model, shape.rank);
  const auto parameters = transformer::parameters(model, set);
  AdamW<float> optimizer(parameters);
  std::vector<double> seconds;
  double first_loss = 0, last_loss = 0;
  transformer::train<Cuda>(
      model, &set, optimizer, parameters, make_examples(shape, 8 * shape.sequences),
      {.steps = steps, .batch = shape.sequences, .recompute = recomputes ? transformer::Recompute::always : transformer::Recompute::never},
      [&](const transformer::StepReport& report) {
        seconds.push_back(report.seconds);
        (report.step == 0 ? first_loss : last_loss) = report.loss;
      });
  if (seconds.size() > 2) seconds.erase(seconds.begin(), seconds.begin() + 2);
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const cuda::MemoryUse memory = cuda::memory_use();
  std::printf(
      "{\"device\": \"%s\", \"hidden\": %ld, \"layers\": %ld, \"sequences\": %ld, \"tokens\": %ld, \"rank\": %ld, \"recompute\": %s, "
      "\"keep\": %d, "
      "\"step_ms\": %.2f, \"fastest_ms\": %.2f, \"tokens_per_s\": %.0f, \"memory_gb\": %.2f, \"loss\": [%.4f, %.4f]}\n",
      cuda::devices().front().name.c_str(), static_cast<long>(shape.config.hidden), static_cast<long>(shape.config.layers),
      static_cast<long>(shape.sequences), static_cast<long>(shape.tokens), static_cast<long>(shape.rank), recomputes ? "true" : "false",
      keeps_fp32 ? 32 : 16, 1e3 * median, 1e3 * seconds.front(), static_cast<double>(shape.sequences * shape.tokens) / median,
      static_cast<double>(memory.total - memory.free) * 1e-9, first_loss, last_loss);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (!cuda::is_available()) {
    std::printf("skipped: no NVIDIA GPU of compute capability 8.0 or more here\n");
    return 77;
  }
  try {
    return run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "benchmark_cuda_step: %s\n", failure.what());
    return 1;
  }
}
