#include <transformer/merged_weight.hpp>

#include <map>
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

/// W' of the token table [vocabulary, dim], or of a head that follows it: (W + s (B A)ᵀ) with Bᵀ in the place of A and Aᵀ in that of B, its
/// columns times a gain where there is one (DoRA).
class MergedTable {
 public:
  MergedTable(AnyMatrix w, const LoraWeights<float>& update, lowrank::Column<float> gain = {})
      : factors_(std::make_shared<const Factors>(Factors{update.b.value.transpose(), update.a.value.transpose()})),
        sum_(std::move(w), turned(update.scale)),
        gain_(std::move(gain)) {}

  Index rows() const { return sum_.rows(); }
  Index cols() const { return sum_.cols(); }
  static std::size_t bytes() { return 0; }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    sum_.decode(row, count, col, length, out, stride);
    for (Index i = 0; i < count && gain_.size() > 0; ++i)
      for (Index j = 0; j < length; ++j) out[i * stride + j] *= static_cast<Scalar>(gain_[col + j]);
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
  lowrank::Column<float> gain_;
};

/// A table with rows of its own in the place of some.
class TableWithRows {
 public:
  TableWithRows(AnyMatrix table, const lowrank::TokenRows<float>& own) : table_(std::move(table)), rows_(own.rows.value) {
    for (std::size_t i = 0; i < own.ids.size(); ++i) place_.emplace(own.ids[i], static_cast<Index>(i));
  }
  Index rows() const { return table_.rows(); }
  Index cols() const { return table_.cols(); }
  static std::size_t bytes() { return 0; }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    table_.decode(row, count, col, length, out, stride);
    for (auto at = place_.lower_bound(row); at != place_.end() && at->first < row + count; ++at)
      for (Index j = 0; j < length; ++j) out[(at->first - row) * stride + j] = static_cast<Scalar>(rows_(at->second, col + j));
  }

 private:
  AnyMatrix table_;
  Weight<float> rows_;
  std::map<Index, Index> place_;  // of a token in rows_
};

/// The layer that the forward pass runs in a slot: a copy of the set, or the model's own.
const AdaptedLinear& layer_used(const Transformer& model, const LoraSet& set, Index slot) {
  if (const AdaptedLinear* copy = set.copy_of(slot)) return *copy;
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

bool changes_weight(const LoraSet& given, Index slot) {
  LoraSet& set = const_cast<LoraSet&>(given);  // which changes nothing
  return set.copy_of(slot) || set.at(slot) || set.rows_of(slot) || set.table_update_of(slot);
}

namespace {

/// W' but for single rows.
AnyMatrix merged_whole(const Transformer& model, LoraSet& set, Index slot) {
  const AdaptedLinear& layer = layer_used(model, set, slot);
  if (const LoraWeights<float>* table = set.table_update_of(slot)) return AnyMatrix(MergedTable(weight_of(layer), *table));
  lowrank::AnyUpdate* const update = set.at(slot);
  if (!update) return weight_of(layer);
  if (slot != model.embedding_slot()) return AnyMatrix(MergedMatrix(weight_of(layer), plan_of(set, slot, layer)));
  auto* const dora = update->get_if<lowrank::DoraWeights<float>>();
  if (!dora) return AnyMatrix(MergedTable(weight_of(layer), *update->lora()));
  return AnyMatrix(MergedTable(weight_of(layer), *dora,
                               lowrank::dora_gain(dora->magnitude.value, lowrank::dora_table_norms(layer.base.source(), *dora))));
}

}  // namespace

AnyMatrix merged_weight(const Transformer& model, const LoraSet& given, Index slot) {
  LoraSet& set = const_cast<LoraSet&>(given);  // whose plans and norms change nothing of it
  AnyMatrix whole = merged_whole(model, set, slot);
  const auto* const own = set.rows_of(slot);
  return own ? AnyMatrix(TableWithRows(std::move(whole), *own)) : whole;
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
  for (const lowrank::NamedNorm& norm : result.named_norms())
    if (const auto copy = set.norms.find(norm.place); copy != set.norms.end())
      const_cast<Parameter<float>*>(norm.weight)->value = copy->second.value;
  result.config.vocabulary = vocabulary(model, &set);
  return result;
}

}  // namespace transformer
