#pragma once

/// Matrices of every storage kind with random contents, and the product in double that the kernels are held against.

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace fixtures {

using namespace lowrank;

inline constexpr float nf4[16] = {-1.0f,        -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.091050036f, 0.0f,
                                  0.079580300f, 0.16093020f,  0.24611230f,  0.33791524f,  0.44070983f,  0.56261700f,  0.72295684f,   1.0f};

inline std::vector<float> random_floats(Index count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = random.uniform(-1.0f, 1.0f);
  return numbers;
}

/// A block-quantized matrix and the memory it points at.
struct Blocks {
  std::vector<std::byte> data;
  std::vector<float> scales, map;
  std::vector<std::uint8_t> codes;
  BlockSource source;
};

inline void fill(std::vector<std::byte>& bytes, std::size_t size, Random& random) {
  bytes.resize(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.bits());
}

/// The bitsandbytes layout: blocks over the flattened matrix.
inline Blocks pairs(Index rows, Index cols, Index group, bool doubly, std::uint64_t seed) {
  Random random(seed);
  Blocks b;
  fill(b.data, static_cast<std::size_t>((rows * cols + 1) / 2), random);
  const auto groups = static_cast<std::size_t>(ceil_div(rows * cols, group));
  b.source = {.data = b.data.data(), .row_count = rows, .col_count = cols, .pitch = cols, .order = CodeOrder::nibble_pairs, .group = group};
  std::copy_n(nf4, 16, b.source.table.begin());
  if (doubly) {
    b.codes.resize(groups);
    for (auto& code : b.codes) code = static_cast<std::uint8_t>(random.bits());
    b.map.resize(256);
    for (float& m : b.map) m = random.uniform(-0.5f, 0.5f);
    b.scales.resize(groups / 256 + 1);
    for (float& s : b.scales) s = random.uniform(0.5f, 1.0f);
    b.source.read_scales = DoubleQuantizedScales::read;
    b.source.scale_codes = b.codes.data();
    b.source.scale_map = b.map.data();
    b.source.scale_offset = 0.75f;
  } else {
    b.scales.resize(groups);
    for (float& s : b.scales) s = random.uniform(0.5f, 1.0f);
    b.source.read_scales = ArrayScales::read;
  }
  b.source.scales = reinterpret_cast<const std::byte*>(b.scales.data());
  return b;
}

/// ggml's Q4_0, Q4_1 (with an offset) and Q8_0 layouts: blocks of 32 with half-precision scales inside.
inline Blocks ggml(Index rows, Index cols, int bits, bool has_offset, std::uint64_t seed) {
  Random random(seed);
  Blocks b;
  const Index head = has_offset ? 4 : 2, size = head + bits * 4, count = rows * cols / 32;
  fill(b.data, static_cast<std::size_t>(count * size), random);
  for (Index i = 0; i < count; ++i) {
    const Half scale(random.uniform(0.01f, 0.02f)), offset(random.uniform(-0.1f, 0.0f));
    std::memcpy(b.data.data() + i * size, &scale.bits, 2);
    if (has_offset) std::memcpy(b.data.data() + i * size + 2, &offset.bits, 2);
  }
  b.source = {.data = b.data.data(),
              .row_count = rows,
              .col_count = cols,
              .pitch = cols,
              .order = bits == 4 ? CodeOrder::nibble_halves : CodeOrder::bytes,
              .group = 32,
              .block = 32,
              .block_bytes = size,
              .codes_at = head};
  for (int i = 0; i < 16; ++i) b.source.table[static_cast<std::size_t>(i)] = static_cast<float>(has_offset ? i : i - 8);
  b.source.read_scales = HalfScales::read;
  b.source.offset_at = has_offset ? 2 : -1;
  return b;
}

/// Super-blocks as of Q4_K: 256 elements, runs of 32 bytes, a scale and an offset for 32 elements, read by a function of the format's own.
inline Blocks super_blocks(Index rows, Index cols, std::uint64_t seed) {
  Random random(seed);
  Blocks b;
  const Index head = 32, size = head + 128, count = rows * cols / 256;
  fill(b.data, static_cast<std::size_t>(count * size), random);
  for (Index i = 0; i < count * 8; ++i) {
    const Half scale(random.uniform(0.01f, 0.02f)), offset(random.uniform(-0.2f, 0.0f));
    std::memcpy(b.data.data() + i / 8 * size + i % 8 * 4, &scale.bits, 2);
    std::memcpy(b.data.data() + i / 8 * size + i % 8 * 4 + 2, &offset.bits, 2);
  }
  b.source = {.data = b.data.data(),
              .row_count = rows,
              .col_count = cols,
              .pitch = cols,
              .order = CodeOrder::nibble_halves,
              .group = 32,
              .block = 256,
              .block_bytes = size,
              .codes_at = head,
              .run = 32};
  for (int i = 0; i < 16; ++i) b.source.table[static_cast<std::size_t>(i)] = static_cast<float>(i);
  b.source.read_scales = [](const BlockSource& s, Index first, Index groups, float* scale, float* offset) {
    for (Index i = 0; i < groups; ++i) {
      const std::byte* at = s.block_of((first + i) * 32) + (first + i) % 8 * 4;
      scale[i] = HalfScales::half_at(at);
      offset[i] = HalfScales::half_at(at + 2);
    }
  };
  return b;
}

/// source · X in double, and the sum of magnitudes that errors are measured against.
struct Oracle {
  std::vector<double> value, magnitude;

  template <class S>
  Oracle(const S& source, const float* x, Index ldx, Index tokens) {
    const Index rows = source.rows(), depth = source.cols();
    value.assign(static_cast<std::size_t>(rows * tokens), 0.0);
    magnitude = value;
    std::vector<double> row(static_cast<std::size_t>(depth));
    for (Index i = 0; i < rows; ++i) {
      if (depth > 0) source.decode(i, Index{1}, Index{0}, depth, row.data(), depth);
      for (Index t = 0; t < tokens; ++t) {
        for (Index k = 0; k < depth; ++k) {
          const double term = row[static_cast<std::size_t>(k)] * static_cast<double>(x[t * ldx + k]);
          value[static_cast<std::size_t>(t * rows + i)] += term;
          magnitude[static_cast<std::size_t>(t * rows + i)] += std::abs(term);
        }
      }
    }
  }

  /// Largest error of y [rows, tokens] in units of the magnitude.
  double error(const float* y, Index ldy, Index rows, Index tokens) const {
    double worst = 0;
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < rows; ++i) {
        const auto at = static_cast<std::size_t>(t * rows + i);
        const double difference = std::abs(static_cast<double>(y[t * ldy + i]) - value[at]);
        worst = std::max(worst, difference / (magnitude[at] + 1e-30));
        if (!is_finite(y[t * ldy + i])) return std::numeric_limits<double>::infinity();
      }
    return worst;
  }
};

/// Bound on that error: unit roundoff of the sums grows with the depth at worst; bf16 rounds two factors by 2^-8 each; int8 rounds
/// activations by half of 1/127 of the largest of 32.
inline double bound(Compute compute, Index depth) {
  const double sums = (static_cast<double>(depth) + 4.0) * 0x1p-24;
  if (compute == Compute::fp32) return sums;
  return compute == Compute::bf16 ? sums + 0x1.01p-7 : sums + 0.05;
}

/// Calls body(target) for each target that this processor has, and restores the choice.
template <class Body>
void for_each_target(const Body& body) {
  const kernels::Target& chosen = kernels::current_target();
  for (const kernels::Target* target : kernels::targets()) {
    if (!target->is_available()) continue;
    kernels::set_target(*target);
    body(*target);
  }
  kernels::set_target(chosen);
}

}  // namespace fixtures
