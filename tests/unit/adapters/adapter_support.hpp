#pragma once

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/update/init.hpp>

/// Drawn adapters and what their layers add to a weight.

namespace lowrank::test {

inline Weight<float> drawn_matrix(Index rows, Index cols, std::uint64_t seed, double deviation = 1) {
  Weight<float> m(rows, cols);
  fill_normal(m, deviation, Random(seed));
  return m;
}

inline ModuleTensors drawn_layer(Index out, Index in, Index rank, double scale, std::uint64_t seed) {
  return lora_tensors(from_weight("a", drawn_matrix(rank, in, 2 * seed)), from_weight("b", drawn_matrix(out, rank, 2 * seed + 1)), scale);
}

inline Adapter drawn_adapter(const std::vector<std::string>& paths, Index out, Index in, Index rank, std::uint64_t seed) {
  Adapter adapter;
  adapter.config.rank = rank;
  adapter.config.alpha = 2.0 * static_cast<double>(rank);
  adapter.config.target_modules = paths;
  for (const std::string& path : paths) adapter.layers[path] = drawn_layer(out, in, rank, 2, ++seed * 1000);
  return adapter;
}

/// s B A, dense.
inline Eigen::MatrixXd update_of(const ModuleTensors& layer) {
  return layer.scale * to_weight(layer.b()).cast<double>() * to_weight(layer.a()).cast<double>();
}

}  // namespace lowrank::test
