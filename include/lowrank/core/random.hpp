#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Philox4x32-10: four random words from a counter and a key, with no state between them.
///
/// The same on every platform and for any number of threads. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = std::uint64_t{0xD2511F53u} * counter[0], right = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(right >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(right),
               static_cast<std::uint32_t>(left >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(left)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// What the library draws numbers for. Under one seed and one stream each has numbers of its own: a fresh layer's A is independent of the
/// weight beside it, though both may have the seed 0.
enum class Role : std::uint64_t {
  lora_a,  ///< and whatever a program draws itself: the seed as it is
  weight,
  bias,
  table,
  mask,
  table_lora,
  lora_xs,
  adalora,
  loha,
  lokr,
  hra,
  orthogonal,
  pruning,
  sketch,
};

/// The seed of a role: another one for each, as the multiplier is odd.
constexpr std::uint64_t seed_of(std::uint64_t seed, Role role) { return seed ^ (static_cast<std::uint64_t>(role) * 0xC2B2AE3D27D4EB4Fu); }

/// A stream of random numbers: draw i of stream s under a seed is a pure function of (seed, s, i).
class Random {
 public:
  explicit constexpr Random(std::uint64_t seed, std::uint64_t stream = 0, Role role = {}) : seed_(seed_of(seed, role)), stream_(stream) {}

  /// The 32 bits of draw i; needs no earlier draw, so threads may split the range.
  constexpr std::uint32_t bits_at(std::uint64_t i) const { return block(i / 4)[i % 4]; }
  /// Uniform in [0, 1), 24 bits, of draw i.
  constexpr float uniform_at(std::uint64_t i) const { return to_unit(bits_at(i)); }

  constexpr std::uint32_t bits() { return bits_at(next_++); }
  /// Uniform in [0, 1).
  constexpr float uniform() { return to_unit(bits()); }
  constexpr float uniform(float low, float high) { return low + (high - low) * uniform(); }
  /// Uniform in [0, n), n > 0 (multiply and shift; bias below n / 2^32).
  constexpr Index below(Index n) { return static_cast<Index>((static_cast<std::uint64_t>(n) * bits()) >> 32); }
  /// Standard normal, by Box and Muller; two draws each.
  float normal() {
    const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(bits()) + 0.5) * 0x1p-32));
    const double angle = 2.0 * std::numbers::pi * (static_cast<double>(bits()) * 0x1p-32);
    return static_cast<float>(radius * std::cos(angle));
  }

  /// Position in the stream, to save and restore it.
  constexpr std::uint64_t position() const { return next_; }
  constexpr void seek(std::uint64_t position) { next_ = position; }

 private:
  static constexpr float to_unit(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }
  constexpr std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), static_cast<std::uint32_t>(stream_),
                   static_cast<std::uint32_t>(stream_ >> 32)},
                  {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  }

  std::uint64_t seed_, stream_, next_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI
