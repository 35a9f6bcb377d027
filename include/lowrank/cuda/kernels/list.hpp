#pragma once

/// Every kernel, as one type: what crosses from a host compiler to nvcc. A kernel is plain pointers and sizes (cuda/kernels/simt.hpp), so
/// host code fills it in, and one unit compiled by nvcc launches it.

#include <variant>

#include <lowrank/cuda/kernels/adamw.hpp>
#include <lowrank/cuda/kernels/attention_backward.hpp>
#include <lowrank/cuda/kernels/attention_decode.hpp>
#include <lowrank/cuda/kernels/cross_entropy.hpp>
#include <lowrank/cuda/kernels/elementwise.hpp>
#include <lowrank/cuda/kernels/norm.hpp>
#include <lowrank/cuda/kernels/outer.hpp>
#include <lowrank/cuda/kernels/product_few.hpp>
#include <lowrank/cuda/kernels/product_many.hpp>
#include <lowrank/cuda/kernels/product_wgmma.hpp>
#include <lowrank/cuda/kernels/slices.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

template <class... Kernels>
struct KernelList {};

template <class... Lists>
struct Joined;
template <class... Kernels>
struct Joined<KernelList<Kernels...>> {
  using type = std::variant<Kernels...>;
};
template <class... First, class... Second, class... Rest>
struct Joined<KernelList<First...>, KernelList<Second...>, Rest...> : Joined<KernelList<First..., Second...>, Rest...> {};

template <int Bits>
using ProductKernels =
    KernelList<ProductFew<Bits, 2>, ProductFew<Bits, 4>, ProductFew<Bits, 8>, ProductMany<Bits, false, SmallTile>,
               ProductMany<Bits, false, MediumTile>, ProductMany<Bits, false, LargeTile>, ProductMany<Bits, true, SmallTile>,
               ProductMany<Bits, true, MediumTile>, ProductMany<Bits, true, LargeTile>, ProductWgmma<Bits, false, WgmmaTile<64>>,
               ProductWgmma<Bits, false, WgmmaTile<128>>, ProductWgmma<Bits, true, WgmmaTile<64>>,
               ProductWgmma<Bits, true, WgmmaTile<128>>>;
template <int Size>
using AttentionOnly = KernelList<AttentionForwardKernel<Size>, AttentionDecode<Size>, AttentionDecodeCombine<Size>>;  // for inference
template <int Size>
using AttentionKernels = KernelList<AttentionForwardKernel<Size>, AttentionDecode<Size>, AttentionDecodeCombine<Size>,
                                    AttentionBackwardKeys<Size>, AttentionBackwardQueries<Size>>;
using OtherKernels = KernelList<DecodeSlice<4>, DecodeSlice<8>, DecodeSlice<16>, AddBias, ToBfloat16, FromBfloat16, SumPartials,
                                OuterProduct, SumOuter, RmsNormForward, RmsNormBackward, RmsNormWeightGradient, SwigluForward,
                                SwigluBackward, AddScaled, Scale, AddToColumns, ScaleTokens, DotTokens, SumColumns, Rope, EmbeddingForward,
                                AttentionDelta, CrossEntropySlice, AddToTotal, StoreShare, SquaredSums, ClipFactor, AdamWUpdate>;

using KernelVariant = Joined<ProductKernels<4>, ProductKernels<8>, ProductKernels<16>, AttentionKernels<32>, AttentionKernels<64>,
                             AttentionKernels<128>, AttentionOnly<256>, OtherKernels>::type;

}  // namespace detail

/// One kernel of the list, ready to be launched.
struct AnyKernel : detail::KernelVariant {
  using detail::KernelVariant::KernelVariant;

  /// Calls visitor(kernel) with the kernel that it holds.
  template <class Visitor>
  void visit(const Visitor& visitor) const {
    std::visit(visitor, static_cast<const detail::KernelVariant&>(*this));
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
