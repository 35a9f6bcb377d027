#pragma once

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

LOWRANK_INLINE int splits_of(Index blocks, Index depth_tiles, Index outputs, Index multiprocessors, const Scratch& scratch) {
  const Index wanted = ceil_div(2 * multiprocessors, blocks > 0 ? blocks : 1), room = outputs > 0 ? scratch.size / outputs : 0;
  Index splits = depth_tiles / 4 < wanted ? depth_tiles / 4 : wanted;
  if (splits > room) splits = room;
  return splits < 2 ? 1 : static_cast<int>(splits);
}

namespace detail {

/// Launches a kernel of tensor cores, its depth in pieces where that fills the device.
template <class Kernel>
void launch_tiles(Machine& machine, const Product& p, const Scratch& scratch) {
  Kernel kernel{p};
  const LaunchShape whole = kernel.shape();
  const Index tiles = ceil_div(p.base.codes ? p.x.depth : 0, Kernel::tile_depth) + ceil_div(p.update.depth, Kernel::tile_depth);
  kernel.product.splits = splits_of(static_cast<Index>(whole.x) * whole.y, tiles, static_cast<Index>(p.rows) * p.tokens,
                                    machine.traits().multiprocessors, scratch);
  kernel.product.partials = scratch.data;
  machine.launch(kernel);
  if (kernel.product.splits > 1) machine.launch(SumPartials{kernel.product});
}

template <int Bits>
void launch_few(Machine& machine, const Product& p) {
  const int blocks = 2 * machine.traits().multiprocessors;
  if (p.tokens <= 2) return machine.launch(ProductFew<Bits, 2>{p, blocks});
  if (p.tokens <= 4) return machine.launch(ProductFew<Bits, 4>{p, blocks});
  machine.launch(ProductFew<Bits, 8>{p, blocks});
}

template <int Bits, bool Transposed>
void launch_product(Machine& machine, const Product& p, ProductPath path, const Scratch& scratch) {
  switch (path) {
    case ProductPath::few:
      return launch_few<Bits>(machine, p);
    case ProductPath::small:
      return launch_tiles<ProductMany<Bits, Transposed, SmallTile>>(machine, p, scratch);
    case ProductPath::medium:
      return launch_tiles<ProductMany<Bits, Transposed, MediumTile>>(machine, p, scratch);
    case ProductPath::large:
      return launch_tiles<ProductMany<Bits, Transposed, LargeTile>>(machine, p, scratch);
    case ProductPath::wgmma_64:
      return launch_tiles<ProductWgmma<Bits, Transposed, WgmmaTile<64>>>(machine, p, scratch);
    case ProductPath::wgmma_128:
      return launch_tiles<ProductWgmma<Bits, Transposed, WgmmaTile<128>>>(machine, p, scratch);
    case ProductPath::slices:
      return multiply_slices(machine, p, Transposed);
  }
}
template <int Bits>
void launch_product(Machine& machine, const Product& p, bool transposed, ProductPath path, const Scratch& scratch) {
  transposed ? launch_product<Bits, true>(machine, p, path, scratch) : launch_product<Bits, false>(machine, p, path, scratch);
}

}  // namespace detail

LOWRANK_INLINE void multiply(Machine& machine, const Product& p, bool transposed, const Scratch& scratch) {
  if (p.tiles) {
    const auto path = p.tokens <= 32 ? ProductPath::small : p.tokens <= 512 ? ProductPath::medium : ProductPath::large;
    return multiply_by(machine, path, p, transposed, scratch);
  }
  DeviceTraits device = machine.traits();
  if (!p.base.codes) device.has_blas = false;
  multiply_by(machine, choose_product(p.rows, p.tokens, transposed, device), p, transposed, scratch);
}

LOWRANK_INLINE void multiply_by(Machine& machine, ProductPath path, const Product& p, bool transposed, const Scratch& scratch) {
  const DeviceTraits device = machine.traits();
  const bool is_wgmma = path == ProductPath::wgmma_64 || path == ProductPath::wgmma_128;
  check<ValueError>(path != ProductPath::few || (!transposed && p.tokens <= 8 && !p.tiles), "multiply", p.tokens,
                    transposed ? " tokens transposed" : " tokens", " by the kernel for at most 8 that are not transposed and not tiled");
  check<ValueError>((!is_wgmma || device.has_wgmma) && (path != ProductPath::slices || (device.has_blas && p.base.codes && !p.tiles)),
                    "multiply", "a path that this device or product has not; let multiply choose");
  if (p.rows == 0 || p.tokens == 0) return;
  if (p.base.bits == 4) return detail::launch_product<4>(machine, p, transposed, path, scratch);
  if (p.base.bits == 8) return detail::launch_product<8>(machine, p, transposed, path, scratch);
  detail::launch_product<16>(machine, p, transposed, path, scratch);
}

