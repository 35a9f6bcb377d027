#pragma once

/// A model of one's own and adapters: its low-rank layers by their paths, out to files and back.

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/target.hpp>
#include <lowrank/nn/state.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A layer whose update has factors A and B and a scale: LoraLinear, DoraLinear.
template <class Layer>
concept LowRankLayer = requires(Layer& layer) {
  layer.update().a.value;
  layer.update().b.value;
  layer.update().scale;
  layer.update().bias;
  layer.update().method;
};

/// Calls f(path, layer) for each such layer.
template <class Model, class F>
void visit_low_rank(Model& model, const F& f) {
  walk(model, Ignore{}, [&](const std::string& path, auto& layer) {
    if constexpr (LowRankLayer<decltype(layer)>) f(path, layer);
  });
}

/// The tensors of an update, and no more, in a file.
template <class Update>
ModuleTensors update_tensors(const std::string& path, Update& update) {
  check<ValueError>(!path.empty(), "adapter_of", "a layer has no path; show it by visit_named(visitor, name, layer)");
  ModuleTensors result;
  result.scale = static_cast<double>(update.scale);
  update.visit_parameters([&](auto& p) {
    const auto numbers = Weight<float>(p.value.template cast<float>());
    const std::span<const float> span(numbers.data(), static_cast<std::size_t>(numbers.size()));
    result.tensors[p.name] = make_tensor<float>(name_in_file(path, p.name), shape_in_files(p), span);
  });
  return result;
}

/// An update's parameters beside the tensors of a module that shall fill them: A and B may have another rank than they have now.
template <class Update, class F>
void visit_pairs(const std::string& path, const ModuleTensors& module, Update& update, const F& f) {
  const Index rank = module.rank();
  std::size_t found = 0;
  update.visit_parameters([&](auto& p) {
    const bool is_a = static_cast<void*>(&p) == &update.a, is_b = static_cast<void*>(&p) == &update.b;
    const StoredTensor* const tensor = module.find(p.name);
    check<FormatError>(tensor != nullptr, "load_adapter", path, " has no ", p.name, " in the adapter");
    ++found;
    f(p, *tensor, is_a ? rank : p.rows(), is_b ? rank : p.cols());
  });
  check<FormatError>(found == module.tensors.size(), "load_adapter", path, " has ", module.tensors.size(), " tensors in the adapter but ",
                     found, " in the model; build the layer as the adapter says (use_dora, lora_bias)");
}

template <class P>
void check_pair(const std::string& path, const P& parameter, const StoredTensor& tensor, Index rows, Index cols) {
  const auto& kernel = parameter.kernel;
  const bool has_kernel = tensor.shape.size() > kernel.size() && std::equal(kernel.rbegin(), kernel.rend(), tensor.shape.rbegin());
  const bool fits = tensor.size() == rows * cols && has_kernel && (P::Matrix::RowsAtCompileTime == Dynamic || rows == parameter.rows()) &&
                    (P::Matrix::ColsAtCompileTime == Dynamic || cols == parameter.cols());
  check<ShapeError>(fits, "load_adapter", name_in_file(path, parameter.name), " is ", shape_text(tensor.shape), " but the layer has ",
                    shape_text(shape_in_files(parameter)), "; build the layer with the adapter's rank and sizes");
}

template <class P>
void put_pair(P& parameter, const StoredTensor& tensor, Index rows, Index cols) {
  const std::vector<float> numbers = to_floats(tensor);
  parameter.value = Eigen::Map<const Weight<float>>(numbers.data(), rows, cols).template cast<typename P::Scalar>();
  parameter.device.drop();
}

}  // namespace detail

/// The low-rank layers of a model (LoraLinear, DoraLinear) as an adapter, by their paths: peft::save() writes it as PEFT does.
///
/// Throws ValueError for a layer without a path and a model without such layers.
template <class Model>
Adapter adapter_of(Model& model) {
  Adapter adapter;
  std::vector<std::string> paths;
  detail::visit_low_rank(model, [&](const std::string& path, auto& layer) {
    adapter.layers[path] = detail::update_tensors(path, layer.update());
    paths.push_back(path);
    if constexpr (requires { layer.update().dropout; })
      adapter.config.dropout = std::max(adapter.config.dropout, static_cast<double>(layer.update().dropout.probability));
    set_method(adapter.config, std::remove_cvref_t<decltype(layer.update())>::method);
  });
  check<ValueError>(!paths.empty(), "adapter_of", "the model shows no low-rank layers; its visit_parameters must reach them");
  const ModuleTensors& first = adapter.layers.begin()->second;
  adapter.config.rank = first.rank();
  adapter.config.alpha = first.scale * static_cast<double>(first.rank());  // files have a scale as alpha / r; others become exceptions
  adapter.config.lora_bias = first.bias() != nullptr;
  adapter.config.target_modules = std::move(paths);
  return adapter;
}

/// Puts an adapter's numbers and scales into the low-rank layers of a model, by their paths; A and B take the adapter's rank.
///
/// Throws FormatError for a layer or a tensor that the adapter lacks or has beyond the model's, ShapeError for one that does not fit; then
/// nothing has changed. An optimizer of the model must be made anew where a rank has changed.
template <class Model>
void load_adapter(Model& model, const Adapter& adapter) {
  std::size_t found = 0;
  const auto module_of = [&](const std::string& path) -> const ModuleTensors& {
    const auto module = adapter.layers.find(path);
    check<FormatError>(module != adapter.layers.end(), "load_adapter", "the adapter has nothing for the layer ", path);
    return module->second;
  };
  detail::visit_low_rank(model, [&](const std::string& path, auto& layer) {
    ++found;
    detail::visit_pairs(path, module_of(path), layer.update(), [&](auto& p, const StoredTensor& tensor, Index rows, Index cols) {
      detail::check_pair(path, p, tensor, rows, cols);
    });
  });
  check<FormatError>(found == adapter.layers.size() && adapter.saved.empty(), "load_adapter", "the adapter has ", adapter.layers.size(),
                     " modules and ", adapter.saved.size(), " whole tensors, the model takes ", found, " modules; none may be left over");
  detail::visit_low_rank(model, [&](const std::string& path, auto& layer) {
    const ModuleTensors& module = module_of(path);
    detail::visit_pairs(path, module, layer.update(),
                        [](auto& p, const StoredTensor& tensor, Index rows, Index cols) { detail::put_pair(p, tensor, rows, cols); });
    using S = std::remove_reference_t<decltype(layer.update().scale)>;
    layer.update().scale = static_cast<S>(module.scale);
  });
}

}  // namespace lowrank::inline LOWRANK_ABI
