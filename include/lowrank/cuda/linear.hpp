#pragma once

/// Products as sequences of launches. What launches is a parameter with `operator()(kernel)` and `multiprocessors()`: a
/// Launcher on a device, the model of a block in the tests.

#include <lowrank/cuda/choose.hpp>
#include <lowrank/cuda/outer.hpp>
#include <lowrank/cuda/product_few.hpp>
#include <lowrank/cuda/product_many.hpp>
#include <lowrank/cuda/product_wgmma.hpp>
#include <lowrank/cuda/scratch.hpp>
#include <lowrank/cuda/slices.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Pieces of the depth that give every multiprocessor two blocks, of at least four tiles each, within the scratch.
inline int splits_of(Index blocks, Index depth_tiles, Index outputs, Index multiprocessors, const Scratch& scratch) {
  const Index wanted = ceil_div(2 * multiprocessors, blocks > 0 ? blocks : 1), room = outputs > 0 ? scratch.size / outputs : 0;
  Index splits = depth_tiles / 4 < wanted ? depth_tiles / 4 : wanted;
  if (splits > room) splits = room;
  return splits < 2 ? 1 : static_cast<int>(splits);
}

namespace detail {

/// Launches a kernel of tensor cores, its depth in pieces where that fills the device.
template <class Kernel, class Launch>
void launch_tiles(Launch& launch, const Product& p, const Scratch& scratch) {
  Kernel kernel{p};
  const LaunchShape whole = kernel.shape();
  const Index tiles = ceil_div(p.base.codes ? p.x.depth : 0, Kernel::tile_depth) + ceil_div(p.adapter.depth, Kernel::tile_depth);
  kernel.product.splits =
      splits_of(static_cast<Index>(whole.x) * whole.y, tiles, static_cast<Index>(p.rows) * p.tokens, launch.multiprocessors(), scratch);
  kernel.product.partials = scratch.data;
  launch(kernel);
  if (kernel.product.splits > 1) launch(SumPartials{kernel.product});
}

template <int Bits, class Launch>
void launch_few(Launch& launch, const Product& p) {
  const int blocks = 2 * static_cast<int>(launch.multiprocessors());
  if (p.tokens <= 2) return launch(ProductFew<Bits, 2>{p, blocks});
  if (p.tokens <= 4) return launch(ProductFew<Bits, 4>{p, blocks});
  launch(ProductFew<Bits, 8>{p, blocks});
}

template <bool Turned, int Bits, class Launch>
void launch_product(Launch& launch, const Product& p, ProductPath path, const Scratch& scratch) {
  switch (path) {
    case ProductPath::few:
      if constexpr (!Turned) launch_few<Bits>(launch, p);
      return;
    case ProductPath::small:
      return launch_tiles<ProductMany<Bits, Turned, SmallTile>>(launch, p, scratch);
    case ProductPath::medium:
      return launch_tiles<ProductMany<Bits, Turned, MediumTile>>(launch, p, scratch);
    case ProductPath::large:
      return launch_tiles<ProductMany<Bits, Turned, LargeTile>>(launch, p, scratch);
    case ProductPath::wgmma_64:
      return launch_tiles<ProductWgmma<Bits, Turned, WgmmaTile<64>>>(launch, p, scratch);
    case ProductPath::wgmma_128:
      return launch_tiles<ProductWgmma<Bits, Turned, WgmmaTile<128>>>(launch, p, scratch);
    case ProductPath::slices:
      if constexpr (requires { launch.slice(); })
        multiply_slices<Turned, Bits>(
            launch, [&](const DenseProduct& dense) { launch.multiply(dense); }, p, launch.slice());
  }
}

}  // namespace detail

