#pragma once

/// Handles: pointers to objects that may move or end while others refer to them.

#include <memory>
#include <utility>

#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Base of objects that handles refer to. Costs an allocation an object, nothing where it is used.
///
/// A copy is another object. A moved object takes its handles along: they find it at its new place. To assign to an object changes what it
/// holds and not which one it is, unless handles come along with what is moved in: then the object is that one from there on.
class Handled {
 public:
  Handled() : place_(std::make_shared<Handled*>(this)) {}
  Handled(const Handled&) : Handled() {}
  Handled(Handled&& other) noexcept : place_(std::move(other.place_)) { settle(); }
  Handled& operator=(const Handled&) {
    place();
    return *this;
  }
  Handled& operator=(Handled&& other) noexcept {
    if (this == &other) return *this;
    if (other.place_.use_count() < 2) return place(), *this;
    leave();
    place_ = std::move(other.place_);
    settle();
    return *this;
  }

 protected:
  ~Handled() { leave(); }

 private:
  template <class Object>
  friend class Handle;

  void settle() noexcept {
    if (place_) *place_ = this;
  }
  void leave() noexcept {
    if (place_) *place_ = nullptr;
  }
  /// One that was moved from and is used again is a new object.
  const std::shared_ptr<Handled*>& place() {
    if (!place_) place_ = std::make_shared<Handled*>(this);
    return place_;
  }

  std::shared_ptr<Handled*> place_;
};

/// A pointer to an object derived from Handled, which follows it when it moves and is null when it has ended.
template <class Object>
class Handle {
 public:
  Handle() = default;
  explicit Handle(Object& object) : place_(static_cast<Handled&>(object).place()) {}

  /// Whether it was made of an object, be it there or not.
  bool is_set() const { return place_ != nullptr; }
  /// The object, or null.
  Object* get() const { return place_ && *place_ ? static_cast<Object*>(*place_) : nullptr; }
  /// The object. Throws Error when it has ended.
  Object* operator->() const {
    Object* object = get();
    check<Error>(object != nullptr, "backward",
                 "a parameter that the forward pass used is gone: its layer was destroyed; keep layers until backward() has run");
    return object;
  }
  Object& operator*() const { return *operator->(); }
  bool operator==(const Handle&) const = default;

 private:
  std::shared_ptr<Handled*> place_;
};

}  // namespace lowrank::inline LOWRANK_ABI
