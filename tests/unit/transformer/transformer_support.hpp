#pragma once

#include <filesystem>

#include <lowrank/core/matrix.hpp>

namespace transformer_test {

inline const std::filesystem::path golden_folder = LOWRANK_GOLDEN_DIR;

/// ‖x − y‖ / ‖y‖.
inline double distance(const lowrank::Activation<float>& x, const lowrank::Activation<float>& y) {
  return static_cast<double>((x - y).norm() / y.norm());
}

}  // namespace transformer_test
