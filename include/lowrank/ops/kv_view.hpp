#pragma once

#include <lowrank/core/matrix.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Keys, or values, of all heads where they lie: the head_size numbers of token t in head h begin at data[h · head_stride + t ·
/// token_stride].
///
/// Element is float, double or BFloat16. Owns nothing: what it views must outlive it. Sequences of a batch lie one after the other along
/// the tokens.
template <class Element>
struct KvView {
  const Element* data = nullptr;
  Index heads = 0, head_size = 0, tokens = 0;
  Index head_stride = 0, token_stride = 0;

  const Element* at(Index head, Index token) const { return data + head * head_stride + token * token_stride; }
};

/// An activation [kv_heads · head_size, T] seen as its heads. The shape is the caller's to check.
template <class S>
KvView<S> kv_view(const Eigen::Ref<const Activation<S>>& x, Index kv_heads) {
  const Index size = kv_heads > 0 ? x.rows() / kv_heads : 0;
  return {x.data(), kv_heads, size, x.cols(), size, x.outerStride()};
}

}  // namespace lowrank::inline LOWRANK_ABI
