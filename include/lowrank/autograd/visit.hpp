#pragma once

/// Walking a model: how layers and models show their parts to those who list, save or change them.

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/autograd/parameter.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class Part>
concept IsParameter = std::is_base_of_v<Handled, Part> && requires(Part& part) {
  part.needs_grad(), part.value;
};

// A part without a name of its own: a parameter, what has visit_parameters, a pointer or an optional to such, or a range of such.
template <class Visitor, class Part>
void visit_part(const Visitor& visitor, Part& part);

template <class Visitor, class Range>
void visit_numbered(const Visitor& visitor, Range& parts);

}  // namespace detail

/// Shows parts by name: visit_named(visitor, "query", query, "norm", norm). What a model's visit_parameters is made of.
///
///     template <class Visitor>
///     void visit_parameters(const Visitor& visitor) { visit_named(visitor, "embedding", embedding, "layers", layers); }
///
/// A part is a Parameter, a layer, anything else with visit_parameters, a pointer or std::optional to one, or a range of them, which are
/// numbered. A parameter's path is the names on the way to it and its own, joined by dots: "layers.0.query.lora_A.weight".
template <class Visitor, class Part>
void visit_named(const Visitor& visitor, std::string_view name, Part& part) {
  if constexpr (requires { visitor.enter(name); }) visitor.enter(name);
  detail::visit_part(visitor, part);
  if constexpr (requires { visitor.leave(); }) visitor.leave();
}
template <class Visitor, class Part, class... More>
void visit_named(const Visitor& visitor, std::string_view name, Part& part, std::string_view next, More&... more) {
  visit_named(visitor, name, part);
  visit_named(visitor, next, more...);
}

/// Shows a linear layer to visitors that ask for layers; called by the layer's visit_parameters.
template <class Visitor, class Layer>
void visit_layer(const Visitor& visitor, Layer& layer) {
  if constexpr (requires { visitor.layer(layer); }) visitor.layer(layer);
}
/// Shows an InputDropout to visitors that ask for dropout.
template <class Visitor, class Dropout>
void visit_dropout(const Visitor& visitor, Dropout& dropout) {
  if constexpr (requires { visitor.dropout(dropout); }) visitor.dropout(dropout);
}

namespace detail {

template <class Visitor, class Part>
void visit_part(const Visitor& visitor, Part& part) {
  if constexpr (IsParameter<Part>) {
    visitor(part);
  } else if constexpr (requires { part.visit_parameters(visitor); }) {
    part.visit_parameters(visitor);
  } else if constexpr (requires { part.begin(), part.end(); }) {
    visit_numbered(visitor, part);
  } else if constexpr (requires { static_cast<bool>(part), *part; }) {
    if (part) visit_part(visitor, *part);
  } else {
    static_assert(IsParameter<Part>,
                  "visit_named(visitor, name, part): part must be a Parameter, have visit_parameters(visitor), or be a pointer, an "
                  "optional or a range of such");
  }
}

template <class Visitor, class Range>
void visit_numbered(const Visitor& visitor, Range& parts) {
  std::size_t number = 0;
  for (auto& part : parts) visit_named(visitor, std::to_string(number++), part);
}

struct Ignore {
  template <class... Parts>
  void operator()(const Parts&...) const {}
};

/// Where a walk is: the names so far, joined by dots.
struct Path {
  std::string text;
  std::vector<std::size_t> lengths = {};  ///< of the texts to come back to

  void enter(std::string_view name) {
    lengths.push_back(text.size());
    if (!text.empty() && !name.empty()) text += '.';
    text += name;
  }
  void leave() {
    text.resize(lengths.back());
    lengths.pop_back();
  }
};

/// The visitor of walk().
template <class OnParameter, class OnLayer, class OnDropout>
class Walk {
 public:
  Walk(const OnParameter& on_parameter, const OnLayer& on_layer, const OnDropout& on_dropout, Path& path)
      : on_parameter_(on_parameter), on_layer_(on_layer), on_dropout_(on_dropout), path_(path) {}

  template <class Parameter>
  void operator()(Parameter& parameter) const {
    enter(parameter.name);
    on_parameter_(std::as_const(path_.text), parameter);
    leave();
  }
  template <class Layer>
  void layer(Layer& layer) const {
    on_layer_(std::as_const(path_.text), layer);
  }
  template <class Dropout>
  void dropout(Dropout& dropout) const {
    on_dropout_(std::as_const(path_.text), dropout);
  }
  void enter(std::string_view name) const { path_.enter(name); }
  void leave() const { path_.leave(); }

 private:
  const OnParameter& on_parameter_;
  const OnLayer& on_layer_;
  const OnDropout& on_dropout_;
  Path& path_;
};

}  // namespace detail

/// Calls on_parameter(path, parameter) for each parameter of a model in order, on_layer(path, layer) for each linear layer and
/// on_dropout(path, dropout) for each dropout.
template <class Model, class OnParameter, class OnLayer = detail::Ignore, class OnDropout = detail::Ignore>
void walk(Model& model, const OnParameter& on_parameter, const OnLayer& on_layer = {}, const OnDropout& on_dropout = {}) {
  detail::Path path;
  detail::visit_part(detail::Walk<OnParameter, OnLayer, OnDropout>(on_parameter, on_layer, on_dropout, path), model);
}

}  // namespace lowrank::inline LOWRANK_ABI
