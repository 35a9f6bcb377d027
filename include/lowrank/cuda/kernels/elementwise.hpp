#pragma once

/// Work without sums: SwiGLU, RoPE, sums of arrays, rows of an embedding. A thread a number, or a pair; blocks of 256.

#include <cmath>
#include <cstdint>

#include <lowrank/cuda/kernels/chunks.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

inline LaunchShape flat_shape(Index count) { return {.x = static_cast<unsigned>(ceil_div(count, 256)), .threads = 256}; }
template <class Simt>
LOWRANK_DEVICE Index flat_index(Simt& t) {
  return static_cast<Index>(t.block_x()) * 256 + t.thread();
}
/// A thread four numbers.
inline LaunchShape fours_shape(Index count) { return flat_shape(ceil_div(count, 4)); }
/// σ(x), kept at σ(−80) below −80, as in ops/activation.hpp.
LOWRANK_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-std::fmax(x, -80.0f))); }

}  // namespace detail

/// y = gate σ(gate) ∘ up, as swiglu_forward.
struct SwigluForward {
  static constexpr int most_threads = 256;
  const float *gate = nullptr, *up = nullptr;
  Index size = 0;
  float* y = nullptr;

  LaunchShape shape() const { return detail::fours_shape(size); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = 4 * detail::flat_index(t);
    const Float4 x = load_four(gate, i, size), upper = load_four(up, i, size);
    Float4 out;
    for (int n = 0; n < 4; ++n) out.number[n] = x.number[n] * detail::sigmoid(x.number[n]) * upper.number[n];
    store_four(out, y, i, size);
  }
};

/// dgate = g ∘ up ∘ σ (1 + gate (1 − σ)), dup = g ∘ gate σ.
struct SwigluBackward {
  static constexpr int most_threads = 256;
  const float *gate = nullptr, *up = nullptr, *g = nullptr;
  Index size = 0;
  float *dgate = nullptr, *dup = nullptr;

  LaunchShape shape() const { return detail::fours_shape(size); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = 4 * detail::flat_index(t);
    const Float4 gates = load_four(gate, i, size), uppers = load_four(up, i, size), gradients = load_four(g, i, size);
    Float4 of_gate, of_up;
    for (int n = 0; n < 4; ++n) {
      const float x = gates.number[n], sigma = detail::sigmoid(x), gradient = gradients.number[n];
      of_gate.number[n] = gradient * uppers.number[n] * sigma * (1.0f + x * (1.0f - sigma));
      of_up.number[n] = gradient * x * sigma;
    }
    store_four(of_gate, dgate, i, size);
    store_four(of_up, dup, i, size);
  }
};

/// y ← y + factor x: residual connections, and gradients that meet.
struct AddScaled {
  static constexpr int most_threads = 256;
  const float* x = nullptr;
  float factor = 1;
  Index size = 0;
  float* y = nullptr;

  LaunchShape shape() const { return detail::fours_shape(size); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = 4 * detail::flat_index(t);
    const Float4 added = load_four(x, i, size);
    Float4 sum = load_four(y, i, size);
    for (int n = 0; n < 4; ++n) sum.number[n] += factor * added.number[n];
    store_four(sum, y, i, size);
  }
};

/// y ← factor y, times a number in device memory, if given: the gradient that a loss gets.
struct Scale {
  static constexpr int most_threads = 256;
  float factor = 1;
  const float* number = nullptr;
  Index size = 0;
  float* y = nullptr;

  LaunchShape shape() const { return detail::flat_shape(size); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i < size) y[i] *= number ? factor * *number : factor;
  }
};

/// Each token's column of Y [rows, tokens] plus factor · x [rows]: biases.
struct AddToColumns {
  static constexpr int most_threads = 256;
  const float* x = nullptr;
  float factor = 1;
  int rows = 0, tokens = 0;
  float* y = nullptr;

  LaunchShape shape() const { return detail::flat_shape(static_cast<Index>(rows) * tokens); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i < static_cast<Index>(rows) * tokens) y[i] += factor * x[i % rows];
  }
};

/// Y [rows, tokens] = or += X with token t times factors[t]: rows of a factor times a diagonal. A thread a number.
struct ScaleTokens {
  static constexpr int most_threads = 256;
  const float *x = nullptr, *factors = nullptr;
  int rows = 0, tokens = 0;
  bool accumulate = false;
  float* y = nullptr;

  LaunchShape shape() const { return detail::flat_shape(static_cast<Index>(rows) * tokens); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i >= static_cast<Index>(rows) * tokens) return;
    const float scaled = factors[i / rows] * x[i];
    y[i] = accumulate ? y[i] + scaled : scaled;
  }
};

