#pragma once

#include <algorithm>
#include <type_traits>

#include <lowrank/core/shape.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class Element>
void KvArray<Element>::set_room(Index heads, Index head_size, Index kept, Index room) {
  Column<Element> larger(heads * head_size * room);
  for (Index h = 0; h < heads; ++h)
    std::copy_n(numbers_.data() + h * room_ * head_size, kept * head_size, larger.data() + h * room * head_size);
  numbers_ = std::move(larger);
  room_ = room;
}

template <class Element>
void KvArray<Element>::put(Index heads, Index head_size, Index begin, const ActivationView<float>& x) {
  for_each_token(x.rows(), x.cols(), [&](Index t) {
    for (Index h = 0; h < heads; ++h) {
      const float* from = x.col(t).data() + h * head_size;
      Element* to = numbers_.data() + (h * room_ + begin + t) * head_size;
      if constexpr (std::is_same_v<Element, float>)
        std::copy_n(from, head_size, to);
      else
        elementwise().to_bfloat16(from, head_size, &to->bits);
    }
  });
}

}  // namespace detail

LOWRANK_INLINE KvCache::KvCache(Index kv_heads, Index head_size, CachePrecision precision)
    : kv_heads_(kv_heads), head_size_(head_size), precision_(precision) {
  check<ShapeError>(kv_heads > 0 && head_size > 0, "kv_cache", "kv_heads = ", kv_heads, ", head_size = ", head_size,
                    "; both must be positive");
}

LOWRANK_INLINE void KvCache::append(const ActivationView<float>& keys, const ActivationView<float>& values) {
  const Index width = kv_heads_ * head_size_;
  check<ShapeError>(keys.rows() == width && values.rows() == width && keys.cols() == values.cols(), "kv_cache", "keys are [", keys.rows(),
                    ", ", keys.cols(), "], values [", values.rows(), ", ", values.cols(), "] with kv_heads = ", kv_heads_,
                    ", head_size = ", head_size_, "; both must be [kv_heads * head_size, tokens]");
  const Index wanted = tokens_ + keys.cols();
  if (wanted > room()) reserve(std::max(wanted, 2 * room()));
  const auto put = [&](auto& arrays) {
    arrays.first.put(kv_heads_, head_size_, tokens_, keys);
    arrays.second.put(kv_heads_, head_size_, tokens_, values);
  };
  precision_ == CachePrecision::fp32 ? put(fp32_) : put(bf16_);
  tokens_ = wanted;
}

LOWRANK_INLINE void KvCache::reserve(Index tokens) {
  if (tokens <= room()) return;
  element_count("kv_cache", "the room [kv_heads, tokens, head_size]", {kv_heads_, tokens, head_size_});
  const auto grow = [&](auto& arrays) {
    arrays.first.set_room(kv_heads_, head_size_, tokens_, tokens);
    arrays.second.set_room(kv_heads_, head_size_, tokens_, tokens);
  };
  precision_ == CachePrecision::fp32 ? grow(fp32_) : grow(bf16_);
}

LOWRANK_INLINE void KvCache::truncate(Index tokens) {
  check<ShapeError>(0 <= tokens && tokens <= tokens_, "kv_cache", "to keep ", tokens, " tokens of ", tokens_,
                    "; keep at most as many as there are");
  tokens_ = tokens;
}

LOWRANK_INLINE std::size_t KvCache::bytes() const {
  const std::size_t element = precision_ == CachePrecision::fp32 ? sizeof(float) : sizeof(BFloat16);
  return 2 * element * static_cast<std::size_t>(kv_heads_ * head_size_ * room());
}

}  // namespace lowrank::inline LOWRANK_ABI
