#pragma once

#include <algorithm>
#include <vector>

#include <lowrank/cuda.hpp>

namespace transformer {

using lowrank::Activation;
using lowrank::Index;

/// Keys and values of the tokens that were already read, so that the next one costs one column.
template <class Device = lowrank::Cpu>
struct Cache {
  std::vector<lowrank::Array<float, Device>> keys, values;  // [kv_width, room], one a layer; the first `length` columns count
  Index length = 0;
};

/// Puts columns behind the first `length` of an array that grows by doubling; returns all of them.
inline Activation<float> append(Activation<float>& all, Index length, const Activation<float>& fresh) {
  const Index wanted = length + fresh.cols();
  if (all.cols() < wanted) all.conservativeResize(fresh.rows(), std::max(wanted, 2 * all.cols()));
  all.middleCols(length, fresh.cols()) = fresh;
  return all.leftCols(wanted);
}
/// The same on a GPU; what it returns is a window, not a copy.
inline lowrank::cuda::DeviceActivation append(lowrank::cuda::DeviceActivation& all, Index length,
                                              const lowrank::cuda::DeviceActivation& fresh) {
  const Index wanted = length + fresh.cols();
  if (all.cols() < wanted) {
    lowrank::cuda::DeviceActivation larger(fresh.rows(), std::max(wanted, 2 * all.cols()));
    if (length > 0) larger.set_columns(0, all.leftCols(length));
    all = std::move(larger);
  }
  all.set_columns(length, fresh);
  return all.leftCols(wanted);
}

}  // namespace transformer
