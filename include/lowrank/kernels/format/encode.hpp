#pragma once

/// Quantizing blocks of numbers in plain C++: the rule itself, which every other target follows bit by bit.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <lowrank/kernels/format/blocks.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

/// How t = x / scale becomes one of 16 codes: its rank among 15 thresholds, by bisection down a tree, then the code of that rank.
struct CodeRule {
  std::array<float, 16> nodes{};  ///< thresholds in heap order: node 2n follows node n where t ≤ nodes[n], node 2n + 1 where t > nodes[n]
  std::array<std::uint8_t, 16> codes{};  ///< of a rank, the number of thresholds below t
  std::array<float, 16> values{};        ///< of a rank
  bool by_magnitude = false;             ///< node 1 asks t < 0, the others compare |t|
};

/// The rule of 15 ascending thresholds, for a table in ascending order: the codes are the ranks.
constexpr CodeRule ordered_rule(const std::array<float, 15>& thresholds, const std::array<float, 16>& table) {
  CodeRule rule;
  rule.values = table;
  for (unsigned first = 1, gap = 8; first < 16; first *= 2, gap /= 2)  // a level: nodes first … 2 first - 1, thresholds 2 gap apart
    for (unsigned i = 0; i < first; ++i) rule.nodes[first + i] = thresholds[gap - 1 + 2 * gap * i];
  for (unsigned rank = 0; rank < 16; ++rank) rule.codes[rank] = static_cast<std::uint8_t>(rank);
  return rule;
}

/// The rule of 7 ascending thresholds for |t|; `ascending` are the codes of the 8 magnitudes, and bit 3 is set iff t < 0.
constexpr CodeRule signed_rule(const std::array<float, 7>& thresholds, const std::array<std::uint8_t, 8>& ascending,
                               const std::array<float, 16>& table) {
  std::array<float, 15> both{};
  for (unsigned i = 0; i < 7; ++i) both[i] = both[i + 8] = thresholds[i];
  CodeRule rule = ordered_rule(both, table);
  rule.by_magnitude = true;
  for (unsigned rank = 0; rank < 16; ++rank) {
    rule.codes[rank] = static_cast<std::uint8_t>(ascending[rank % 8] | (rank & 8u));
    rule.values[rank] = table[rule.codes[rank]];
  }
  return rule;
}

/// A table format as an encoder needs it.
struct TableEncoder {
  CodeRule rule;
  Index block;                       ///< numbers that share a scale; a multiple of 32
  std::span<const float> fractions;  ///< scales to try, in units of the largest magnitude; none: the largest magnitude is the scale
};

/// What one pass over a block with t = x · inverse and v = the value of its code yields: Σ t v and Σ v².
struct Moments {
  float tv, vv;
};

/// The codes of a group, or of a part of one: element i of it is element inside + i of what begins at `codes`.
struct GroupCodes {
  const std::byte* codes;
  Index inside, count;
  float scale, offset;
};

namespace scalar {

/// Sums by position modulo 16, added up as halves: the order of a vector unit, whatever its width.
struct LaneSums {
  std::array<float, 16> lanes{};

