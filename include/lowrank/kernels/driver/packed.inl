#pragma once

#include <span>
#include <utility>

#include <lowrank/kernels/driver/loops.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

LOWRANK_INLINE Index packed_grain(Compute compute) { return panel_kernels(current_target(), compute).grain; }

LOWRANK_INLINE Packed::Packed(Index depth, Index tokens, Compute compute)
    : target_(current_target()),
      compute_(compute),
      kernels_(panel_kernels(target_, compute)),
      tokens_(tokens),
      token_words_(round_up(depth, kernels_.grain) / kernels_.unit * kernels_.columns) {
  const Index count = ceil_div(tokens, kernels_.columns) * token_words_ + 16;
  uses_scratch_ = !std::exchange(scratch_in_use(), true);
  if (!uses_scratch_) own_.reset(static_cast<Word*>(::operator new (static_cast<std::size_t>(count) * sizeof(Word), std::align_val_t{64})));
  words_ = uses_scratch_ ? Scratch<Packed>::get<Word>(count) : own_.get();
}

LOWRANK_INLINE Packed::~Packed() {
  if (uses_scratch_) scratch_in_use() = false;
}

LOWRANK_INLINE void Packed::put(Index depth, const Columns& part) {
  const bool parallel = thread_count() > 1 && part.depth * tokens_ > (Index{1} << 14);
  detail::pack_panels(kernels_, std::span(&part, 1), 0, tokens_, words_ + depth / kernels_.unit * kernels_.columns, token_words_, parallel);
}

LOWRANK_INLINE void Packed::multiply(const Pieces& factor, Index first, float* y, Index ldy, Options options) const {
  if (factor.rows() == 0 || tokens_ == 0) return;
  options.compute = compute_;
  const detail::Blocking blocking(kernels_, factor.rows(), factor.depth(), tokens_, tokens_);
  const Word* words = words_ + first / kernels_.unit * kernels_.columns;
  detail::Product{target_, kernels_, factor, words, token_words_, y, ldy, options, blocking, 0, factor.depth()}.run(tokens_);
}

LOWRANK_INLINE bool& Packed::scratch_in_use() {
  thread_local bool value = false;
  return value;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
