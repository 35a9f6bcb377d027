#pragma once

/// LoRA: W X + s B (A X), with A and B trained (Hu et al. 2021, "LoRA: Low-rank adaptation of large language models").

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <lowrank/core/shape.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/lora_scale.hpp>
#include <lowrank/update/method.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A fresh update. rank = Dynamic means the layer's static rank, else 8.
struct LoraOptions {
  Index rank = Dynamic;
  double alpha = 8;         ///< s = alpha / r
  bool use_rslora = false;  ///< s = alpha / √r (Kalajdzievski 2023)
  double dropout = 0;       ///< on the input of the update alone, while a tape records
  bool lora_bias = false;   ///< B has a bias, which s scales, too
  bool train_a = true;      ///< false: LoRA-FA, A stays as it was drawn (Zhang et al. 2023)
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  ///< another one for each layer of a model, so that equal layers begin differently
  LoraInit init = LoraInit::kaiming;
};

/// The numbers of one update s B A: A [r, in], B [out, r]; exchangeable while the base stays. A method (update/method.hpp).
template <class S = float, int Rank = Dynamic, int In = Dynamic, int Out = Dynamic>
struct LoraWeights {
  using Scalar = S;
  static constexpr const char* method = "lora";  ///< in a configuration, for set_method()

  Parameter<S, Rank, In> a;
  Parameter<S, Out, Rank> b;
  S scale = S(1);
  InputDropout<S> dropout = {};
  Parameter<S> bias = {};  ///< of B [out], or empty
  /// A and B rounded to bfloat16 for inference in Compute::bf16, by round(): half the bytes to read for each token. Empty otherwise.
  std::vector<BFloat16> rounded_a = {}, rounded_b = {};

  /// Y = W X + b + s B (A X).
  Plan<S> plan(const PlanRequest<S>& request) & {
    Plan<S> plan;
    plan.a = factor(a), plan.b = factor(b), plan.bias = factor(bias);
    plan.scale = scale;
    plan.mask = request.next_mask(dropout);
    if (!rounded_a.empty()) plan.a.rounded = rounded_a.data(), plan.b.rounded = rounded_b.data();
    plan.trains_a = a.needs_grad(), plan.trains_b = b.needs_grad(), plan.trains_bias = bias.needs_grad();
    return plan;
  }
  auto plan(const PlanRequest<S>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<S>& gradients) {
    add_gradient(a, gradients.a);
    add_gradient(b, gradients.b);
    add_gradient(bias, gradients.bias);
  }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visitor(a);
    visitor(b);
    if (!bias.empty()) visitor(bias);
    visit_dropout(visitor, dropout);
  }

  /// Fills rounded_a and rounded_b; to be called again after a change of A or B.
  void round() {
    const auto copy = [](const auto& from, std::vector<BFloat16>& to) {
      to.resize(static_cast<std::size_t>(from.size()));
      std::transform(from.data(), from.data() + from.size(), to.begin(), [](S x) { return BFloat16(static_cast<float>(x)); });
    };
    copy(a.value, rounded_a);
    copy(b.value, rounded_b);
  }

  Index rank() const { return a.rows(); }
  bool needs_grad() const { return a.needs_grad() || b.needs_grad() || bias.needs_grad(); }
  void set_trainable(bool trainable) { a.trainable = b.trainable = bias.trainable = trainable; }
};

/// A fresh update of a weight [out, in]: A drawn by options.init, B = 0. Throws ValueError, ShapeError.
template <class S = float, int Rank = Dynamic, int In = Dynamic, int Out = Dynamic>
LoraWeights<S, Rank, In, Out> make_lora(Index in, Index out, const LoraOptions& options) {
  const Index rank = options.rank != Dynamic ? options.rank : Rank != Dynamic ? Rank : 8;
  check<ValueError>(rank > 0, "lora", "rank = ", rank, "; it must be at least 1");
  check<ValueError>(Rank == Dynamic || rank == Rank, "lora", "options.rank = ", rank, " but the layer's rank is ", Rank,
                    " by its type; leave options.rank out");
  check<ValueError>(is_finite(options.alpha), "lora", "alpha = ", options.alpha, "; it must be finite");
  element_count("lora", "A [rank, in]", {rank, in}), element_count("lora", "B [out, rank]", {out, rank});
  LoraWeights<S, Rank, In, Out> update;
  update.a.name = "lora_A.weight";
  update.a.value.resize(rank, in);
  update.a.trainable = options.train_a;
  init_lora_a(update.a.value, options.init, Random(options.seed, options.stream));
  update.b.name = "lora_B.weight";
  update.b.value.setZero(out, rank);
  update.scale = static_cast<S>(lora_scale(rank, options.alpha, options.use_rslora));
  update.dropout = InputDropout<S>::of_layer(options.dropout, options.seed, options.stream);
  update.bias.name = "lora_B.bias";
  update.bias.is_vector = true;
  if (options.lora_bias) update.bias.value.setZero(out, 1);
  return update;
}

}  // namespace lowrank::inline LOWRANK_ABI
