#pragma once

#include <optional>
#include <vector>

#include <lowrank/autograd/kept.hpp>
#include <lowrank/ops/attention.hpp>

namespace transformer {

using lowrank::Activation;
using lowrank::Index;

/// How a cache holds keys and values; none: in bfloat16, unless products compute in fp32.
using CachePrecision = std::optional<lowrank::CachePrecision>;

/// Keys and values of the tokens that were already read, so that the next one costs one column.
template <class Device = lowrank::Cpu>
struct Cache {
  std::vector<lowrank::ArrayOn<float, Device>> keys, values;  // [kv_width, room], one a layer; the first `length` columns count
  Index length = 0;
};

template <>
struct Cache<lowrank::Cpu> {
  std::vector<lowrank::KvCache> layers;
  Index length = 0;
  CachePrecision precision = {};
};

/// Attention of the new queries of layer i of so many to all keys so far, the new ones included, which join the cache.
inline Activation<float> attend(Cache<>& cache, Index layers, Index i, const Activation<float>& q, const Activation<float>& k,
                                const Activation<float>& v, const lowrank::AttentionShape& shape, lowrank::Compute compute) {
  if (cache.layers.empty()) {
    const auto precision = cache.precision.value_or(lowrank::cache_precision(compute));
    cache.layers.assign(static_cast<std::size_t>(layers), lowrank::KvCache(shape.kv_heads, shape.head_size, precision));
  }
  lowrank::KvCache& layer = cache.layers[static_cast<std::size_t>(i)];
  layer.truncate(cache.length);  // a pass that failed half way left more
  layer.append(k, v);
  return attention_forward(q, layer, shape, compute).y;
}

}  // namespace transformer
