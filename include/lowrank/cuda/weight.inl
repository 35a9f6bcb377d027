#pragma once

#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>

#include <lowrank/core/parallel.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

LOWRANK_INLINE ChunkedView ChunkedMatrix::view() const {
  ChunkedView v = facts;
  v.codes = codes.data();
  v.scales = scales.data();
  v.offsets = offsets.empty() ? nullptr : offsets.data();
  v.half_scales = half_scales.data();
  v.half_offsets = half_offsets.empty() ? nullptr : half_offsets.data();
  v.scale_codes = scale_codes.data();
  v.scale_map = scale_map.data();
  return v;
}

LOWRANK_INLINE std::size_t ChunkedMatrix::bytes() const {
  return codes.size() * sizeof(Word4) + 4 * (scales.size() + offsets.size() + scale_map.size()) +
         2 * (half_scales.size() + half_offsets.size()) + scale_codes.size();
}

namespace detail {

LOWRANK_INLINE ChunkedMatrix chunked_frame(Index rows, Index cols, int bits) {
  constexpr Index largest = Index{1} << 30;
  check<ShapeError>(rows >= 0 && cols >= 0 && rows <= largest && cols <= largest && rows * ceil_div(cols, chunk_size) <= largest,
                    "to_chunks", "a matrix [", rows, ", ", cols,
                    "] is too large for the device; it holds at most 2^30 rows, columns, and 32 numbers");
  ChunkedMatrix matrix;
  matrix.facts.rows = static_cast<int>(rows);
  matrix.facts.cols = static_cast<int>(cols);
  matrix.facts.chunks = static_cast<int>(ceil_div(cols, chunk_size));
  matrix.facts.bits = bits;
  matrix.codes.assign(static_cast<std::size_t>(rows * matrix.facts.chunks * matrix.facts.words()), Word4{});
  return matrix;
}

/// Nibbles of eight bytes, the low ones, next to each other.
constexpr std::uint32_t joined_nibbles(std::uint64_t bytes) {
  bytes &= 0x0f0f0f0f0f0f0f0full;
  bytes = (bytes | bytes >> 4) & 0x00ff00ff00ff00ffull;
  bytes = (bytes | bytes >> 8) & 0x0000ffff0000ffffull;
  return static_cast<std::uint32_t>(bytes | bytes >> 16);
}

/// The codes of the 32 elements from a flattened one on.
LOWRANK_INLINE void fill_chunk(const BlockSource& w, Index first, Word4* to) {
  const std::byte* const from = w.order == CodeOrder::nibble_pairs ? w.data + first / 2 : w.block_of(first) + w.codes_at;
  if (w.order == CodeOrder::bytes && w.block == chunk_size) {
    std::memcpy(to, from, chunk_size);
  } else if (w.order == CodeOrder::nibble_pairs) {
    std::memcpy(to->word, from, sizeof(Word4));
    for (std::uint32_t& word : to->word) word = (word & 0x0f0f0f0fu) << 4 | (word >> 4 & 0x0f0f0f0fu);
  } else if (w.order == CodeOrder::nibble_halves && w.block == chunk_size && w.run == chunk_size / 2) {
    std::uint64_t bytes[2];
    std::memcpy(bytes, from, sizeof bytes);
    for (int i = 0; i < 2; ++i) to->word[i] = joined_nibbles(bytes[i]), to->word[2 + i] = joined_nibbles(bytes[i] >> 4);
  } else {
    for (Index j = 0; j < chunk_size; ++j) {
      if (w.order == CodeOrder::bytes) {
        const auto code = static_cast<std::uint32_t>(w.block_of(first + j)[w.codes_at + (first + j) % w.block]);
        to[j / 16].word[j % 16 / 4] |= code << (8 * (j % 4));
      } else {
        to->word[j / 8] |= static_cast<std::uint32_t>(w.nibble(first + j)) << (4 * (j % 8));
      }
    }
  }
}

LOWRANK_INLINE void fill_codes(const BlockSource& w, ChunkedMatrix& matrix) {
  const Index chunks = matrix.facts.chunks, words = matrix.facts.words();
  parallel_ranges(w.rows(), 64, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index chunk = 0; chunk < chunks; ++chunk)
        fill_chunk(w, row * w.pitch + chunk * chunk_size, matrix.codes.data() + (row * chunks + chunk) * words);
  });
}

