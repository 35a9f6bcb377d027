#pragma once

/// Products and attention as sequences of launches on a machine, by the kernels for their size.

#include <span>
#include <vector>

#include <lowrank/cuda/kernels/attention.hpp>
#include <lowrank/cuda/kernels/outer.hpp>
#include <lowrank/cuda/kernels/product.hpp>
#include <lowrank/cuda/machine.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// The ways to compute Y = W X + update · H.
enum class ProductPath {
  few,     ///< ProductFew: mma.sync without tiles, weights read once
  small,   ///< ProductMany on mma.sync, tiles of 64 × 16
  medium,  ///< 128 × 64
  large,   ///< 128 × 128
  wgmma_64,
  wgmma_128,  ///< ProductWgmma, 128 rows × so many tokens
  slices,     ///< W decoded slice by slice into the L2 cache, each multiplied by cuBLAS
};

/// Tokens from which on the slices win. Measured on an H200 (docs/cuda.md has the table): decoding W [14336, 4096] in NF4 costs 0.05 ms
/// whatever the tokens; cuBLAS multiplies the slices at 650 to 750 TFLOP/s, the fused kernels reach 270. On Blackwell wgmma does not exist
/// and mma.sync runs at a fraction of what cuBLAS reaches. The numbers for 8 and 10 are estimates from the same costs.
constexpr Index slices_from(int capability_major) { return capability_major == 8 ? 512 : 128; }

/// The path for a product of `rows` outputs a token, transposed or not. Few tokens go through ProductFew; few rows (A X of a low-rank
/// layer) through the smallest tile where cuBLAS is not there.
constexpr ProductPath choose_product(Index rows, Index tokens, bool transposed, const DeviceTraits& device) {
  if (!transposed && tokens <= 8) return ProductPath::few;
  if (device.has_blas && tokens >= slices_from(device.capability_major)) return ProductPath::slices;
  if (tokens <= 16 || rows <= 64) return ProductPath::small;
  if (!device.has_wgmma) return tokens <= 512 ? ProductPath::medium : ProductPath::large;
  return tokens <= 64 ? ProductPath::wgmma_64 : ProductPath::wgmma_128;
}

/// Y [rows, tokens] = or += L R with L(i, k) at left[i · left_stride + k], or transposed at left[k · left_stride + i], R(k, t) at
/// right[t · right_stride + k].
struct DenseProduct {
  bool transposed = false;
  int rows = 0, tokens = 0, depth = 0;
  const BFloat16* left = nullptr;
  Index left_stride = 0;
  const BFloat16* right = nullptr;
  Index right_stride = 0;
  float* y = nullptr;
  Index ldy = 0;
  bool accumulate = false;
};

/// C [rows, cols], row-major, += scale · L Rᵀ over the tokens: the gradient of a factor.
struct DenseOuter {
  Operand left, right;  ///< [rows, tokens], [cols, tokens]
  int tokens = 0;
  float scale = 1;
  float* c = nullptr;
};

/// Pieces of the depth that give every multiprocessor two blocks, of at least four tiles each, within the scratch.
int splits_of(Index blocks, Index depth_tiles, Index outputs, Index multiprocessors, const Scratch& scratch);

/// Y = W X + update · H, or transposed Y = Wᵀ X + updateᵀ · H, by the path that choose_product names. Token tiles are made for a width, so
/// they keep to the kernels of that width: 16 up to 32 tokens, 64 up to 512, then 128.
void multiply(Machine& machine, const Product& product, bool transposed, const Scratch& scratch);

/// The product by a given path, for measuring. Throws ValueError for a path that the product or the device has not: `few` takes up to 8
/// tokens and is not transposed, wgmma and slices need a machine that has them, slices a base and no token tiles.
void multiply_by(Machine& machine, ProductPath path, const Product& product, bool transposed, const Scratch& scratch);

/// The product by way of plain ones (DenseProduct) of machine.slice().
///
/// A slice holds some of the outputs and all of the depth: rows of W, or transposed columns, so no sum is cut. Where H lies in the rows of
/// X, the update's columns are more of the depth; elsewhere they are a product of their own, which reads and writes Y once more. A base of
/// bfloat16 without such columns is its own slice. Not for token tiles. Throws ShapeError where the buffer holds not one output.
void multiply_slices(Machine& machine, const Product& product, bool transposed);

/// Tiles of at most `width` tokens for the update of each token, −1 for none; equal ones must be neighbours for tiles to be full. Throws
/// ValueError for an update outside [−1, count).
///
/// Several updates in one batch, rows sorted by update. ProductMany takes the tiles three ways:
///
///   shrink   H = A_a X            no base, h = X, updates[a] = A_a [rank_a, in], rows = the largest rank
///   expand   Y += s_a B_a H       no base, h = H, updates[a] = s_a B_a [out, rank_a], accumulate; the base's product was made before
///   fused    Y = W X + s_a B_a H  the base in the same pass, for ranges longer than a tile
///
/// Ranks may differ. Every tile sums in its own fixed order, so a token's result does not depend on the other updates.
std::vector<TokenTile> token_tiles(std::span<const int> updates, int count, int width);

/// C += scale · L Rᵀ over the tokens.
void add_outer(Machine& machine, OuterProduct outer, const Scratch& scratch);

/// y and log_sum_exp of AttentionArrays: one query a sequence over its cache in pieces (AttentionDecode) where the scratch holds them, else
/// AttentionForwardKernel. Throws ShapeError for heads that are odd or larger than 256, or do not share their keys evenly.
void launch_attention(Machine& machine, const AttentionArrays& arrays, const Scratch& scratch = {});

/// dq, dk and dv for g, after launch_attention. Throws ShapeError for heads that are odd or larger than 128: the sums of dK and dV of 256
/// do not fit a thread's registers.
void launch_attention_backward(Machine& machine, const AttentionArrays& arrays);

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/launch.inl>
#endif
