#pragma once

/// A model as a table: a line a layer, with its shape, format, what of it is trained, and bytes.

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/autograd/visit.hpp>
#include <lowrank/nn/print.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Name, shape, format, trainable numbers, all numbers, bytes: as texts.
using SummaryRow = std::array<std::string, 6>;

/// Rows as lines of aligned columns, texts to the left and numbers to the right, under a head and over a total.
std::string summary_text(std::vector<SummaryRow> rows, const LayerSize& total);

class Summary {
 public:
  /// A layer stands for all that it is made of: what is shown below its path is passed over.
  template <class Layer>
  void add_layer(const std::string& path, const Layer& layer) {
    if (is_inside(path)) return;
    is_in_layer_ = true;
    layer_ = path;
    std::string format(format_of(layer));
    if constexpr (requires { layer.update().a.rows(); }) format += concat(" + rank ", layer.update().a.rows());
    if constexpr (HasBase<Layer> && !requires { layer.update().a.rows(); }) format += " + update";
    add(path, sizes_text(layer.out_features(), layer.in_features()), format, layer_size(layer));
  }
  template <class P>
  void add_parameter(const std::string& path, const P& parameter) {
    if (is_in_layer_ && (layer_.empty() || path.starts_with(layer_ + '.'))) return;
    const LayerSize size{parameter.needs_grad() ? parameter.size() : 0, parameter.size(),
                         static_cast<std::size_t>(parameter.size()) * sizeof(typename P::Scalar)};
    add(path, sizes_text(parameter.rows(), parameter.cols()), std::string(scalar_text<typename P::Scalar>()), size);
  }
  std::string text() { return summary_text(std::move(rows_), total_); }

 private:
  bool is_inside(const std::string& path) const {
    return is_in_layer_ && (layer_.empty() || path == layer_ || path.starts_with(layer_ + '.'));
  }
  void add(const std::string& name, std::string shape, std::string format, const LayerSize& size) {
    rows_.push_back({printable(name, 60), std::move(shape), std::move(format), std::to_string(size.trainable),
                     std::to_string(size.parameters), bytes_text(size.bytes)});
    total_.trainable += size.trainable;
    total_.parameters += size.parameters;
    total_.bytes += size.bytes;
  }

  std::vector<SummaryRow> rows_;
  LayerSize total_;
  std::string layer_;
  bool is_in_layer_ = false;
};

}  // namespace detail

/// The layers of a model with visit_parameters, and its parameters outside of them, as an aligned table of a line each; ends in a newline.
///
///   std::cout << summary(model);
template <class Model>
std::string summary(Model& model) {
  detail::Summary rows;
  walk(
      model, [&](const std::string& path, const auto& parameter) { rows.add_parameter(path, parameter); },
      [&](const std::string& path, const auto& layer) { rows.add_layer(path, layer); });
  return rows.text();
}

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/nn/summary.inl>
#endif
