#pragma once

#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// The ways to compute Y = W X + adapter · H.
enum class ProductPath {
  few,     ///< ProductFew: mma.sync without tiles, weights read once
  small,   ///< ProductMany on mma.sync, tiles of 64 × 16
  medium,  ///< 128 × 64
  large,   ///< 128 × 128
  wgmma_64,
  wgmma_128,
  wgmma_256,  ///< ProductWgmma, 128 rows × so many tokens
  slices,     ///< W decoded slice by slice into the L2 cache, each multiplied by cuBLAS
};

/// What the choice depends on.
struct DeviceTraits {
  int multiprocessors = 1;
  int capability_major = 8;  ///< of the compute capability: 8 (Ampere, Ada), 9 (Hopper), 10 and 12 (Blackwell)
  bool has_wgmma = false;    ///< capability 9.0 and code for sm_90a
  bool has_blas = false;     ///< the launcher brings cuBLAS along (cuda/cublas.hpp)
};

/// Tokens from which on the slices win. BY ESTIMATE, as is all of choose_product: no number here was measured. benchmarks/cuda measures
/// every path at every size; its table belongs here.
///
/// The roofline on paper, W [14336, 4096] in NF4: decoding all of it costs 0.5 B read and 2 B written and read again in the L2 cache a
/// weight, 0.03 to 0.06 ms on an H100 with its launches, whatever the tokens. A product of 4096 tokens is 481 GFLOP: 0.6 to 0.7 ms by
/// cuBLAS on wgmma (70 to 80 % of 989 TFLOP/s). The fused kernels have no such cost, but share their issue slots and shared memory with the
/// decoding: 55 to 65 % is what we expect of wgmma, 0.75 to 0.9 ms, hence slices from 2048 tokens on. mma.sync reaches about 60 % of an
/// A100's peak here and cuBLAS 85 %: from 1024 on. On Blackwell mma.sync runs at a fraction of what tcgen05 gives, which cuBLAS uses and
/// this library does not: from 256 on.
constexpr Index slices_from(int capability_major) { return capability_major >= 10 ? 256 : capability_major == 9 ? 2048 : 1024; }

/// The path for a product of `rows` outputs a token, turned or not. Few tokens go through ProductFew, few rows (A X of a low-rank
/// layer) through the smallest tile; on wgmma the widest tile that still gives every multiprocessor a block.
constexpr ProductPath choose_product(Index rows, Index tokens, bool turned, const DeviceTraits& device) {
  if (!turned && tokens <= 8) return ProductPath::few;
  if (tokens <= 32 || rows <= 64) return ProductPath::small;
  if (device.has_blas && tokens >= slices_from(device.capability_major)) return ProductPath::slices;
  if (!device.has_wgmma) return tokens <= 512 ? ProductPath::medium : ProductPath::large;
  const auto fills = [&](Index width) {
    return tokens > width / 2 && ceil_div(rows, 128) * ceil_div(tokens, width) >= device.multiprocessors;
  };
  return fills(256) ? ProductPath::wgmma_256 : fills(128) ? ProductPath::wgmma_128 : ProductPath::wgmma_64;
}

/// The traits of what launches: a Launcher, a BlasLauncher, or a test's model, which may have no more than multiprocessors().
template <class Launch>
DeviceTraits traits_of(const Launch& launch) {
  if constexpr (requires { launch.traits(); }) return launch.traits();
  DeviceTraits traits{.multiprocessors = launch.multiprocessors()};
  if constexpr (requires { launch.capability_major(); }) traits.capability_major = launch.capability_major();
  if constexpr (requires { launch.has_wgmma(); }) traits.has_wgmma = launch.has_wgmma();
  if constexpr (requires { launch.slice(); }) traits.has_blas = true;
  return traits;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
