#pragma once

/// One description for every block-quantized format: element = table[code] * scale + offset, a scale and an offset a group.
///
/// NF4, FP4, Q4_0, Q4_1, Q4_K, IQ4_NL and MXFP4 differ in the table, in the order of the nibbles and in how a scale is stored; Q8_0 has
/// signed bytes in place of the table. A kernel that decodes this struct decodes them all. It points at memory that others own.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include <lowrank/core/types.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {

/// A product as it is: a compiler that may contract shall not fuse it with the sum that follows, so that every build rounds alike.
inline float rounded(float product) {
#if defined(__GNUC__) && defined(__SSE__)
  __asm__("" : "+x"(product));
  return product;
#elif defined(__GNUC__) && defined(__aarch64__)
  __asm__("" : "+w"(product));
  return product;
#else
  const volatile float kept = product;
  return kept;
#endif
}

/// How codes lie in memory.
enum class CodeOrder : std::uint8_t {
  nibble_pairs,   ///< one run over the flattened matrix; of two neighbours the first is the high nibble (bitsandbytes)
  nibble_halves,  ///< in blocks; byte j of a run of `run` bytes holds element j (low nibble) and element j + run (high nibble) (ggml)
  bytes,          ///< in blocks; a signed byte an element, which is its own table entry (Q8_0)
};

struct BlockSource {
  /// Writes scale[i] and offset[i] of the groups first + i, i < count; group g covers the flattened elements [g * group, (g + 1) * group).
  using ReadScales = void (*)(const BlockSource& source, Index first, Index count, float* scale, float* offset);

  const std::byte* data = nullptr;  ///< codes (nibble_pairs), or blocks that hold codes and scales
  Index row_count = 0, col_count = 0;
  Index pitch = 0;  ///< elements from one row to the next: col_count, or more where rows end inside a block
  CodeOrder order = CodeOrder::nibble_pairs;
  Index group = 64;  ///< elements that share a scale; for blocks a divisor of `block`

  // Blocks: `block` elements in `block_bytes` bytes, codes at byte `codes_at`. Rows hold whole blocks.
  Index block = 32, block_bytes = 18, codes_at = 2;
  Index run = 16;  ///< nibble_halves: bytes of a run, which hold 2 * run elements

  std::array<float, 16> table{};
  ReadScales read_scales = nullptr;
  const std::byte* scales = nullptr;          ///< float32, one a group, when stored as an array (a file's need not be aligned)
  const std::uint8_t* scale_codes = nullptr;  ///< double quantization: scale = scale_map[code] * block_scales[group / 256] + scale_offset
  const float* scale_map = nullptr;
  float scale_offset = 0;
  Index scale_at = 0, offset_at = -1;  ///< half-precision scale and offset inside a block; -1: no offset

  std::string_view format = "blocks";  ///< its name, for people

  Index rows() const { return row_count; }
  Index cols() const { return col_count; }
  /// Whether every row begins with a new group.
  bool rows_hold_whole_groups() const { return pitch % group == 0; }
  /// Bytes from one row to the next; rows hold whole groups.
  Index row_bytes() const { return order == CodeOrder::nibble_pairs ? pitch / 2 : pitch / block * block_bytes; }

  /// Address of the block that holds a flattened element.
  const std::byte* block_of(Index element) const { return data + element / block * block_bytes; }

  /// The 4-bit code of a flattened element.
  unsigned nibble(Index element) const {
    if (order == CodeOrder::nibble_pairs) {
      const auto byte = static_cast<unsigned>(data[element / 2]);
      return element % 2 == 0 ? byte >> 4 : byte & 15u;
    }
    const Index inside = element % block, position = inside % (2 * run);
    const auto byte = static_cast<unsigned>(block_of(element)[codes_at + inside / (2 * run) * run + position % run]);
    return position < run ? byte & 15u : byte >> 4;
  }
  /// The number that stands for a flattened element before scaling.
  float unscaled(Index element) const {
    if (order == CodeOrder::bytes) return static_cast<float>(static_cast<std::int8_t>(block_of(element)[codes_at + element % block]));
    return table[nibble(element)];
  }

  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i) {
      const Index begin = (row + i) * pitch + col;
      for (Index j = 0; j < length;) {
        const Index g = (begin + j) / group, end = (g + 1) * group - begin;
        float scale, offset;
        read_scales(*this, g, 1, &scale, &offset);
        for (; j < length && j < end; ++j) out[i * stride + j] = static_cast<Scalar>(unscaled(begin + j) * scale + offset);
      }
    }
  }
};

/// Where the code of a flattened element lies; those of its neighbours follow byte by byte, or nibble by nibble, up to the end of a run.
struct CodePlace {
  const std::byte* bytes;
  unsigned shift = 0;  ///< nibble_halves: 4 where the high nibbles are meant

  CodePlace(const BlockSource& s, Index element) {
    if (s.order == CodeOrder::nibble_pairs) {
      bytes = s.data + element / 2;
      return;
    }
    const Index inside = element % s.block, position = inside % (2 * s.run);
    bytes = s.block_of(element) + s.codes_at;
    if (s.order == CodeOrder::bytes) {
      bytes += inside;
    } else {
      bytes += inside / (2 * s.run) * s.run + position % s.run;
      shift = position < s.run ? 0 : 4;
    }
  }
};

/// Readers of scales for the common ways of storing them. No offset is -0: added to a zero, it keeps its sign.
struct ArrayScales {  ///< float32, one a group
  static float float_at(const std::byte* from, Index i) {
    float value;
    std::memcpy(&value, from + 4 * i, sizeof value);
    return value;
  }
  static void read(const BlockSource& s, Index first, Index count, float* scale, float* offset) {
    for (Index i = 0; i < count; ++i) scale[i] = float_at(s.scales, first + i), offset[i] = -0.0f;
  }
};
struct DoubleQuantizedScales {  ///< bitsandbytes: 8-bit codes of the dynamic map, a float32 scale for 256 of them, one offset
  static void read(const BlockSource& s, Index first, Index count, float* scale, float* offset) {
    for (Index i = 0; i < count; ++i) {
      scale[i] = rounded(s.scale_map[s.scale_codes[first + i]] * ArrayScales::float_at(s.scales, (first + i) / 256)) + s.scale_offset;
      offset[i] = -0.0f;
    }
  }
};
/// Whether a row may begin anywhere for a kernel that reads runs of 32: of nibble pairs that follow each other, with a scale or two.
inline bool runs_across_rows(const BlockSource& s) {
  const bool is_plain = s.read_scales == ArrayScales::read || s.read_scales == DoubleQuantizedScales::read;
  return s.order == CodeOrder::nibble_pairs && s.group >= 32 && is_plain;
}
struct HalfScales {  ///< ggml: half precision inside each block
  static float half_at(const std::byte* from) {
    Half value;
    std::memcpy(&value.bits, from, sizeof value.bits);
    return value;
  }
  static void read(const BlockSource& s, Index first, Index count, float* scale, float* offset) {
    for (Index i = 0; i < count; ++i) {
      const std::byte* at = s.block_of((first + i) * s.group);
      scale[i] = half_at(at + s.scale_at);
      offset[i] = s.offset_at < 0 ? -0.0f : half_at(at + s.offset_at);
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
