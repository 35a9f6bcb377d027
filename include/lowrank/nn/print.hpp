#pragma once

/// Layers and parameters in one line, and what such a line is made of: format, count of parameters, bytes.

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <lowrank/autograd/visit.hpp>
#include <lowrank/core/print.hpp>
#include <lowrank/kernels/format/weight_view.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {
template <class S>
constexpr std::string_view scalar_text() {
  return std::is_same_v<S, double> ? "fp64" : "fp32";
}
inline std::string sizes_text(Index rows, Index cols) { return concat('[', rows, ", ", cols, ']'); }
}  // namespace detail

/// `lora_A.weight fp32 [4, 64], trainable`.
template <class S, int Rows, int Cols>
std::string describe(const Parameter<S, Rows, Cols>& parameter) {
  const bool is_vector = parameter.is_vector || parameter.cols() == 1;
  return concat(parameter.name.empty() ? "parameter" : printable(parameter.name, 80), ' ', detail::scalar_text<S>(), ' ',
                is_vector ? concat('[', parameter.rows(), ']') : detail::sizes_text(parameter.rows(), parameter.cols()), ", ",
                parameter.trainable ? "trainable" : "frozen");
}

/// How much a layer or model is.
struct LayerSize {
  Index trainable = 0;    ///< numbers that training changes
  Index parameters = 0;   ///< all numbers, the frozen weights' included
  std::size_t bytes = 0;  ///< of weights and parameters as they are stored; gradients and scratch left out
};

namespace detail {
template <class Layer>
concept HasBase = requires(const Layer& layer) {
  layer.base().in_features();
  layer.update();
};
template <class Layer>
concept HasFrozenWeight = requires(const Layer& layer) {
  layer.weight().rows();
  layer.weight_bytes();
}
&&!IsParameter<std::remove_cvref_t<decltype(std::declval<const Layer&>().weight())>>;

/// Adds up what visit_parameters shows.
struct SizeVisitor {
  LayerSize& size;

  template <class Part>
  void operator()(const Part& parameter) const {
    size.trainable += parameter.needs_grad() ? parameter.size() : 0;
    size.parameters += parameter.size();
    size.bytes += static_cast<std::size_t>(parameter.size()) * sizeof(*parameter.value.data());
  }
  template <class Layer>
  void layer(const Layer& layer) const {
    if constexpr (HasFrozenWeight<Layer>) {
      size.parameters += layer.weight().rows() * layer.weight().cols();
      size.bytes += layer.weight_bytes();
    }
  }
};
}  // namespace detail

/// The size of a layer or model: of all that its visit_parameters shows.
template <class Model>
LayerSize layer_size(const Model& model) {
  LayerSize size;
  detail::visit_part(detail::SizeVisitor{size}, const_cast<Model&>(model));  // which changes nothing
  return size;
}

/// The format that a layer's weight is stored in, of an adapted layer that of its base: nf4, Q4_K, bf16, …
template <class Layer>
std::string_view format_of(const Layer& layer) {
  if constexpr (detail::HasBase<Layer>) {
    return format_of(layer.base());
  } else if constexpr (requires { WeightView(layer.source()); }) {
    return WeightView(layer.source()).format();
  } else {
    return detail::scalar_text<typename Layer::Scalar>();
  }
}

namespace detail {

template <class Layer>
constexpr std::string_view kind_of() {
  if constexpr (requires { std::string_view(Layer::kind); }) return Layer::kind;
  return "layer";
}

/// `QuantizedLinear nf4 [48, 64]`, or `LoraLinear [48, 64] rank 4, s = 2, over ` and that.
template <class Layer>
std::string layer_head(const Layer& layer) {
  std::string text(kind_of<Layer>());
  if constexpr (!HasBase<Layer>) text += concat(' ', format_of(layer));
  text += ' ' + sizes_text(layer.out_features(), layer.in_features());
  if constexpr (requires { layer.bias().empty(); })
    if (!layer.bias().empty()) text += " with bias";
  if constexpr (requires { layer.update().a.rows(), layer.update().scale; })
    text += concat(" rank ", layer.update().a.rows(), ", s = ", layer.update().scale);
  if constexpr (requires { layer.is_merged(); })
    if (layer.is_merged()) text += ", merged";
  if constexpr (HasBase<Layer>) text += ", over " + layer_head(layer.base());
  return text;
}
template <class Layer>
std::string layer_tail(const Layer& layer) {
  const LayerSize size = layer_size(layer);
  return concat(", ", size.trainable, " of ", size.parameters, " parameters trainable, ", bytes_text(size.bytes));
}
}  // namespace detail

/// A linear layer: `LoraLinear [48, 64] rank 4, s = 2, over QuantizedLinear nf4 [48, 64], 448 of 3520 parameters trainable, 3.5 kB`.
/// A layer of yours is told so, too, when it names its `kind`.
template <class Layer>
requires requires(const Layer& layer) {
  std::string_view(Layer::kind);
  layer.in_features(), layer.out_features();
}
std::string describe(const Layer& layer) { return detail::layer_head(layer) + detail::layer_tail(layer); }

}  // namespace lowrank::inline LOWRANK_ABI
