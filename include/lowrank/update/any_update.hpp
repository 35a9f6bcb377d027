#pragma once

/// Updates whose method is known at run time only, as values: what a set of a model's updates is made of.

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/update/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where an update is made: the layer, and numbers that let equal layers begin differently.
struct UpdateSite {
  std::string path;
  LayerView<float> layer = {};
  std::uint64_t seed = 0, stream = 0;
  std::map<std::string, std::vector<Index>, std::less<>> shapes = {};  ///< of the tensors that a file has for it; empty: a fresh update

  bool has(std::string_view tensor) const { return shapes.contains(tensor); }
  /// A size by the configuration, held against the file's tensor, so that no memory is taken for what is not there. Throws ShapeError.
  Index size(std::string_view tensor, std::size_t dimension, Index configured) const;
};

/// A visitor of an update's parts, whatever it is made of. Refers to it.
class UpdateVisitor {
 public:
  template <class Visitor>
  UpdateVisitor(const Visitor& visitor)
      : parameter_([&visitor](Parameter<float>& parameter) { visitor(parameter); }),
        dropout_([&visitor](InputDropout<float>& dropout) { visit_dropout(visitor, dropout); }) {}

  void operator()(Parameter<float>& parameter) const { parameter_(parameter); }
  void dropout(InputDropout<float>& dropout) const { dropout_(dropout); }

 private:
  std::function<void(Parameter<float>&)> parameter_;
  std::function<void(InputDropout<float>&)> dropout_;
};

/// An update of any method, owned, in float; a method itself. Empty: none. Copies are deep.
class AnyUpdate {
 public:
  using Scalar = float;

  AnyUpdate() = default;
  template <UpdateMethod Update>
  requires(std::is_same_v<typename Update::Scalar, float> && !std::is_same_v<Update, AnyUpdate>) AnyUpdate(Update update)
      : held_(std::make_unique<Holder<Update>>(std::move(update))) {}
  AnyUpdate(const AnyUpdate& other) : held_(other.held_ ? other.held_->copy() : nullptr) {}
  AnyUpdate(AnyUpdate&&) noexcept = default;
  AnyUpdate& operator=(AnyUpdate other) noexcept {
    held_ = std::move(other.held_);
    return *this;
  }

  explicit operator bool() const { return held_ != nullptr; }

  Plan<float> plan(const PlanRequest<float>& request) & { return held_->plan(request); }
  auto plan(const PlanRequest<float>&) && = delete;  // a plan refers to the update's numbers: give the update a name first
  void add_gradients(const PlanGradients<float>& gradients) { held_->add_gradients(gradients); }
  void visit_parameters(const UpdateVisitor& visitor) { held_->visit_parameters(visitor); }

  /// Computes once what inference with fixed numbers needs again and again, where the method has such: `prepare(layer)`, `round()`.
  void prepare(const LayerView<float>& layer) { held_->prepare(layer); }

  /// Whether the method adds a term of its own to the loss of training.
  bool has_penalty() const { return held_ && held_->has_penalty(); }
  /// That term times a share, its gradient added to the parameters'; 0 for methods without.
  float add_penalty(float share) { return held_ ? held_->add_penalty(share) : 0.0f; }

  /// The factors of an update that is LoRA, or LoRA with more; null for others.
  LoraWeights<float>* lora() & { return held_ ? held_->lora() : nullptr; }
  const LoraWeights<float>* lora() const& { return const_cast<AnyUpdate*>(this)->lora(); }
  auto lora() const&& = delete;  // the pointer is into this update: give it a name first

  /// The dropout of its input, or null for a method that knows none.
  InputDropout<float>* dropout() { return held_ ? held_->dropout() : nullptr; }

  /// The update as what it was made from, or null.
  template <class Update>
  Update* get_if() & {
    auto* holder = dynamic_cast<Holder<Update>*>(held_.get());
    return holder ? &holder->update : nullptr;
  }
  template <class Update>
  const Update* get_if() const& {
    return const_cast<AnyUpdate*>(this)->get_if<Update>();
  }
  template <class Update>
  const Update* get_if() const&& = delete;  // the pointer is into this update: give it a name first

 private:
  struct Held {
    virtual ~Held() = default;
    virtual std::unique_ptr<Held> copy() const = 0;
    virtual Plan<float> plan(const PlanRequest<float>& request) = 0;
    virtual void add_gradients(const PlanGradients<float>& gradients) = 0;
    virtual void visit_parameters(const UpdateVisitor& visitor) = 0;
    virtual void prepare(const LayerView<float>& layer) = 0;
    virtual bool has_penalty() const = 0;
    virtual float add_penalty(float share) = 0;
    virtual LoraWeights<float>* lora() = 0;
    virtual InputDropout<float>* dropout() = 0;
  };
  template <class Update>
  struct Holder final : Held {
    Update update;

    explicit Holder(Update value) : update(std::move(value)) {}
    std::unique_ptr<Held> copy() const override { return std::make_unique<Holder>(update); }
    Plan<float> plan(const PlanRequest<float>& request) override { return update.plan(request); }
    void add_gradients(const PlanGradients<float>& gradients) override { update.add_gradients(gradients); }
    void visit_parameters(const UpdateVisitor& visitor) override { update.visit_parameters(visitor); }
    void prepare([[maybe_unused]] const LayerView<float>& layer) override {
      if constexpr (requires { update.round(); }) update.round();
      if constexpr (requires { update.prepare(layer); }) update.prepare(layer);
    }
    bool has_penalty() const override {
      return requires(Update & u) { u.add_penalty(1.0f); };
    }
    float add_penalty([[maybe_unused]] float share) override {
      if constexpr (requires { update.add_penalty(share); }) return update.add_penalty(share);
      return 0;
    }
    LoraWeights<float>* lora() override {
      if constexpr (std::derived_from<Update, LoraWeights<float>>) return &update;
      return nullptr;
    }
    InputDropout<float>* dropout() override {
      if constexpr (requires { InputDropout<float>(update.dropout); }) return &update.dropout;
      return nullptr;
    }
  };

  std::unique_ptr<Held> held_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/update/any_update.inl>
#endif