namespace detail {

/// Where h begins in the rows of x, counted in numbers, if it lies there (Operand::room), else 0.
LOWRANK_INLINE int update_place(const Product& p) {
  if (p.update.depth == 0 || p.h.stride != p.x.stride || p.h.data <= p.x.data) return 0;
  const Index at = p.h.data - p.x.data, end = at + round_up(p.update.depth, chunk_size);
  return at % chunk_size == 0 && at >= round_up(p.x.depth, chunk_size) && end <= p.x.stride ? static_cast<int>(at) : 0;
}

/// Outputs a slice: what the buffer holds, whole chunks when transposed. Throws ShapeError where it holds not even one.
LOWRANK_INLINE int slice_rows(const Product& p, bool transposed, Index width, const SliceBuffer& buffer) {
  const Index unit = transposed ? chunk_size : 1, count = buffer.size / (width > 0 ? width : 1) / unit * unit;
  check<ShapeError>(count > 0, "multiply: slices", "a buffer of ", buffer.size, " numbers holds no slice of a matrix [", p.base.rows, ", ",
                    p.base.cols, "]; it takes at least ", width * unit);
  if (count >= p.rows) return p.rows;
  const Index slices = ceil_div(p.rows, count);  // of nearly one size, in multiples of 128 where there is room
  const Index even = round_up(ceil_div(p.rows, slices), 128);
  return static_cast<int>(even < count ? even : count);
}

template <int Bits>
void decode_slice(Machine& machine, const Product& p, bool transposed, int first, int count, const DenseProduct& dense, int place) {
  BFloat16* const to = machine.slice().data;
  if (transposed)
    machine.launch(DecodeSlice<Bits>{p.base, 0, dense.depth, first / chunk_size, to, dense.left_stride, p.update, place, true});
  else
    machine.launch(DecodeSlice<Bits>{p.base, first, count, 0, to, dense.left_stride, p.update, place, false});
}

}  // namespace detail

LOWRANK_INLINE void multiply_slices(Machine& machine, const Product& p, bool transposed) {
  const SliceBuffer buffer = machine.slice();
  const int place = detail::update_place(p);
  const bool is_own_slice = p.base.bits == 16 && place == 0;
  const Index whole = static_cast<Index>(p.base.chunks) * chunk_size;
  const int depth = place > 0 ? place + static_cast<int>(round_up(p.update.depth, 16)) : p.x.depth;
  const Index width = transposed ? depth : place > 0 ? round_up(depth, chunk_size) : whole;
  const int step = is_own_slice ? p.rows : detail::slice_rows(p, transposed, width, buffer);
  const auto decode = p.base.bits == 4 ? detail::decode_slice<4> : p.base.bits == 8 ? detail::decode_slice<8> : detail::decode_slice<16>;
  for (int first = 0; first < p.rows; first += step) {
    const int count = p.rows - first < step ? p.rows - first : step;
    const Index stride = is_own_slice ? whole : transposed ? round_up(count, chunk_size) : width;
    DenseProduct dense{transposed, count, p.tokens, depth, buffer.data, stride, p.x.data, p.x.stride, p.y + first, p.ldy, p.accumulate};
    if (is_own_slice)
      dense.left = reinterpret_cast<const BFloat16*>(p.base.codes) + (transposed ? first : first * whole);
    else
      decode(machine, p, transposed, first, count, dense, place);
    machine.multiply(dense);
    if (p.update.depth == 0 || place > 0) continue;
    dense.left = p.update.data + (transposed ? first : first * p.update.stride);
    dense.left_stride = p.update.stride;
    dense.right = p.h.data, dense.right_stride = p.h.stride, dense.depth = p.update.depth;
    dense.accumulate = true;
    machine.multiply(dense);
  }
  if (p.bias) machine.launch(AddBias{p.bias, p.rows, p.tokens, p.y, p.ldy});
}

LOWRANK_INLINE std::vector<TokenTile> token_tiles(std::span<const int> updates, int count, int width) {
  check<ValueError>(width > 0, "token_tiles", "the width of a tile is ", width, "; it must be positive");
  std::vector<TokenTile> tiles;
  for (std::size_t t = 0; t < updates.size(); ++t) {
    check<ValueError>(updates[t] >= -1 && updates[t] < count, "token_tiles", "token ", t, " names update ", updates[t], " but there are ",
                      count, "; use -1 for none");
    if (tiles.empty() || tiles.back().update != updates[t] || tiles.back().count == width)
      tiles.push_back({static_cast<int>(t), 0, updates[t]});
    ++tiles.back().count;
  }
  return tiles;
}

