#pragma once

/// All that a model remembers, by name: what a file must hold so that a run goes on to the same bits.

#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/state_array.hpp>
#include <lowrank/nn/parameter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What belongs to a state: the numbers of frozen parameters as well, or what training changes alone.
struct StateOptions {
  bool frozen = true;
};

namespace detail {

// Names that are taken get a count: weight, weight.1, weight.2.
class DistinctNames {
 public:
  std::string operator()(const std::string& name) {
    int& count = counts_[name];
    const std::string distinct = count == 0 ? name : name + '.' + std::to_string(count);
    ++count;
    return distinct == name ? name : (*this)(distinct);
  }

 private:
  std::map<std::string, int> counts_;
};

template <class P>
std::vector<Index> shape_in_files(const P& parameter) {
  if (parameter.planes > 0) return {parameter.planes, parameter.rows() / parameter.planes, parameter.cols()};
  std::vector<Index> shape{parameter.rows(), parameter.cols()};
  if (parameter.is_vector) {
    shape = {parameter.size()};
    if (!parameter.kernel.empty()) shape.insert(shape.begin(), 1);
  } else {
    for (const Index size : parameter.kernel) shape[1] /= size;
  }
  shape.insert(shape.end(), parameter.kernel.begin(), parameter.kernel.end());
  return shape;
}

}  // namespace detail

/// Views of a model's parameters by their paths ("layers.0.query.lora_A.weight"), and of its dropouts' seeds and streams, in a fixed order
/// with distinct names; they stay right while the model stays where it is.
///
/// For any model with visit_parameters (autograd/visit.hpp). io/checkpoint.hpp saves and loads them.
template <class Model>
std::vector<StateArray> state(Model& model, const StateOptions& options = {}) {
  std::vector<StateArray> arrays;
  detail::DistinctNames distinct;
  const auto on_parameter = [&](const std::string& path, auto& parameter) {
    using S = typename std::remove_reference_t<decltype(parameter)>::Scalar;
    if (parameter.empty() || (!options.frozen && !parameter.trainable)) return;
    const std::span<S> numbers(parameter.value.data(), static_cast<std::size_t>(parameter.size()));
    arrays.push_back(state_array(distinct(path), numbers, detail::shape_in_files(parameter)));
  };
  const auto on_dropout = [&](const std::string& path, auto& dropout) {
    if (dropout.probability == 0) return;
    const std::string name = distinct(path.empty() ? "dropout" : path + ".dropout");
    arrays.push_back(state_array(name + ".seed", dropout.seed));
    arrays.push_back(state_array(name + ".stream", dropout.stream));
  };
  walk(model, on_parameter, detail::Ignore{}, on_dropout);
  return arrays;
}

}  // namespace lowrank::inline LOWRANK_ABI
