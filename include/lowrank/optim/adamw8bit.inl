#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE MomentCodes::MomentCodes(bool with_sign) {
  // Decade i of 7, from 10^(i - 7) to 10^(i - 6), in 2^i parts with a sign, in 2^(i + 1) without; a number is the middle of its part.
  magnitudes_.push_back(0);
  for (int decade = 0; decade < 7; ++decade) {
    const int parts = 1 << (with_sign ? decade : decade + 1);
    for (int k = 0; k < parts; ++k) {
      const double middle = 0.1 + 0.9 * (k + 0.5) / parts;
      magnitudes_.push_back(static_cast<float>(std::pow(10.0, decade - 6) * middle));
    }
  }
  magnitudes_.push_back(1);
  for (std::size_t i = 0; i + 1 < magnitudes_.size(); ++i) midpoints_.push_back((magnitudes_[i] + magnitudes_[i + 1]) / 2);
  zero_ = with_sign ? 127 : 0;
  for (std::size_t i = 0; i < magnitudes_.size(); ++i) {
    if (with_sign && i > 0 && i < 128) numbers_[zero_ - i] = -magnitudes_[i];
    numbers_[zero_ + i] = magnitudes_[i];
  }
  for (std::uint32_t upper = 0; upper <= bit_cast<std::uint32_t>(1.0f) >> 16; ++upper) {
    const float least = bit_cast<float>(upper << 16);
    starts_.push_back(static_cast<std::uint8_t>(std::ranges::lower_bound(midpoints_, least) - midpoints_.begin()));
  }
}

LOWRANK_INLINE const MomentCodes& MomentCodes::first() {
  static const MomentCodes codes(true);
  return codes;
}
LOWRANK_INLINE const MomentCodes& MomentCodes::second() {
  static const MomentCodes codes(false);
  return codes;
}

LOWRANK_INLINE std::uint8_t MomentCodes::nearest(float x) const {
  const std::uint32_t bits = bit_cast<std::uint32_t>(x), one = bit_cast<std::uint32_t>(1.0f);
  const std::uint32_t magnitude = std::min(bits & 0x7fffffffu, one);  // what is no number, too, has a code
  const float t = bit_cast<float>(magnitude);
  std::size_t i = starts_[magnitude >> 16];
  while (i < midpoints_.size() && t > midpoints_[i]) ++i;
  if (zero_ == 0) return static_cast<std::uint8_t>(i == 0 && magnitude != 0 ? 1 : i);
  return static_cast<std::uint8_t>(bits >> 31 ? zero_ - std::min<std::size_t>(i, 127) : zero_ + i);
}

#if defined(LOWRANK_COMPILING)
template class Optimizer<AdamW8bitRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI
