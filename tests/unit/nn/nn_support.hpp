#pragma once

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>
#include <lowrank/update/init.hpp>

/// Drawn inputs and updates of layers.

namespace nn_test {

using namespace lowrank;

/// Numbers in [-1, 1).
template <class S>
Activation<S> random(Index rows, Index cols, std::uint64_t seed) {
  Activation<S> x(rows, cols);
  fill_uniform(x, 1.0, Random(seed));
  return x;
}

/// Numbers of the normal distribution.
template <class S>
Activation<S> random_columns(Index rows, Index cols, std::uint64_t seed) {
  Activation<S> x(rows, cols);
  fill_normal(x, 1, Random(seed));
  return x;
}

/// Fills B too, so that the update does something.
template <class Layer>
void seed_update(Layer& layer) {
  fill_uniform(layer.a().value, 1.0, Random(100));
  fill_uniform(layer.b().value, 1.0, Random(101));
}

}  // namespace nn_test
