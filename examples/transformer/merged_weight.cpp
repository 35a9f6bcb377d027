#include <transformer/merged_weight.hpp>

#include <memory>
#include <utility>

#include <lowrank/adapters/merge.hpp>

namespace transformer {

namespace {

using lowrank::AnyMatrix;
using lowrank::Weight;

/// W' of a layer with the W that it reads; its type is forgotten, so that each encoder is compiled once.
class MergedMatrix : public lowrank::MergedSource {
 public:
  MergedMatrix(AnyMatrix w, lowrank::Plan<float> plan) : MergedSource(w.view(), std::move(plan)), w_(std::move(w)) {}
  static std::size_t bytes() { return 0; }

 private:
  AnyMatrix w_;
};

/// W' of the token table [vocabulary, dim]: W + s (B A)ᵀ, with Bᵀ in the place of A and Aᵀ in that of B.
class MergedTable {
 public:
  MergedTable(AnyMatrix w, const LoraWeights<float>& update)
      : factors_(std::make_shared<const Factors>(Factors{update.b.value.transpose(), update.a.value.transpose()})),
        sum_(std::move(w), turned(update.scale)) {}

  Index rows() const { return sum_.rows(); }
  Index cols() const { return sum_.cols(); }
  static std::size_t bytes() { return 0; }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    sum_.decode(row, count, col, length, out, stride);
  }

 private:
  struct Factors {
    Weight<float> a, b;  // [r, dim], [vocabulary, r]
  };
  lowrank::Plan<float> turned(float scale) const {
    lowrank::Plan<float> plan;
    plan.a = {factors_->a.data(), factors_->a.rows(), factors_->a.cols()};
    plan.b = {factors_->b.data(), factors_->b.rows(), factors_->b.cols()};
    plan.scale = scale;
    return plan;
  }

  std::shared_ptr<const Factors> factors_;
  MergedMatrix sum_;
};

/// The layer that the forward pass runs in a slot: a copy of the set, or the model's own.
const AdaptedLinear& layer_used(const Transformer& model, const LoraSet& set, Index slot) {
  const auto copy = set.copies.find(slot);
  if (copy != set.copies.end()) return copy->second;
  return slot == model.embedding_slot() ? model.embedding : model.layer(slot);
}

/// The weight as a value: a frozen one shared, a dense one copied.
AnyMatrix weight_of(const AdaptedLinear& layer) {
  if (const auto* frozen = layer.base.get_if<lowrank::SourceLinear<AnyMatrix>>()) return frozen->weight();
  return AnyMatrix(lowrank::round_to<float>(layer.base.get_if<lowrank::Linear<float>>()->source()));
}

/// What an update adds to its layer. A plan without a tape changes nothing of the set.
lowrank::Plan<float> plan_of(const LoraSet& set, Index slot, const AdaptedLinear& layer) {
  return const_cast<LoraSet&>(set).at(slot)->plan({.layer = lowrank::detail::layer_view(layer.base)});
}

}  // namespace

bool changes_weight(const LoraSet& set, Index slot) { return set.copies.contains(slot) || set.at(slot) != nullptr; }

AnyMatrix merged_weight(const Transformer& model, const LoraSet& set, Index slot) {
  const AdaptedLinear& layer = layer_used(model, set, slot);
  const lowrank::AnyUpdate* update = set.at(slot);
  if (!update) return weight_of(layer);
  if (slot == model.embedding_slot()) return AnyMatrix(MergedTable(weight_of(layer), *update->lora()));
  return AnyMatrix(MergedMatrix(weight_of(layer), plan_of(set, slot, layer)));
}

bool changes_bias(const Transformer& model, const LoraSet& set, Index slot) {
  if (!set.at(slot) || slot == model.embedding_slot()) return false;
  const AdaptedLinear& layer = layer_used(model, set, slot);
  const lowrank::Plan<float> plan = plan_of(set, slot, layer);
  return !plan.bias.empty() || (plan.gain.scales_bias && !layer.base.bias().empty());
}

lowrank::Column<float> merged_bias(const Transformer& model, const LoraSet& set, Index slot) {
  const AdaptedLinear& layer = layer_used(model, set, slot);
  const lowrank::Column<float> bias = layer.base.bias().value;
  return set.at(slot) && slot != model.embedding_slot() ? lowrank::merged_bias(plan_of(set, slot, layer), bias) : bias;
}

Transformer merged(const Transformer& model, const LoraSet& set) {
  Transformer result = model;
  const bool parts = changes_weight(set, model.head_slot()) || changes_weight(set, model.embedding_slot());
  if (parts && !result.separate_head) result.separate_head = model.embedding;
  for (Index s = 0; s <= model.embedding_slot(); ++s) {
    if (!changes_weight(set, s)) continue;
    const AnyMatrix sum = merged_weight(model, set, s);
    Weight<float> w(sum.rows(), sum.cols());
    sum.decode(0, w.rows(), 0, w.cols(), w.data(), w.cols());
    AdaptedLinear layer(lowrank::Linear<float>(std::move(w), merged_bias(model, set, s)));
    layer.base.set_trainable(false);
    (s == model.embedding_slot() ? result.embedding : result.layer(s)) = std::move(layer);
  }
  return result;
}

}  // namespace transformer
