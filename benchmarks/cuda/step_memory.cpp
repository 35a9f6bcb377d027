/// What a QLoRA step takes of a GPU's memory, without a GPU: the step's host code runs as it is, on a machine that counts what is reserved
/// and launches nothing.
///
///   step_memory [HIDDEN INTERMEDIATE HEADS KV_HEADS LAYERS VOCABULARY [SEQUENCES TOKENS [RANK]]]      default: 65B, 1 x 512, rank 16
///
/// Base in NF4 with double quantization, table and head in bfloat16, every block recomputed (checkpoint), updates on all linear layers.
/// Bytes grow with the layers on a line, so two small models give the large one; a third checks the line. The driver's own memory (a
/// context of some hundred MB) comes on top.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <lowrank/quant.hpp>

#include <transformer/adapters.hpp>
#include <transformer/train.hpp>

namespace {

using namespace lowrank;
using transformer::Llama;

/// Addresses without memory behind them.
class CountingHeap : public cuda::Heap {
 public:
  std::byte* allocate(std::size_t bytes) override {
    now += bytes;
    peak = std::max(peak, now);
    next_ += bytes;
    sizes_[next_] = bytes;
    return reinterpret_cast<std::byte*>(next_);
  }
  void release(std::byte* memory) noexcept override { now -= sizes_[reinterpret_cast<std::uintptr_t>(memory)]; }

  std::size_t now = 0, peak = 0;

 private:
  std::uintptr_t next_ = std::uintptr_t{1} << 40;
  std::map<std::uintptr_t, std::size_t> sizes_;
};

class CountingGpu : public cuda::Machine {
 public:
  explicit CountingGpu(std::shared_ptr<CountingHeap> heap) : cuda::Machine(std::move(heap)) {}
  cuda::DeviceTraits traits() const override { return {.multiprocessors = 132, .capability_major = 9, .has_wgmma = true}; }
  void launch(const cuda::AnyKernel&) override {}
  void copy(const std::byte*, std::byte*, std::size_t) override {}
  void clear(std::byte*, std::size_t) override {}
  void synchronize() override {}
  void download(const std::byte*, void* to, std::size_t bytes) override { std::memset(to, 0, bytes); }

