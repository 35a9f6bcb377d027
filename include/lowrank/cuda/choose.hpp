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
  wgmma_128,  ///< ProductWgmma, 128 rows × so many tokens
  slices,     ///< W decoded slice by slice into the L2 cache, each multiplied by cuBLAS
};

/// What the choice depends on.
struct DeviceTraits {
  int multiprocessors = 1;
  int capability_major = 8;  ///< of the compute capability: 8 (Ampere, Ada), 9 (Hopper), 10 and 12 (Blackwell)
  bool has_wgmma = false;    ///< capability 9.0 and code for sm_90a
  bool has_blas = false;     ///< the launcher brings cuBLAS along (cuda/cublas.hpp)
};

/// Tokens from which on the slices win. Measured on an H200 (docs/cuda.md has the table): decoding W [14336, 4096] in NF4 costs 0.05 ms
/// whatever the tokens; cuBLAS multiplies the slices at 650 to 750 TFLOP/s, the fused kernels reach 270. On Blackwell wgmma does not exist
/// and mma.sync runs at a fraction of what cuBLAS reaches. The numbers for 8 and 10 are estimates from the same costs.
constexpr Index slices_from(int capability_major) { return capability_major == 8 ? 512 : 128; }

/// The path for a product of `rows` outputs a token, turned or not. Few tokens go through ProductFew; few rows (A X of a low-rank layer)
/// through the smallest tile where cuBLAS is not there.
constexpr ProductPath choose_product(Index rows, Index tokens, bool turned, const DeviceTraits& device) {
  if (!turned && tokens <= 8) return ProductPath::few;
  if (device.has_blas && tokens >= slices_from(device.capability_major)) return ProductPath::slices;
  if (tokens <= 16 || rows <= 64) return ProductPath::small;
  if (!device.has_wgmma) return tokens <= 512 ? ProductPath::medium : ProductPath::large;
  return tokens <= 64 ? ProductPath::wgmma_64 : ProductPath::wgmma_128;
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
