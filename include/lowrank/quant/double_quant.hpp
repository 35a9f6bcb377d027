#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <utility>

#include <lowrank/kernels/format/blocks.hpp>
#include <lowrank/core/buffer.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/quant/encoding.hpp>
#include <lowrank/quant/format.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI {
namespace quant {

/// The 256 values of bitsandbytes' dynamic 8-bit code, ascending: ten-fold ranges, each twice as fine as the one below it.
///
/// Range i = 0..6 holds n = 2^i values (signed, and their negatives) or 2^(i+1) (unsigned): 10^(i-6) · (0.1 + 0.9 (k + ½) / n);
/// 0 and 1 complete it (there is no -1). Rounded as PyTorch does: midpoints of neighbours in linspace(0.1, 1, n + 1), in fp32.
/// Dettmers 2015, "8-bit approximations for parallelism in deep learning".
inline std::array<float, 256> dynamic_map(bool is_signed = true) {
  std::array<float, 256> map{};
  std::size_t size = 0;
  for (int i = 0; i < 7; ++i) {
    const int n = is_signed ? 1 << i : 2 << i;
    const float step = 0.9f / static_cast<float>(n), scale = static_cast<float>(std::pow(10.0, i - 6));
    const auto point = [&](int k) {  // from the nearer end and fused, as torch.linspace
      return k < (n + 1) / 2 ? std::fma(step, static_cast<float>(k), 0.1f) : std::fma(-step, static_cast<float>(n - k), 1.0f);
    };
    for (int k = 0; k < n; ++k) {
      const float value = scale * ((point(k) + point(k + 1)) / 2);
      map[size++] = value;
      if (is_signed) map[size++] = -value;
    }
  }
  map[size++] = 0.0f;
  map[size++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

/// Index of the value nearest to t, by bitsandbytes' bisection: a tie stays at the last pivot; NaN gives 0.
inline std::uint8_t nearest_code(const std::array<float, 256>& map, float t) {
  int pivot = 127, lower = 0, upper = 255;
  for (int step = 64; step > 0; step /= 2) {
    const bool above = t > map[static_cast<std::size_t>(pivot)];
    (above ? lower : upper) = pivot;
    pivot += above ? step : -step;
  }
  const auto midpoint = [&](int a, int b) { return (map[static_cast<std::size_t>(a)] + map[static_cast<std::size_t>(b)]) * 0.5f; };
  if (t > map[static_cast<std::size_t>(pivot)]) return static_cast<std::uint8_t>(t > midpoint(pivot, upper) ? upper : pivot);
  return static_cast<std::uint8_t>(t < midpoint(lower, pivot) ? lower : pivot);
}

/// The same for many t: bisection down a tree without branches. The last pivots are the even indices, so a tie takes the even one.
class NearestCode {
 public:
  explicit NearestCode(const std::array<float, 256>& map) {
    for (unsigned first = 1, gap = 128; first < 256; first *= 2, gap /= 2)  // a level of the tree, as in kernels::ordered_rule
      for (unsigned i = 0; i < first; ++i) {
        const unsigned below = gap - 1 + 2 * gap * i;
        const float midpoint = (map[below] + map[below + 1]) * 0.5f;
        nodes_[first + i] = below % 2 == 0 ? midpoint : std::nextafter(midpoint, -2.0f);
      }
  }
  std::uint8_t operator()(float t) const {
    unsigned node = 1;
    for (int level = 0; level < 8; ++level) node = 2 * node + (t > nodes_[node]);
    return static_cast<std::uint8_t>(node - 256);
  }

 private:
  std::array<float, 256> nodes_{};
};

}  // namespace quant

/// One fp32 scale a block: the largest magnitude.
struct PlainScales {
  static constexpr bool is_double_quantized = false;
  static constexpr double bits_per_block = 32;

  /// The scales of a matrix's blocks, as they are.
  class Storage {
   public:
    Storage() = default;
    /// absmax fp32[blocks]. Throws ShapeError.
    Storage(std::string_view format, Index blocks, Buffer absmax) : absmax_(std::move(absmax)) {
      check<ShapeError>(absmax_.size() == 4 * static_cast<std::size_t>(blocks), format, "absmax holds ", absmax_.size(), " bytes but ",
                        blocks, " blocks need ", 4 * blocks, " (fp32); check the shape and the block size");
    }
    static Storage encode(std::string_view format, Buffer absmax) {
      const auto blocks = static_cast<Index>(absmax.size() / sizeof(float));
      return {format, blocks, std::move(absmax)};
    }

    /// The scale of a block.
    float operator[](Index block) const { return quant::load<float>(absmax_.data() + 4 * block); }
    void describe(BlockSource& s) const {
      s.read_scales = ArrayScales::read;
      s.scales = absmax_.data();
    }
    std::size_t bytes() const { return absmax_.size(); }
    const Buffer& absmax() const { return absmax_; }

   private:
    Buffer absmax_;
  };
};

/// Double quantization: scales stored in 8 bits, absmax ≈ map[code] · nested_absmax[block / 256] + offset.
///
/// offset = mean(absmax); the rest is quantized in nested blocks of 256 with the signed dynamic map: 8 + 32 / 256 bits a block
/// instead of 32. Raises the NF4 error by at most 0.04 %. The search is exact, so a rest of 0 decodes to 0 (in bitsandbytes' CPU
/// path, which rounds to 65,536 bins first, to 2.1e-5 of the nested maximum). Dettmers et al. 2023, "QLoRA", section 3.
struct DoubleQuant {
  static constexpr bool is_double_quantized = true;
  static constexpr Index nested_block = 256;
  static constexpr double bits_per_block = 8 + 32.0 / nested_block;

  /// The scales of a matrix's blocks in 8 bits, and their own scales.
  class Storage {
   public:
    Storage() = default;
    /// absmax uint8[blocks], nested_absmax fp32[ceil(blocks / 256)]; map: the file's own code, if it has one. Throws ShapeError.
    Storage(std::string_view format, Index blocks, Buffer absmax, Buffer nested_absmax, float offset,
            const std::array<float, 256>& map = quant::dynamic_map())
        : absmax_(std::move(absmax)), nested_absmax_(std::move(nested_absmax)), offset_(offset), map_(map) {
      check<ShapeError>(absmax_.size() == static_cast<std::size_t>(blocks), format, "absmax holds ", absmax_.size(), " bytes but ", blocks,
                        " blocks need ", blocks, " (uint8); check the shape and the block size");
      const auto nested = static_cast<std::size_t>(ceil_div(blocks, nested_block));
      check<ShapeError>(nested_absmax_.size() == 4 * nested, format, "nested_absmax holds ", nested_absmax_.size(), " bytes but ", nested,
                        " nested blocks need ", 4 * nested, " (fp32); check the shape and the block size");
    }
    /// Quantizes absmax fp32[blocks].
    static Storage encode(std::string_view format, const Buffer& absmax);

    /// The scale of a block, in two roundings.
    float operator[](Index block) const {
      const float nested = quant::load<float>(nested_absmax_.data() + 4 * (block / nested_block));
      return rounded(map_[static_cast<std::size_t>(absmax_.data()[block])] * nested) + offset_;
    }
    void describe(BlockSource& s) const {
      s.read_scales = DoubleQuantizedScales::read;
      s.scales = nested_absmax_.data();
      s.scale_codes = absmax_.as<std::uint8_t>();
      s.scale_map = map_.data();
      s.scale_offset = offset_;
    }
    std::size_t bytes() const { return absmax_.size() + nested_absmax_.size() + (absmax_.empty() ? 0 : sizeof(offset_)); }
    const Buffer& absmax() const { return absmax_; }
    const Buffer& nested_absmax() const { return nested_absmax_; }
    float offset() const { return offset_; }
    const std::array<float, 256>& map() const { return map_; }

   private:
    Buffer absmax_, nested_absmax_;
    float offset_ = 0;
    std::array<float, 256> map_{};
  };
};

inline DoubleQuant::Storage DoubleQuant::Storage::encode(std::string_view format, const Buffer& absmax) {
  const float* const scales = absmax.as<float>();
  const auto blocks = static_cast<Index>(absmax.size() / sizeof(float)), count = ceil_div(blocks, nested_block);
  const double sum = std::accumulate(scales, scales + blocks, 0.0);  // in order, whatever the threads
  const float offset = blocks == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(blocks));
  Buffer codes = Buffer::allocate(static_cast<std::size_t>(blocks));
  Buffer nested = Buffer::allocate(4 * static_cast<std::size_t>(count));
  const std::array<float, 256> map = quant::dynamic_map();
  const quant::NearestCode nearest(map);
  parallel_ranges(count, 16, [&](Index first, Index last) {
    std::array<float, nested_block> rest;
    for (Index n = first; n < last; ++n) {
      const Index begin = n * nested_block, end = std::min(begin + nested_block, blocks);
      std::transform(scales + begin, scales + end, rest.begin(), [&](float a) { return a - offset; });
      const float largest = kernels::scalar::largest_magnitude(rest.data(), end - begin), inverse = 1.0f / largest;
      nested.mutable_as<float>()[n] = largest;
      std::transform(rest.begin(), rest.begin() + (end - begin), codes.mutable_as<std::uint8_t>() + begin, [&](float r) {
        return nearest(r * inverse);
      });  // all equal: 0 · inf is NaN, code 0, as on CUDA; it decodes to -0 + offset
    }
  });
  return {format, blocks, std::move(codes), std::move(nested), offset, map};
}

}  // namespace lowrank::inline LOWRANK_ABI
LOWRANK_IEEE_END