/// dots[t] += x_t · y_t of columns [rows] of X and Y: the gradient of ScaleTokens' factors. A block of 256 threads a token.
struct DotTokens {
  static constexpr int most_threads = 256;
  const float *x = nullptr, *y = nullptr;
  int rows = 0, tokens = 0;
  float* dots = nullptr;

  LaunchShape shape() const { return {.x = static_cast<unsigned>(tokens), .threads = most_threads, .shared_bytes = 16 * sizeof(float)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index at = static_cast<Index>(t.block_x()) * rows;
    float sum = 0;
    for (int i = t.thread(); i < rows; i += t.threads()) sum += x[at + i] * y[at + i];
    sum = block_sum(t, sum, &shared_as<float>(t));
    if (t.thread() == 0) dots[t.block_x()] += sum;
  }
};

/// sum [rows] += factor · Σₜ of the columns of G [rows, tokens], tokens in order: gradients of biases. A thread a row.
struct SumColumns {
  static constexpr int most_threads = 256;
  const float* g = nullptr;
  float factor = 1;
  int rows = 0, tokens = 0;
  float* sum = nullptr;

  LaunchShape shape() const { return detail::flat_shape(rows); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i >= rows) return;
    float total = 0;
    for (Index token = 0; token < tokens; ++token) total += g[token * rows + i];
    sum[i] += factor * total;
  }
};

/// Numbers from bfloat16 rows that lie `stride` apart: what ToBfloat16 rounded, widened again.
struct FromBfloat16 {
  static constexpr int most_threads = 256;
  const BFloat16* x = nullptr;
  Index stride = 0;
  int rows = 0, cols = 0;
  float* y = nullptr;

  constexpr int across() const { return (cols + 3) / 4; }
  LaunchShape shape() const { return detail::flat_shape(static_cast<Index>(rows) * across()); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i >= static_cast<Index>(rows) * across()) return;
    const auto [row, four] = divide(i, across());
    const auto* const pair = reinterpret_cast<const std::uint32_t*>(x + row * stride + 4 * four);
    store_four({low_bfloat16(pair[0]), high_bfloat16(pair[0]), low_bfloat16(pair[1]), high_bfloat16(pair[1])}, y + row * cols, 4 * four,
               cols);
  }
};

/// Turns the pairs of each head of X [heads · 2 half, tokens] by the angles whose cos and sin are [half, tokens], as RopeTable; direction
/// −1 turns back, which is the gradient. Pairs are (j, j + half), or neighbours. y may be x.
struct Rope {
  static constexpr int most_threads = 256;
  const float *x = nullptr, *cos = nullptr, *sin = nullptr;
  int heads = 0, half = 0, tokens = 0;
  bool are_neighbours = false;
  float direction = 1;
  float* y = nullptr;

  LaunchShape shape() const { return detail::flat_shape(static_cast<Index>(tokens) * heads * half); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t);
    if (i >= static_cast<Index>(tokens) * heads * half) return;
    const auto [head, j] = divide(i, half);  // head counts over all tokens
    const Index angle = divide(head, heads).whole * half + j;
    const Index first = head * 2 * half + (are_neighbours ? 2 * j : j), second = first + (are_neighbours ? 1 : half);
    const float left = x[first], right = x[second], c = cos[angle], s = direction * sin[angle];
    y[first] = left * c - right * s;
    y[second] = right * c + left * s;
  }
};

/// Column t of Y [cols, tokens] is row ids[t] of the table. A thread 8 numbers. ids must lie inside the table.
struct EmbeddingForward {
  static constexpr int most_threads = 256;
  ChunkedView table;
  const std::int32_t* ids = nullptr;
  int tokens = 0;
  float* y = nullptr;

  LaunchShape shape() const { return detail::flat_shape(static_cast<Index>(tokens) * table.chunks * 4); }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index i = detail::flat_index(t), parts = static_cast<Index>(table.chunks) * 4;
    if (i >= tokens * parts) return;
    const Index token = i / parts, chunk = static_cast<Index>(ids[token]) * table.chunks + i % parts / 4;
    const int part = static_cast<int>(i % 4), column = static_cast<int>(i % parts) * 8;
    const Word4* const codes = table.codes + chunk * table.words();
    const ChunkScale by = scale_of(table, chunk);
    float out[8];
    if (table.bits == 4)
      decode_part<4>(codes, part, table.table, by, out);
    else if (table.bits == 8)
      decode_part<8>(codes, part, table.table, by, out);
    else
      decode_part<16>(codes, part, table.table, by, out);
    for (int j = 0; j < 8; ++j)
      if (column + j < table.cols) y[token * table.cols + column + j] = out[j];
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
