#pragma once

/// What a target (an instruction set) supplies: functions on plain pointers. The driver knows nothing else of it.
///
/// Panels. The driver cuts the left factor into panels of `rows()` rows and the activation into panels of `columns` tokens, both stored
/// depth first: word k of lane i lies at panel[k * step + i]. A word has 32 bits: one float, or for native bf16 the two neighbours 2 k (low
/// half) and 2 k + 1 (high half) of the depth, zero past its end. Some targets have an order of their own inside a grain (amx.hpp,
/// neonbf16.hpp). A micro-kernel then reads both panels front to back:
///
///            columns                    a: left panel  [words][vectors * lanes]
///          ┌─────────┐                  b: right panel [words][columns]
///   lanes  │ c[0]    │ vectors          c[v][j] += a[k][v] * broadcast(b[k][j])   for each word k
///   each   │ c[1]    │
///          └─────────┘

#include <cstdint>

#include <lowrank/kernels/format/weight_view.hpp>
#include <lowrank/kernels/target/elementwise.hpp>
#include <lowrank/kernels/target/quantize.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

using Word = std::uint32_t;

/// Kernels for one panel format.
struct PanelKernels {
  /// Packs numbers: element (i, k), i < count, k < depth, is scale * from[i * stride + k] (rows) or scale * from[k * stride + i] (columns).
  /// Lanes from count on hold anything. Activations end in zeros up to a whole grain of depth; what fills a left panel pads it.
  using Pack = void (*)(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step);
  /// Packs scale times rows [row, row + count), columns [col, col + depth) of blocks straight from their codes, transposing bytes instead
  /// of floats. col and depth are multiples of 32, count at most `lanes`, and rows hold whole groups, unless packs_any_rows.
  using PackBlocks = void (*)(const BlockSource& from, Index row, Index count, Index col, Index depth, float scale, Word* panel,
                              Index step);
  /// c[j * ldc + i] = from[j * from_stride + i] + sum over words; only i < rows, j < columns are touched. a has `vectors` vectors a word.
  /// from may be c; null is zero.
  using Multiply = void (*)(Index words, Index vectors, Index rows, Index columns, const Word* a, const Word* b, const float* from,
                            Index from_stride, float* c, Index ldc);
  /// The same for rows of blocks, at most a panel's, that are decoded on the way, with the numbers of pack_blocks; rows hold whole groups.
  using MultiplyBlocks = void (*)(const BlockSource& source, Index row, Index rows, Index col, Index depth, float scale, Index columns,
                                  const Word* b, const float* from, Index from_stride, float* c, Index ldc);

  Index lanes;                               ///< floats in a vector
  Index vectors;                             ///< vectors in the rows of a full panel
  Index columns;                             ///< tokens in a panel
  Index unit;                                ///< depth in a word: 1 or 2
  Index grain;                               ///< depth that is multiplied at once: parts begin at multiples of it; at most 64
  Pack pack_rows, pack_columns;              ///< left factor, `lanes` lanes
  Pack pack_token_rows, pack_token_columns;  ///< activation, `columns` lanes
  PackBlocks pack_blocks = nullptr;          ///< may be null
  /// The same of the transposed matrix: rows [row, row + depth) along the depth, columns [col, col + count) along the lanes; col and the
  /// group are multiples of the lanes.
  PackBlocks pack_blocks_transposed = nullptr;  ///< may be null
  bool packs_any_rows = false;                  ///< whether both take blocks that runs_across_rows(), the second with all lanes
  Multiply multiply;
  MultiplyBlocks multiply_blocks = nullptr;         ///< for one panel of tokens; null where there is none, and where `enter` is not
  void (*enter)() = nullptr, (*leave)() = nullptr;  ///< called by a thread around its calls of multiply, between which no other code runs
  /// Whether sums between blocks of depth wait in memory of their own, not in Y, and tokens are prefetched: multiply is that fast.
  bool outruns_caches = false;

  Index rows() const { return lanes * vectors; }
};

/// Few tokens times rows of one weight: y[t * ldy + i] (+)= factor * sum over depth of element (row + i, k) times x[t], i < rows, t <
/// tokens.
///
/// Tokens are padded to 1, 4 or 8 with zeros. Activations come in chunks of 32, zero past the depth, in the order in which the weight's
/// codes unpack: for nibble_pairs the 16 even elements, then the 16 odd ones; else as they are. Chunks of nibble_pairs begin at multiples
/// of 32 of the flattened matrix, so that each has one scale: what they hold of the neighbouring rows meets zeros. Rows then begin at one
/// of `phases` places in a chunk, a power of two, each with activations of its own: row + i has those of phase[i % phases], a product that
/// differs from this one in nothing else. With one phase there is no such list.
struct FewTokens {
  const WeightView* weight;
  float factor;
  Index row, rows, tokens;
  Index chunks;                  ///< of 32 of the depth
  const float* x;                ///< [padded tokens][chunks * 32]
  const float* x_odd;            ///< one token and nibble_pairs, but for 8 bits: x has the first 16 of each chunk, this the others
  const float* x_sum;            ///< [chunks]: sums of the first token's chunks
  const std::uint16_t* brain;    ///< the same as bfloat16
  const std::int8_t* q;          ///< the same in 8 bits: x = q * q_scale[chunk]
  const float *q_scale, *q_sum;  ///< [padded tokens][chunks]; q_sum is q_scale times the sum of the chunk's q
  float* y;
  Index ldy;
  bool accumulate;
  Index phases = 1;
  const FewTokens* phase = nullptr;
};

struct Target {
  using Multiply = void (*)(const FewTokens& product);
  /// out[i * stride + j] = element (row + i, col + j), i < count, j < length.
  using DecodeBlocks = void (*)(const BlockSource& from, Index row, Index count, Index col, Index length, float* out, Index stride);
  using Widen = void (*)(const void* from, Index length, float* out);

  const char* name;
  bool (*is_available)();  ///< whether the processor has the instructions and the operating system saves their registers
  PanelKernels fp32, bf16;
  DecodeBlocks decode_blocks;
  Widen widen_bfloat16, widen_half;
  Multiply few_tokens = nullptr, few_tokens_bf16 = nullptr, few_tokens_int8 = nullptr;  ///< null: the packed driver does it
  void (*to_bfloat16)(const float* from, Index count, std::uint16_t* out) = nullptr;    ///< count is a multiple of 32
  /// Rounds each chunk of 32 to q · scale, |q| at most 127; sum is scale · Σ q.
  void (*to_int8)(const float* from, Index chunks, std::int8_t* q, float* scale, float* sum) = nullptr;
  QuantizeKernels quantize;
  Elementwise elementwise;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
