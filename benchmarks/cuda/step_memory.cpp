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

#include <lowrank/cuda.hpp>
#include <lowrank/cuda/weight.hpp>

#include "shaped_model.hpp"

namespace {

using namespace shaped;

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
  return AnyMatrix(StoredMatrix<BFloat16>(out, in, Buffer::allocate(static_cast<std::size_t>(out * in) * sizeof(BFloat16))));
}

struct Bytes {
  std::size_t weights = 0, peak = 0;
};

Bytes bytes_of_step(Shape shape, Index layers) {
  shape.config.layers = layers;
  Transformer model = make_model(shape.config, four_bits, bfloat16_zeros);
  transformer::LoraSet set = make_updates(model, shape.rank);
  const auto heap = std::make_shared<CountingHeap>();
  cuda::Use use(std::make_shared<CountingGpu>(heap));
  for (Index slot = 0; slot < model.slots(); ++slot) cuda::on_device(model.layer(slot).base);
  cuda::on_device(model.embedding.base);
  const std::size_t weights = heap->now;
  const auto parameters = transformer::parameters(model, set);
  AdamW<float> optimizer(parameters);
  transformer::train<Cuda>(model, &set, optimizer, parameters, make_examples(shape, shape.sequences),
                           {.steps = 3, .batch = shape.sequences, .recompute = transformer::Recompute::always}, [](const auto&) {});
  return {weights, heap->peak};
}

}  // namespace

int main(int argc, char** argv) {
  const Shape shape = read_shape(argc, argv);
  const Index layers = shape.config.layers;
  // From two layers on: what a step leaves free is used by the next layer.
  const Bytes two = bytes_of_step(shape, 2), three = bytes_of_step(shape, 3), four = bytes_of_step(shape, 4);
  const auto extended = [&](std::size_t at_two, std::size_t at_three, Index to) {
    return static_cast<double>(at_two) + (static_cast<double>(at_three) - static_cast<double>(at_two)) * static_cast<double>(to - 2);
  };
  const double check = static_cast<double>(four.peak) / extended(two.peak, three.peak, 4);
  std::printf("weights %.2f GB, peak of a step %.2f GB (%ld layers of %ld, %ld x %ld tokens, rank %ld)\n",
              extended(two.weights, three.weights, layers) * 1e-9, extended(two.peak, three.peak, layers) * 1e-9, static_cast<long>(layers),
              static_cast<long>(shape.config.hidden), static_cast<long>(shape.sequences), static_cast<long>(shape.tokens),
              static_cast<long>(shape.rank));
  std::printf("counted with 2, 3 and 4 layers: %.3f, %.3f, %.3f GB; the last is %.4f of the line through the others\n",
              static_cast<double>(two.peak) * 1e-9, static_cast<double>(three.peak) * 1e-9, static_cast<double>(four.peak) * 1e-9, check);
}
