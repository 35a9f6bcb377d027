#pragma once

#include <utility>

#include <lowrank/core/matrix.hpp>
#include <lowrank/error.hpp>
#include <lowrank/ops/kv_view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How a cache holds its numbers: as they come, or rounded to bfloat16 in half the memory.
enum class CachePrecision { fp32, bf16 };

/// What a product of that arithmetic rounds its factors to, so that a cache loses nothing that the product would keep.
constexpr CachePrecision cache_precision(Compute compute) { return compute == Compute::fp32 ? CachePrecision::fp32 : CachePrecision::bf16; }

namespace detail {
/// Rows of heads that grow behind each other: [head][room][head_size], of which the first tokens count.
template <class Element>
class KvArray {
 public:
  /// Room for so many tokens; the first `kept` stay.
  void set_room(Index heads, Index head_size, Index kept, Index room);
  /// Rounds x [heads · head_size, T] into tokens [begin, begin + T).
  void put(Index heads, Index head_size, Index begin, const ActivationView<float>& x);
  KvView<Element> view(Index heads, Index head_size, Index tokens) const {
    return {numbers_.data(), heads, head_size, tokens, room_ * head_size, head_size};
  }
  Index room() const { return room_; }

 private:
  Column<Element> numbers_;
  Index room_ = 0;
};
}  // namespace detail

/// Keys and values of the tokens that one attention has read, so that the next token costs one query.
///
///   KvCache cache(kv_heads, head_size, cache_precision(compute));
///   cache.append(k, v);                                                  // of the new tokens, [kv_heads · head_size, T]
///   auto y = attention_forward(q, cache, {heads, kv_heads, head_size}, compute).y;
/// Each head's numbers lie together, token after token. Room doubles when it is short, and all else is written and read in place. Copies
/// are independent: a copy continues the same text differently. Bytes: 2 kv_heads head_size room, times 2 in bf16 and 4 in fp32.
class KvCache {
 public:
  /// Throws ShapeError unless both sizes are positive.
  KvCache(Index kv_heads, Index head_size, CachePrecision precision);

  /// Puts tokens behind those that are there. Throws ShapeError unless both are [kv_heads · head_size, T].
  void append(const ActivationView<float>& keys, const ActivationView<float>& values);
  /// Makes room for so many tokens in all; what the end is known of never grows step by step.
  void reserve(Index tokens);
  /// Forgets all tokens but the first. Throws ShapeError when there are fewer.
  void truncate(Index tokens);

  Index kv_heads() const { return kv_heads_; }
  Index head_size() const { return head_size_; }
  Index tokens() const { return tokens_; }
  CachePrecision precision() const { return precision_; }
  /// Of the room, keys and values.
  std::size_t bytes() const;

  /// Gives visitor(keys, values) both as KvView of float or of BFloat16; valid until the cache changes.
  template <class Visitor>
  auto visit(const Visitor& visitor) const {
    if (precision_ == CachePrecision::fp32) return visitor(view(fp32_.first), view(fp32_.second));
    return visitor(view(bf16_.first), view(bf16_.second));
  }

 private:
  template <class Element>
  KvView<Element> view(const detail::KvArray<Element>& array) const {
    return array.view(kv_heads_, head_size_, tokens_);
  }
  Index room() const { return precision_ == CachePrecision::fp32 ? fp32_.first.room() : bf16_.first.room(); }

  Index kv_heads_, head_size_, tokens_ = 0;
  CachePrecision precision_;
  std::pair<detail::KvArray<float>, detail::KvArray<float>> fp32_;  // keys and values, of the precision in use
  std::pair<detail::KvArray<BFloat16>, detail::KvArray<BFloat16>> bf16_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/kv_cache.inl>
#endif
