#pragma once

/// The layers and norms of a model by their paths, and an adapter bound to them: updates of layers, and what is replaced as a whole.

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

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/update_set.inl>
#endif
