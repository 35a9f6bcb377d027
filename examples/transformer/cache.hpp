#pragma once

#include <algorithm>
#include <vector>

#include <lowrank/autograd/kept.hpp>

namespace transformer {

using lowrank::Activation;
using lowrank::Index;

/// Keys and values of the tokens that were already read, so that the next one costs one column.
template <class Device = lowrank::Cpu>
struct Cache {
  std::vector<lowrank::ArrayOn<float, Device>> keys, values;  // [kv_width, room], one a layer; the first `length` columns count
  Index length = 0;
};

/// Puts columns behind the first `length` of one of the cache's arrays, which grows by doubling; returns all of them.
inline Activation<float> append(const Cache<>& cache, Activation<float>& all, const Activation<float>& fresh) {
  const Index wanted = cache.length + fresh.cols();
  if (all.cols() < wanted) all.conservativeResize(fresh.rows(), std::max(wanted, 2 * all.cols()));
  all.middleCols(cache.length, fresh.cols()) = fresh;
  return all.leftCols(wanted);
}

}  // namespace transformer
