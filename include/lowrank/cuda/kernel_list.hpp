#pragma once

/// Every kernel, as one type: what crosses from a host compiler to nvcc. A kernel is plain pointers and sizes (cuda/simt.hpp), so host code
/// fills it in, and one unit compiled by nvcc launches it.

#include <variant>

#include <lowrank/cuda/attention_backward.hpp>
#include <lowrank/cuda/attention_decode.hpp>
#include <lowrank/cuda/elementwise.hpp>
#include <lowrank/cuda/linear.hpp>
#include <lowrank/cuda/loss.hpp>
#include <lowrank/cuda/norm.hpp>
#include <lowrank/cuda/optim.hpp>

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
                                SwigluBackward, AddScaled, Scale, AddToColumns, SumColumns, Rope, EmbeddingForward, AttentionDelta,
                                CrossEntropySlice, AddToTotal, StoreShare, SquaredSums, ClipFactor, AdamWUpdate>;

}  // namespace detail

using AnyKernel =
    detail::Joined<detail::ProductKernels<4>, detail::ProductKernels<8>, detail::ProductKernels<16>, detail::AttentionKernels<32>,
                   detail::AttentionKernels<64>, detail::AttentionKernels<128>, detail::AttentionOnly<256>, detail::OtherKernels>::type;

}  // namespace lowrank::inline LOWRANK_ABI::cuda
