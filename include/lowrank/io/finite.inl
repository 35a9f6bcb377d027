#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include <lowrank/core/parallel.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/quant/ggml_formats.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The first of `count` blocks that is not finite, or nothing. Cost: one pass over the blocks, on all threads.
template <class AreFinite>
std::optional<Index> first_wrong_block(Index count, const AreFinite& are_finite) {
  constexpr Index grain = 1 << 15;
  std::atomic<Index> first{count};
  parallel_ranges(count, grain, [&](Index begin, Index end) {
    if (are_finite(begin, end)) return;
    while (are_finite(begin, begin + 1)) ++begin;
    Index before = first.load();
    while (begin < before && !first.compare_exchange_weak(before, begin)) {
    }
  });
  return first.load() < count ? std::optional<Index>(first.load()) : std::nullopt;
}

/// Floating-point fields of equal blocks: every `stride` bytes one at each of `offsets`.
template <class Word>
struct Fields {
  Word exponent;  // its bits in a word; all of them set mean infinity or NaN
  Index stride;
  std::span<const int> offsets;

  bool is_finite(const std::byte* block) const {
    bool finite = true;
    for (const int offset : offsets) finite &= (load_number<Word>(block + offset) & exponent) != exponent;
    return finite;
  }
  /// Without a branch for each, so that the compiler takes many neighbours at a time where fields have no gaps.
  bool are_finite(const std::byte* bytes, Index begin, Index end) const {
    Word wrong = 0;
    if (stride == sizeof(Word))
      for (Index i = begin; i < end; ++i)
        wrong |= static_cast<Word>((load_number<Word>(bytes + i * Index{sizeof(Word)}) & exponent) == exponent);
    else
      for (Index i = begin; i < end; ++i) wrong |= static_cast<Word>(!is_finite(bytes + i * stride));
    return wrong == 0;
  }

  /// The first of `count` blocks with a field that is not finite, or nothing.
  std::optional<Index> first_wrong(const std::byte* bytes, Index count) const {
    return first_wrong_block(count, [&](Index begin, Index end) { return are_finite(bytes, begin, end); });
  }
};

/// The same for IQ1_M, whose scale lies in pieces.
LOWRANK_INLINE std::optional<Index> first_wrong_iq1_m(const std::byte* bytes, Index count) {
  return first_wrong_block(count, [bytes](Index begin, Index end) {
    bool finite = true;
    for (Index i = begin; i < end; ++i) finite &= (Iq1M::scale_of(bytes + i * Iq1M::block_bytes).bits & 0x7C00u) != 0x7C00u;
    return finite;
  });
}

/// Where the half-precision scales and minima of a block lie; nothing for types without any.
LOWRANK_INLINE std::span<const int> half_fields(GgmlType type) {
  static constexpr int start[] = {0};
  if (type == GgmlType::f16) return start;
  std::span<const int> fields;
  visit_ggml_format(lowrank::ggml_traits(type).name, [&]<class Format>(Format) { fields = Format::half_fields; });
  return fields;
}

}  // namespace detail

LOWRANK_INLINE std::optional<Index> first_row_not_finite(const gguf::Tensor& tensor) {
  static constexpr int here[] = {0};
  const auto [name, block_size, block_bytes] = ggml_traits(tensor.type);
  const auto needed = gguf::byte_count(tensor.type, tensor.shape);
  check<ShapeError>(needed && static_cast<std::size_t>(*needed) == tensor.bytes.size(), "first_row_not_finite", tensor.name, " has ",
                    tensor.bytes.size(), " bytes, not those of ", shape_text(tensor.shape), ' ', name);
  if (tensor.size() == 0) return std::nullopt;
  const Index blocks = static_cast<Index>(tensor.bytes.size()) / block_bytes, blocks_a_row = tensor.cols() / block_size;
  const std::byte* bytes = tensor.bytes.data();
  std::optional<Index> block;
  if (tensor.type == GgmlType::f32)
    block = detail::Fields<std::uint32_t>{0x7F800000u, 4, here}.first_wrong(bytes, blocks);
  else if (tensor.type == GgmlType::bf16)
    block = detail::Fields<std::uint16_t>{0x7F80u, 2, here}.first_wrong(bytes, blocks);
  else if (tensor.type == GgmlType::iq1_m)
    block = detail::first_wrong_iq1_m(bytes, blocks);
  else
    block = detail::Fields<std::uint16_t>{0x7C00u, block_bytes, detail::half_fields(tensor.type)}.first_wrong(bytes, blocks);
  return block ? std::optional<Index>(*block / blocks_a_row) : std::nullopt;
}

LOWRANK_INLINE std::optional<Index> first_row_not_finite(const StoredTensor& tensor) {
  const bool dense = tensor.dtype == DType::f32 || tensor.dtype == DType::f16 || tensor.dtype == DType::bf16;
  if (!dense) return std::nullopt;
  const GgmlType type = tensor.dtype == DType::f32 ? GgmlType::f32 : tensor.dtype == DType::f16 ? GgmlType::f16 : GgmlType::bf16;
  return first_row_not_finite(gguf::Tensor{tensor.name, type, tensor.shape, tensor.bytes});
}

}  // namespace lowrank::inline LOWRANK_ABI