  float& at(Index i) { return lanes[static_cast<std::size_t>(i % 16)]; }
  float total() {
    for (std::size_t width = 8; width > 0; width /= 2)
      for (std::size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
  }
};

/// max |x|; infinite or NaN if any element is (without the sign bit, floats order as integers do).
inline float largest_magnitude(const float* x, Index count) {
  std::uint32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = std::max(largest, bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  return bit_cast<float>(largest);
}

inline unsigned rank_of(const CodeRule& rule, float t) {
  const float compared = rule.by_magnitude ? std::abs(t) : t;
  unsigned node = 2u + (rule.by_magnitude ? t < 0 : t > rule.nodes[1]);
  for (int level = 1; level < 4; ++level) node = 2 * node + (compared > rule.nodes[node]);
  return node - 16;
}
inline unsigned code_of(const CodeRule& rule, float t) { return rule.codes[rank_of(rule, t)]; }

/// The last byte of an odd count holds the code of 0 too.
inline void encode_numbers(const CodeRule& rule, const float* x, Index count, float inverse, std::uint8_t* codes) {
  for (Index i = 0; i < count; i += 2) {
    const unsigned high = code_of(rule, x[i] * inverse), low = code_of(rule, i + 1 < count ? x[i + 1] * inverse : 0.0f);
    codes[i / 2] = static_cast<std::uint8_t>(high << 4 | low);
  }
}

inline Moments moments(const CodeRule& rule, const float* x, Index count, float inverse) {
  LaneSums tv, vv;
  for (Index i = 0; i < count; ++i) {
    const float t = x[i] * inverse, v = rule.values[rank_of(rule, t)];
    tv.at(i) = std::fma(t, v, tv.at(i));
    vv.at(i) = std::fma(v, v, vv.at(i));
  }
  return {tv.total(), vv.total()};
}

/// Σ (t - v)²: the squared error in units of the scale.
inline float squared_error(const CodeRule& rule, const float* x, Index count, float inverse) {
  LaneSums sum;
  for (Index i = 0; i < count; ++i) {
    const float rest = std::fma(x[i], inverse, -rule.values[rank_of(rule, x[i] * inverse)]);
    sum.at(i) = std::fma(rest, rest, sum.at(i));
  }
  return sum.total();
}

/// The functions of a target that the search for a scale needs.
struct Search {
  static Moments moments(const CodeRule& rule, const float* x, Index count, float inverse) {
    return scalar::moments(rule, x, count, inverse);
  }
  static float squared_error(const CodeRule& rule, const float* x, Index count, float inverse) {
    return scalar::squared_error(rule, x, count, inverse);
  }
};

/// The scale of least squared error.
///
/// For fixed codes the best scale is Σ x v / Σ v², and lowers the error by (Σ x v)² / Σ v²: so the candidate whose codes promise most is
/// refitted, and kept if it is better than the largest magnitude. No product meets a sum outside an fma: the same bits everywhere.
template <class Functions>
float searched_scale(const TableEncoder& encoder, const float* x, Index count, float largest) {
  float best = largest, best_gain = 0;
  for (const float fraction : encoder.fractions) {
    const float scale = largest * fraction;
    if (!is_normal(scale)) continue;
    const Moments m = Functions::moments(encoder.rule, x, count, 1.0f / scale);
    const float slope = fraction * m.tv, gain = slope * slope / m.vv;
    if (gain > best_gain) best = scale * (m.tv / m.vv), best_gain = gain;
  }
  if (!is_normal(best)) return largest;
  const float unit = best / largest, error = Functions::squared_error(encoder.rule, x, count, 1.0f / best) * (unit * unit);
  return error < Functions::squared_error(encoder.rule, x, count, 1.0f / largest) ? best : largest;
}

/// Quantizes one block, which may be short. False when a number is not finite. A block whose maximum is subnormal is a zero block.
inline bool encode_block(const TableEncoder& encoder, const float* x, Index count, std::uint8_t* codes, float* scale) {
  const float largest = largest_magnitude(x, count);
  *scale = 0;
  if (!is_normal(largest)) {
    std::fill_n(codes, (count + 1) / 2, std::uint8_t{0});
    return is_finite(largest);
  }
  *scale = encoder.fractions.empty() ? largest : searched_scale<Search>(encoder, x, count, largest);
  encode_numbers(encoder.rule, x, count, 1.0f / *scale, codes);
  return true;
}

inline Index encode_table(const TableEncoder& encoder, const float* x, Index blocks, std::uint8_t* codes, float* scales) {
  for (Index b = 0; b < blocks; ++b)
    if (!encode_block(encoder, x + b * encoder.block, encoder.block, codes + b * encoder.block / 2, scales + b)) return b;
  return blocks;
}

/// 1 / scale, and 0 where that is no number: for 0, and for a scale so small that half precision stores it as 0.
inline float reciprocal(float scale) {
  const float inverse = 1.0f / scale;
  return is_finite(inverse) ? inverse : 0.0f;
}

}  // namespace scalar

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