 protected:
  struct Nothing : cuda::RecordedWork {
    void run() override {}
  };
  void copy_in(const void*, std::byte*, std::size_t) override {}
  void begin_recording() override {}
  std::unique_ptr<cuda::RecordedWork> end_recording() override { return std::make_unique<Nothing>(); }
  std::shared_ptr<std::byte> host_memory(std::size_t bytes) override {
    return std::shared_ptr<std::byte>(new std::byte[bytes], std::default_delete<std::byte[]>());
  }
};

/// NF4 of zeros, [out, in]: bytes count here, numbers do not.
AnyMatrix four_bits(Index out, Index in) {
  const auto numbers = static_cast<std::size_t>(out * in), groups = (numbers + 63) / 64;
  return AnyMatrix(QuantizedMatrix<Nf4<64, DoubleQuant>>(out, in, Buffer::allocate(numbers / 2), Buffer::allocate(groups),
                                                         Buffer::allocate((groups + 255) / 256 * sizeof(float)), 0.0f));
}
AnyMatrix bfloat16_zeros(Index out, Index in) {
  return AnyMatrix(StoredMatrix<bfloat16>(out, in, Buffer::allocate(static_cast<std::size_t>(out * in) * sizeof(bfloat16))));
}

Parameter<float> ones(Index n) {
  Parameter<float> parameter;
  parameter.value.setOnes(n, 1);
  parameter.trainable = false;
  return parameter;
}

/// A model whose layers share their weights on the host; on the device each has its own.
Llama zero_model(const transformer::LlamaConfig& c) {
  Llama model;
  model.config = c;
  model.embedding = AdaptedLinear(AnyLinear(bfloat16_zeros(c.vocabulary, c.hidden)));
  model.separate_head = AdaptedLinear(AnyLinear(bfloat16_zeros(c.vocabulary, c.hidden)));
  const AnyLinear q(four_bits(c.query_width(), c.hidden)), kv(four_bits(c.kv_width(), c.hidden)), o(four_bits(c.hidden, c.query_width())),
      up(four_bits(c.intermediate, c.hidden)), down(four_bits(c.hidden, c.intermediate));
  for (Index i = 0; i < c.layers; ++i) model.blocks.push_back({ones(c.hidden), ones(c.hidden), q, kv, kv, o, up, up, down});
  model.final_norm = ones(c.hidden);
  model.set_compute(Compute::bf16);
  return model;
}

struct Bytes {
  std::size_t weights = 0, peak = 0;
};

Bytes bytes_of_step(transformer::LlamaConfig config, Index layers, Index sequences, Index tokens, Index rank) {
  config.layers = layers;
  Llama model = zero_model(config);
  LoraConfig lora;
  lora.rank = rank;
  lora.target_modules = transformer::parse_targets("all-linear");
  transformer::LoraSet set = transformer::new_lora(model, lora, LoraInit::kaiming, 0);
  const auto heap = std::make_shared<CountingHeap>();
  cuda::Use use(std::make_shared<CountingGpu>(heap));
  for (Index slot = 0; slot < model.slots(); ++slot) cuda::on_device(model.layer(slot).base);
  cuda::on_device(model.embedding.base);
  const std::size_t weights = heap->now;
  const std::vector<transformer::Example> examples(static_cast<std::size_t>(sequences),
                                                   {std::vector<std::int32_t>(static_cast<std::size_t>(tokens + 1)), 1});
  const auto parameters = transformer::parameters(model, set);
  AdamW<float> optimizer(parameters);
  transformer::train<Cuda>(model, &set, optimizer, parameters, examples,
                           {.steps = 3, .batch = sequences, .recompute = transformer::Recompute::always}, [](const auto&) {});
  return {weights, heap->peak};
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, Index otherwise) { return i < argc ? static_cast<Index>(std::strtoll(argv[i], nullptr, 10)) : otherwise; };
  transformer::LlamaConfig config;
  config.hidden = number(1, 8192), config.intermediate = number(2, 22016), config.heads = number(3, 64), config.kv_heads = number(4, 64);
  const Index layers = number(5, 80), sequences = number(7, 1), tokens = number(8, 512), rank = number(9, 16);
  config.vocabulary = number(6, 32000), config.head_size = config.hidden / config.heads, config.context = tokens;
  config.rope.head_size = config.head_size;
  // From two layers on: what a step leaves free is used by the next layer.
  const Bytes two = bytes_of_step(config, 2, sequences, tokens, rank), three = bytes_of_step(config, 3, sequences, tokens, rank),
              four = bytes_of_step(config, 4, sequences, tokens, rank);
  const auto extended = [&](std::size_t at_two, std::size_t at_three, Index to) {
    return static_cast<double>(at_two) + (static_cast<double>(at_three) - static_cast<double>(at_two)) * static_cast<double>(to - 2);
  };
  const double check = static_cast<double>(four.peak) / extended(two.peak, three.peak, 4);
  std::printf("weights %.2f GB, peak of a step %.2f GB (%ld layers of %ld, %ld x %ld tokens, rank %ld)\n",
              extended(two.weights, three.weights, layers) * 1e-9, extended(two.peak, three.peak, layers) * 1e-9, static_cast<long>(layers),
              static_cast<long>(config.hidden), static_cast<long>(sequences), static_cast<long>(tokens), static_cast<long>(rank));
  std::printf("counted with 2, 3 and 4 layers: %.3f, %.3f, %.3f GB; the last is %.4f of the line through the others\n",
              static_cast<double>(two.peak) * 1e-9, static_cast<double>(three.peak) * 1e-9, static_cast<double>(four.peak) * 1e-9, check);
}
