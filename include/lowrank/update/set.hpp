#pragma once

/// Adapters bound to a model: updates of its linear layers, found by the layers' paths.

#include <concepts>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/recompress.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/update/token_rows.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A linear layer of a model, or its token table, by the path that files know it by. Its place in the model's list is its slot.
struct NamedLayer {
  std::string path;
  const AdaptedLinear* layer = nullptr;
  bool is_embedding = false;
  /// Sizes of the kernel of a convolution, whose layer is the map [out, channels · kernel]: files spell them out.
  std::vector<Index> kernel = {};
};

/// A norm of a model by the path that files know it by, and its place, by which the model asks for a copy of it.
struct NamedNorm {
  Index place = 0;
  std::string path;
  const Parameter<float>* weight = nullptr;
};

/// The layers of a model: a list of them, which must outlive this, or a model that gives one as `named_layers()`, and its norms as
/// `named_norms()`.
class ModelLayers {
 public:
  ModelLayers(std::span<const NamedLayer> layers) : layers_(layers) {}
  ModelLayers(const std::vector<NamedLayer>& layers) : layers_(layers) {}
  template <class Model>
  requires requires(const Model& model) {
    { model.named_layers() } -> std::convertible_to<std::vector<NamedLayer>>;
  }
  ModelLayers(const Model& model) : own_(model.named_layers()), layers_(own_) {
    if constexpr (requires { std::vector<NamedNorm>(model.named_norms()); }) norms_ = model.named_norms();
  }
  ModelLayers(const ModelLayers&) = delete;
  ModelLayers& operator=(const ModelLayers&) = delete;

  operator std::span<const NamedLayer>() const { return layers_; }
  auto begin() const { return layers_.begin(); }
  auto end() const { return layers_.end(); }
  std::size_t size() const { return layers_.size(); }
  const NamedLayer& operator[](std::size_t slot) const { return layers_[slot]; }
  const std::vector<NamedNorm>& norms() const { return norms_; }

 private:
  std::vector<NamedLayer> own_ = {};
  std::span<const NamedLayer> layers_;
  std::vector<NamedNorm> norms_ = {};
};

/// What turns one frozen base into a task's model: an update a slot, or none, and what is replaced as a whole: layers, norms, rows of
/// tables.
struct UpdateSet {
  std::vector<AnyUpdate> slots = {};
  std::map<Index, AdaptedLinear> copies = {};    ///< by slot
  SharedTensors shared = {};                     ///< that all updates use
  std::map<Index, Parameter<float>> norms = {};  ///< by place
  std::map<Index, TokenRows<float>> rows = {};   ///< by the slot of their table
  /// A head that is the token table, by slot, and the table's slot, where it follows what becomes of the table.
  std::map<Index, Index> tied = {};

  /// The update of a slot, or null.
  AnyUpdate* at(Index slot) {
    const auto place = static_cast<std::size_t>(slot);
    return place < slots.size() && slots[place] ? &slots[place] : nullptr;
  }
  const AnyUpdate* at(Index slot) const { return const_cast<UpdateSet*>(this)->at(slot); }
  /// The layer that stands in for a slot's own, or null.
  AdaptedLinear* copy_of(Index slot) { return of_slot(copies, source_of(slot)); }
  const AdaptedLinear* copy_of(Index slot) const { return const_cast<UpdateSet*>(this)->copy_of(slot); }
  /// The rows that stand in for some of a table's, or null.
  TokenRows<float>* rows_of(Index slot) { return of_slot(rows, source_of(slot)); }
  /// The update of the token table that a slot, the head, follows, or null.
  LoraWeights<float>* table_update_of(Index slot) {
    AnyUpdate* const update = tied.contains(slot) ? at(source_of(slot)) : nullptr;
    return update ? update->lora() : nullptr;
  }
  /// The norm itself, or the copy that stands in for it.
  Parameter<float>& norm(Index place, Parameter<float>& own) {
    Parameter<float>* const copy = of_slot(norms, place);
    return copy ? *copy : own;
  }
  /// Whether it replaces anything as a whole.
  bool replaces() const { return !copies.empty() || !norms.empty() || !rows.empty() || !tied.empty(); }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    for (AnyUpdate& update : slots)
      if (update) update.visit_parameters(visitor);
    for (auto& [slot, copy] : copies)
      if (auto* dense = copy.base.template get_if<Linear<float>>()) {
        visitor(dense->weight());
        if (dense->bias().needs_grad()) visitor(dense->bias());
      }
    for (auto& [place, norm] : norms) visitor(norm);
    for (auto& [slot, own] : rows) visitor(own.rows);
  }
  using Scalar = float;

 private:
  Index source_of(Index slot) const {
    const auto found = tied.find(slot);
    return found == tied.end() ? slot : found->second;
  }
  template <class T>
  static T* of_slot(std::map<Index, T>& parts, Index slot) {
    const auto found = parts.find(slot);
    return found == parts.end() ? nullptr : &found->second;
  }
};

/// The layers as modules that a configuration may name; an embedding is [dim, vocabulary].
std::vector<ModuleShape> module_shapes(const ModelLayers& layers);

/// Slots that a configuration names. "all-linear" means every linear layer but the output head, lm_head, and no convolution.
std::vector<Index> target_slots(const ModelLayers& layers, const LoraConfig& config);

/// Fresh updates of what a configuration names, by its method, full copies of its modules_to_save and rows of its trained_tokens. Numbers
/// are drawn from the seed, other ones for each slot. Throws ValueError.
UpdateSet new_updates(const ModelLayers& layers, const LoraConfig& config, LoraInit init, std::uint64_t seed);

/// A loaded adapter for a model: its updates, and what it replaces: linear layers, norms, the token table and the head, which may have
/// another number of tokens than the model's, and single rows of these two.
///
/// Throws ShapeError when it belongs to another model, ValueError for what the model cannot hold, and where an adapter that needs its base
/// in one format (LoraConfig::needs_base) meets another.
UpdateSet apply(const Adapter& adapter, const ModelLayers& layers);

/// A set as an adapter, ready to be saved; `config` says what it is. Names and shapes are those of files.
Adapter adapter_of(const UpdateSet& set, const ModelLayers& layers, LoraConfig config);

/// Multiplies the updates by a number. Throws ValueError where that has no meaning: updates that are no sum, full copies.
void scale(UpdateSet& set, double weight);

/// Several sets as one: Σ sᵢ Bᵢ Aᵢ = [s₁B₁ | s₂B₂ | …] · [A₁ ; A₂ ; …], exactly. Throws ValueError for updates that are no such sum.
UpdateSet sum(std::span<const UpdateSet> sets);

/// The updates as LoRA, each at a rank or with a share of its energy: s B M A + s Δ of its plan as two factors, exact where the rank
/// suffices.
///
/// The layers are those that the set is for; what depends on their weights is taken as of now. Throws ValueError for updates that are no
/// sum (merge them), that have a bias, for token tables and full copies.
FittedAdapter to_lora(const UpdateSet& set, const ModelLayers& layers, const RankChoice& choice);

/// Computes once what inference with a fixed set needs again and again.
void prepare(UpdateSet& set, const ModelLayers& layers);

/// Whether a method of the set adds a term of its own to the loss of training.
bool has_penalties(const UpdateSet& set);

/// The mean of these terms over the updates that have one (AdaLoRA: orthogonality), its gradient added to the parameters': to be called
/// after the backward pass of a step, before the gradients are clipped.
double add_penalties(UpdateSet& set);

/// Numbers that a set holds.
Index parameter_count(const UpdateSet& set);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/set.inl>
#endif