LOWRANK_INLINE void add_outer(Machine& machine, OuterProduct outer, const Scratch& scratch) {
  if (outer.tokens == 0 || outer.rows() == 0 || outer.cols() == 0) return;
  const DeviceTraits device = machine.traits();
  if (device.has_blas && outer.tokens >= slices_from(device.capability_major))
    return machine.multiply(DenseOuter{outer.left, outer.right, outer.tokens, outer.scale, outer.c});
  const LaunchShape whole = outer.shape();
  outer.accumulate = true;
  outer.splits = splits_of(static_cast<Index>(whole.x) * whole.y, ceil_div(outer.tokens, OuterProduct::depth),
                           static_cast<Index>(outer.rows()) * outer.cols(), device.multiprocessors, scratch);
  outer.partials = scratch.data;
  machine.launch(outer);
  if (outer.splits > 1) machine.launch(SumOuter{outer});
}

namespace detail {

LOWRANK_INLINE void expect_heads(const AttentionArrays& a, const char* operation, int most) {
  check<ShapeError>(a.head_size > 0 && a.head_size <= most && a.head_size % 2 == 0, operation, "heads of ", a.head_size,
                    "; the kernels take even sizes up to ", most, ": pad the heads, or use the CPU");
  check<ShapeError>(a.kv_heads > 0 && a.heads % a.kv_heads == 0, operation, a.heads, " heads over ", a.kv_heads,
                    " key heads; each key head must serve as many");
  check<ShapeError>(a.queries <= a.keys, operation, a.queries, " queries over ", a.keys, " keys; the queries' own keys belong to them");
}

/// Pieces of the keys: two blocks a multiprocessor, of at least 256 keys, within the scratch.
template <int Size>
int decode_splits(const AttentionArrays& a, Index multiprocessors, const Scratch& scratch) {
  using Decode = AttentionDecode<Size>;
  const Index blocks = static_cast<Index>(a.kv_heads) * Decode{a}.head_blocks() * a.batch;
  const Index room = scratch.size / (static_cast<Index>(a.heads) * a.batch * Decode::warps * Decode::piece_size);
  Index splits = ceil_div(2 * multiprocessors, blocks);
  if (splits > a.keys / 256) splits = a.keys / 256;
  if (splits < 1) splits = 1;
  return static_cast<int>(splits < room ? splits : room);
}

template <int Size>
void launch_attention_of(Machine& machine, const AttentionArrays& a, const Scratch& scratch) {
  const int splits = a.queries == 1 ? decode_splits<Size>(a, machine.traits().multiprocessors, scratch) : 0;
  if (splits == 0) return machine.launch(AttentionForwardKernel<Size>{a});
  const AttentionDecode<Size> decode{a, splits, scratch.data};
  machine.launch(decode);
  machine.launch(AttentionDecodeCombine<Size>{decode});
}

template <int Size>
void launch_attention_backward_of(Machine& machine, const AttentionArrays& a) {
  machine.launch(AttentionDelta{a});
  machine.launch(AttentionBackwardKeys<Size>{a});
  machine.launch(AttentionBackwardQueries<Size>{a});
}

}  // namespace detail

LOWRANK_INLINE void launch_attention(Machine& machine, const AttentionArrays& a, const Scratch& scratch) {
  detail::expect_heads(a, "attention", 256);
  if (a.queries == 0 || a.batch == 0) return;
  if (a.head_size <= 32) return detail::launch_attention_of<32>(machine, a, scratch);
  if (a.head_size <= 64) return detail::launch_attention_of<64>(machine, a, scratch);
  if (a.head_size <= 128) return detail::launch_attention_of<128>(machine, a, scratch);
  detail::launch_attention_of<256>(machine, a, scratch);
}

LOWRANK_INLINE void launch_attention_backward(Machine& machine, const AttentionArrays& a) {
  detail::expect_heads(a, "attention backward", 128);
  if (a.queries == 0 || a.batch == 0) return;
  if (a.head_size <= 32) return detail::launch_attention_backward_of<32>(machine, a);
  if (a.head_size <= 64) return detail::launch_attention_backward_of<64>(machine, a);
  detail::launch_attention_backward_of<128>(machine, a);
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
