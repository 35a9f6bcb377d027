#pragma once

/// Layers in every format, many enough that using them in turn reads memory and no cache, as a model that is larger than the caches does.

#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/update/dora.hpp>

#include <rank_tradeoff/predict.hpp>
#include <support/formats.hpp>

namespace rank_tradeoff {

using lowrank::Activation;
using lowrank::AnyLinear;
using lowrank::Compute;
template <class S>
using LoraWeights = lowrank::DoraWeights<S>;

/// Twice the last-level cache, 64 MiB where its size is not known.
inline std::size_t pool_bytes() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const long level3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (level3 > 0) return 2 * static_cast<std::size_t>(level3);
#endif
  return std::size_t{64} << 20;
}

inline const benchmarks::Format& format_of(const std::string& name) {
  for (const auto& format : benchmarks::formats())
    if (format.name == name) return format;
  lowrank::fail<lowrank::ValueError>("rank_tradeoff", "there is no base format ", name);
}

/// Bits a weight takes in a format, by its definition: blocks of 64 with a float32, blocks of 32 with two halves.
inline double bits_a_weight(const std::string& base) {
  return base == "fp32" ? 32 : base == "bf16" ? 16 : base == "nf4" ? 4 + 32.0 / 64 : base == "q4_1" ? 4 + 32.0 / 32 : 0;
}

/// Dense fp32 is computed in fp32, everything else in bf16.
inline Compute compute_of(const std::string& base) { return base == "fp32" ? Compute::fp32 : Compute::bf16; }
inline double peak_of(const std::string& base, const Peaks& peaks) { return base == "fp32" ? peaks.fp32 : peaks.bf16; }

/// Copies of one layer [d, d], taken in turn.
class Stack {
 public:
  Stack(const std::string& base, const lowrank::Weight<float>& w, std::size_t bytes) {
    const auto& format = format_of(base);
    std::size_t held = 0;
    do {
      layers_.emplace_back(AnyLinear(format.make(w)));
      layers_.back().set_compute(compute_of(base));
      held += layers_.back().weight_bytes();
    } while (held < bytes);
  }
  AnyLinear& next() { return layers_[next_++ % layers_.size()]; }
  AnyLinear& first() { return layers_.front(); }

 private:
  std::vector<AnyLinear> layers_;
  std::size_t next_ = 0;
};

/// An update of random numbers, as after training: A and B are not zero.
inline LoraWeights<float> random_update(const AnyLinear& base, const std::string& method, Index rank) {
  LoraWeights<float> update{lowrank::make_lora<float>(base.in_features(), base.out_features(),
                                                      {.rank = rank, .alpha = 16, .use_rslora = method == "rslora", .seed = 5})};
  lowrank::fill_normal(update.b.value, 0.01, lowrank::Random(6));
  if (method != "dora") return update;
  update.begin(lowrank::detail::layer_view(base));
  update.prepare(lowrank::detail::layer_view(base));
  return update;
}

/// Updates of one method and rank, taken in turn in inference; the first one is trained.
class Updates {
 public:
  Updates(const AnyLinear& base, std::string method, Index rank, std::size_t bytes)
      : method_(std::move(method)), rank_(rank), pool_(1, random_update(base, method_, rank)), trained_(pool_.front()) {
    const std::size_t each = sizeof(float) * static_cast<std::size_t>(rank * (base.in_features() + base.out_features()));
    const std::size_t count = std::min<std::size_t>(std::max<std::size_t>(2, bytes / each), 512);
    pool_.resize(count, pool_.front());
  }
  const std::string& method() const { return method_; }
  Index rank() const { return rank_; }
  const LoraWeights<float>& next() { return pool_[next_++ % pool_.size()]; }
  LoraWeights<float>& trained() { return trained_; }
  /// Made when it is first asked for, as are the gradients.
  lowrank::AdamW<float>& optimizer() {
    if (!optimizer_) optimizer_.emplace(lowrank::parameters(trained_), lowrank::AdamWOptions{.learning_rate = 1e-6});
    return *optimizer_;
  }

 private:
  std::string method_;
  Index rank_;
  std::vector<LoraWeights<float>> pool_;
  std::size_t next_ = 0;
  LoraWeights<float> trained_;
  std::optional<lowrank::AdamW<float>> optimizer_;
};

}  // namespace rank_tradeoff
