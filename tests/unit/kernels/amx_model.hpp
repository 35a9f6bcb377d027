#pragma once

/// A model of AMX's tiles in plain C++, after the operations in Intel's manual: the kernels' own text runs on it where no processor has
/// them.
///
/// What a program must not do is counted as a fault: tiles that are used before they are configured, or with another shape than their
/// partners', and a configuration that is left behind. Each thread has tiles of its own.

#include <atomic>
#include <cmath>
#include <cstring>

#include <lowrank/kernels/target/dispatch.hpp>

#include "fixtures.hpp"

#if defined(__x86_64__)

#include <lowrank/kernels/target/amx.hpp>

namespace amx_model {

using namespace lowrank;
using kernels::amx::TileConfiguration;

/// Denormal numbers are zero, before an operation and after it.
inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
__attribute__((target("fma"))) inline float multiply_add(float a, float b, float sum) {
  return flushed(__builtin_fmaf(flushed(a), flushed(b), flushed(sum)));
}
inline float low_half(std::uint32_t pair) { return bit_cast<float>(pair << 16); }
inline float high_half(std::uint32_t pair) { return bit_cast<float>(pair & 0xffff0000u); }

struct Tile {
  alignas(64) std::uint32_t words[16][16];
};

struct Tiles {
  static inline std::atomic<int> faults = 0;
  static inline thread_local bool is_configured = false;
  static inline thread_local TileConfiguration shape;
  static inline thread_local Tile tiles[8];

  static void expect(bool holds) {
    if (!holds) ++faults;
  }
  static void configure(const TileConfiguration& tiles_) {
    expect(!is_configured && tiles_.palette == 1 && tiles_.start_row == 0);
    for (int i = 0; i < 16; ++i) {
      expect(i < 8 ? tiles_.rows[i] <= 16 && tiles_.row_bytes[i] <= 64 : tiles_.rows[i] == 0 && tiles_.row_bytes[i] == 0);
      expect((tiles_.rows[i] == 0) == (tiles_.row_bytes[i] == 0));
    }
    for (const std::uint8_t byte : tiles_.reserved) expect(byte == 0);
    shape = tiles_;
    std::memset(tiles, 0, sizeof(tiles));
    is_configured = true;
  }
  static void release() {
    expect(is_configured);
    is_configured = false;
  }
  static int rows(int tile) {
    expect(is_configured && shape.rows[tile] > 0);
    return shape.rows[tile];
  }
  static int words(int tile) { return shape.row_bytes[tile] / 4; }

  template <int T>
  static void zero() {
    expect(is_configured && shape.rows[T] > 0);
    std::memset(&tiles[T], 0, sizeof(Tile));
  }
  template <int T>
  static void load(const void* from, Index stride) {
    zero<T>();
    for (int i = 0; i < rows(T); ++i)
      std::memcpy(tiles[T].words[i], static_cast<const std::byte*>(from) + i * stride, static_cast<std::size_t>(shape.row_bytes[T]));
  }
  template <int T>
  static void store(void* to, Index stride) {
    for (int i = 0; i < rows(T); ++i)
      std::memcpy(static_cast<std::byte*>(to) + i * stride, tiles[T].words[i], static_cast<std::size_t>(shape.row_bytes[T]));
  }

  /// Shapes of a product: [m × k] · [k × n].
  static void expect_product(int sum, int left, int right) {
    expect(rows(sum) == rows(left) && words(left) == rows(right) && words(sum) == words(right));
    expect(sum != left && sum != right && left != right);
  }
  /// TDPBF16PS: even and odd elements in two chains from zero, which are added, and then added to the sum.
  template <int S, int L, int R>
  __attribute__((target("fma"))) static void add_bfloat16() {
    expect_product(S, L, R);
    for (int m = 0; m < rows(S); ++m)
      for (int n = 0; n < words(S); ++n) {
        float even = 0, odd = 0;
        for (int k = 0; k < words(L); ++k) {
          const std::uint32_t left = tiles[L].words[m][k], right = tiles[R].words[k][n];
          even = multiply_add(low_half(left), low_half(right), even);
          odd = multiply_add(high_half(left), high_half(right), odd);
        }
        std::uint32_t& sum = tiles[S].words[m][n];
        sum = bit_cast<std::uint32_t>(flushed(flushed(bit_cast<float>(sum)) + flushed(even + odd)));
      }
  }
};

/// The model runs where the instructions are that fill its panels.
inline bool is_available() { return kernels::avx512bf16::is_available(); }
inline constexpr kernels::Target target = kernels::amx::make_target<Tiles>("amx_model", is_available);

}  // namespace amx_model

#endif  // defined(__x86_64__)

namespace fixtures {

/// As for_each_target, and for the model of AMX.
template <class Body>
void for_each_target_and_model(const Body& body) {
  for_each_target(body);
#if defined(__x86_64__)
  if (!amx_model::is_available()) return;
  const kernels::Target& chosen = kernels::current_target();
  kernels::set_target(amx_model::target);
  body(amx_model::target);
  kernels::set_target(chosen);
  CHECK(amx_model::Tiles::faults == 0);
#endif
}

}  // namespace fixtures