LOWRANK_INLINE void fill_scales(const BlockSource& w, ChunkedMatrix& matrix) {
  const Index groups = ceil_div(w.rows() * w.pitch, w.group);
  const auto count = static_cast<std::size_t>(groups);
  matrix.facts.group_shift = std::countr_zero(static_cast<std::size_t>(w.group / chunk_size));
  if (w.scale_codes != nullptr) {
    matrix.facts.scaling = Scaling::doubled;
    matrix.facts.scale_offset = w.scale_offset;
    matrix.scale_codes.assign(w.scale_codes, w.scale_codes + groups);
    matrix.scale_map.assign(w.scale_map, w.scale_map + 256);
    for (Index i = 0; i < ceil_div(groups, 256); ++i) matrix.scales.push_back(ArrayScales::float_at(w.scales, i));
    return;
  }
  matrix.scales.resize(count);
  matrix.offsets.resize(count);
  for (Index i = 0; i < groups; ++i)
    w.read_scales(w, i, 1, &matrix.scales[static_cast<std::size_t>(i)], &matrix.offsets[static_cast<std::size_t>(i)]);
  bool is_offset = false, is_half = true;
  for (std::size_t i = 0; i < count; ++i) {
    is_offset = is_offset || matrix.offsets[i] != 0;
    is_half = is_half && static_cast<float>(Half(matrix.scales[i])) == matrix.scales[i] &&
              static_cast<float>(Half(matrix.offsets[i])) == matrix.offsets[i];
  }
  matrix.facts.scaling = is_half ? Scaling::halves : Scaling::floats;
  if (!is_offset) matrix.offsets.clear();
  if (!is_half) return;
  for (const float scale : matrix.scales) matrix.half_scales.push_back(Half(scale).bits);
  for (const float offset : matrix.offsets) matrix.half_offsets.push_back(Half(offset).bits);
  matrix.scales.clear();
  matrix.offsets.clear();
}

}  // namespace detail

LOWRANK_INLINE ChunkedMatrix to_bfloat16_chunks(const WeightView& weight) {
  ChunkedMatrix matrix = detail::chunked_frame(weight.rows(), weight.cols(), 16);
  const Index cols = weight.cols();
  parallel_ranges(weight.rows(), 16, [&](Index begin, Index end) {
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (Index i = begin; i < end; ++i) {
      weight.decode(i, Index{1}, Index{0}, cols, row.data(), cols);
      std::uint32_t* const to = matrix.codes[static_cast<std::size_t>(i * matrix.facts.chunks * 4)].word;
      for (Index k = 0; k < cols; ++k)
        to[k / 2] |= static_cast<std::uint32_t>(BFloat16(row[static_cast<std::size_t>(k)]).bits) << (k % 2 * 16);
    }
  });
  return matrix;
}

LOWRANK_INLINE ChunkedMatrix to_chunks(const WeightView& weight) {
  if (weight.kind() != WeightView::Kind::blocks) return to_bfloat16_chunks(weight);
  const BlockSource& w = weight.blocks();
  const bool whole = w.pitch % chunk_size == 0 && w.group % chunk_size == 0 && std::has_single_bit(static_cast<std::size_t>(w.group));
  if (!whole) return to_bfloat16_chunks(weight);
  ChunkedMatrix matrix = detail::chunked_frame(w.rows(), w.cols(), w.order == CodeOrder::bytes ? 8 : 4);
  for (int i = 0; i < 16; ++i) matrix.facts.table[i] = w.table[static_cast<std::size_t>(i)];
  detail::fill_codes(w, matrix);
  detail::fill_scales(w, matrix);
  return matrix;
}

LOWRANK_INLINE DeviceWeight::DeviceWeight(Machine& machine, const ChunkedMatrix& matrix) : view_(matrix.facts) {
  const auto put = [&](const auto& from, auto& to) {
    if (from.empty()) return;
    const std::size_t bytes = from.size() * sizeof(from[0]);
    pieces_.push_back(machine.reserve_exactly(bytes));
    machine.upload(from.data(), pieces_.back().get(), bytes);
    to = reinterpret_cast<std::decay_t<decltype(to)>>(pieces_.back().get());
  };
  put(matrix.codes, view_.codes);
  put(matrix.scales, view_.scales);
  put(matrix.offsets, view_.offsets);
  put(matrix.scale_map, view_.scale_map);
  put(matrix.half_scales, view_.half_scales);
  put(matrix.half_offsets, view_.half_offsets);
  put(matrix.scale_codes, view_.scale_codes);
}

LOWRANK_INLINE const ChunkedView& on_device(const AnyLinear& layer) {
  const auto make = [&] {
    return layer.visit([](const auto& held) { return std::make_unique<DeviceWeight>(Machine::current(), to_chunks(held.source())); });
  };
  return layer.device().get<DeviceWeight>(make).view();
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