/// The product by a given path, for measuring; multiply below chooses. Throws ValueError for a path that the product or the device has not:
/// `few` takes up to 8 tokens and is not turned, wgmma and slices need a launcher that has them, slices a base and no token tiles.
template <bool Turned, class Launch>
void multiply_by(Launch& launch, ProductPath path, const Product& p, const Scratch& scratch) {
  const DeviceTraits device = traits_of(launch);
  const bool is_wgmma = path == ProductPath::wgmma_64 || path == ProductPath::wgmma_128;
  check<ValueError>(path != ProductPath::few || (!Turned && p.tokens <= 8 && !p.tiles), "multiply", p.tokens,
                    Turned ? " tokens turned" : " tokens", " by the kernel for at most 8 that are not turned and not tiled");
  check<ValueError>((!is_wgmma || device.has_wgmma) && (path != ProductPath::slices || (device.has_blas && p.base.codes && !p.tiles)),
                    "multiply", "a path that this device, launcher or product has not; let multiply choose");
  if (p.rows == 0 || p.tokens == 0) return;
  if (p.base.bits == 4) return detail::launch_product<Turned, 4>(launch, p, path, scratch);
  if (p.base.bits == 8) return detail::launch_product<Turned, 8>(launch, p, path, scratch);
  detail::launch_product<Turned, 16>(launch, p, path, scratch);
}

/// Y = W X + adapter · H, or turned Y = Wᵀ X + adapterᵀ · H, by the path that choose_product names. Token tiles are made for a width, so
/// they keep to the kernels of that width: 16 up to 32 tokens, 64 up to 512, then 128.
template <bool Turned, class Launch>
void multiply(Launch& launch, const Product& p, const Scratch& scratch) {
  if (p.tiles) {
    const auto path = p.tokens <= 32 ? ProductPath::small : p.tokens <= 512 ? ProductPath::medium : ProductPath::large;
    return multiply_by<Turned>(launch, path, p, scratch);
  }
  DeviceTraits device = traits_of(launch);
  if (!p.base.codes) device.has_blas = false;
  multiply_by<Turned>(launch, choose_product(p.rows, p.tokens, Turned, device), p, scratch);
}

/// C += scale · L Rᵀ over the tokens.
template <class Launch>
void add_outer(Launch& launch, OuterProduct outer, const Scratch& scratch) {
  if (outer.tokens == 0 || outer.rows() == 0 || outer.cols() == 0) return;
  if constexpr (requires { launch.slice(); }) {
    const DeviceTraits device = traits_of(launch);
    if (device.has_blas && outer.tokens >= slices_from(device.capability_major))
      return launch.multiply(DenseOuter{outer.left, outer.right, outer.tokens, outer.scale, outer.c});
  }
  const LaunchShape whole = outer.shape();
  outer.accumulate = true;
  outer.splits = splits_of(static_cast<Index>(whole.x) * whole.y, ceil_div(outer.tokens, OuterProduct::depth),
                           static_cast<Index>(outer.rows()) * outer.cols(), launch.multiprocessors(), scratch);
  outer.partials = scratch.data;
  launch(outer);
  if (outer.splits > 1) launch(SumOuter{outer});
}

/// Rows of bfloat16 that ToBfloat16 fills: an Operand, an AdapterView, or the base of a product.
struct BrainRows {
  bfloat16* data = nullptr;  ///< rows of whole chunks
  int cols = 0;
  int room = 0;  ///< numbers behind a row, for columns of other operands

  constexpr Index stride() const { return round_up(cols, chunk_size) + room; }
  constexpr Operand operand() const { return {data, stride(), cols}; }
  PackedView view(int rows) const {
    PackedView v;
    v.codes = reinterpret_cast<const Word4*>(data);
    v.rows = rows;
    v.cols = cols;
    v.chunks = static_cast<int>(stride() / chunk_size);
    v.bits = 16;
    return v;
  }
  template <class Launch>
  void fill(Launch& launch, const float* x, int rows, float factor = 1) const {
    if (rows > 0 && cols > 0) launch(ToBfloat16{x, cols, rows, cols, factor, data, stride()});
  }
};

namespace detail {

inline Product product_of(const PackedView& base, const Operand& x, int rows, int tokens, float* y) {
  Product p;
  p.base = base;
  p.x = x;
  p.rows = rows;
  p.tokens = tokens;
  p.y = y;
  p.ldy = rows;
  return p;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::cuda
