#pragma once

/// AdamW with its moments in 8 bits: a quarter of the state's memory (Dettmers et al. 2022, "8-bit optimizers via block-wise
/// quantization").

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <lowrank/optim/adamw.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The 256 numbers in [-1, 1], or [0, 1], that a code of a moment stands for, ascending.
///
/// They are dynamic: seven decades, the finer the larger, as bitsandbytes' map. Of moments without sign no number above zero becomes zero:
/// a second moment that did would let its parameter jump.
class MomentCodes {
 public:
  explicit MomentCodes(bool with_sign);
  static const MomentCodes& first();   ///< of first moments, with sign
  static const MomentCodes& second();  ///< of second moments

  float operator[](std::uint8_t code) const { return numbers_[code]; }
  /// The code nearest to x in [-1, 1].
  std::uint8_t nearest(float x) const;

 private:
  std::array<float, 256> numbers_ = {};
  std::vector<float> magnitudes_ = {}, midpoints_ = {};  // of the codes from zero upwards, and between them
  std::vector<std::uint8_t> starts_ = {};                // by the upper half of a magnitude's bits: the place before its midpoint
  std::uint8_t zero_ = 0;
};

/// A moment in 8 bits: each block of 256 numbers has its largest magnitude as scale, and codes.
struct Moment8bit {
  static constexpr std::size_t block = 256;

  const MomentCodes* table;
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;

  Moment8bit(const MomentCodes& moment_codes, std::size_t size)
      : table(&moment_codes), codes(size, moment_codes.nearest(0)), scales((size + block - 1) / block) {}

  /// The numbers from `begin`, a multiple of the block; one block at most.
  template <class S>
  void decode(std::size_t begin, std::span<S> numbers) const {
    const float scale = scales[begin / block];
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<S>(scale * (*table)[codes[begin + i]]);
  }
  template <class S>
  void encode(std::size_t begin, std::span<const S> numbers) {
    float scale = 0;
    for (const S x : numbers) scale = std::max(scale, std::abs(static_cast<float>(x)));
    scales[begin / block] = scale;
    const float inverse = scale > 0 ? 1 / scale : 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) codes[begin + i] = table->nearest(inverse * static_cast<float>(numbers[i]));
  }
};

/// What AdamW8bit remembers of a parameter: both moments in 8 bits, or in full where there are fewer than 4096 numbers.
template <class S>
struct Moments8bit {
  Index rows, cols;
  Moment8bit first, second;
  Moments<S> full;

  bool is_full() const { return !full.numbers.empty(); }
  template <class F>
  void visit(const F& f) {
    if (is_full()) return full.visit(f);
    const auto visit_one = [&](const char* codes, const char* scales, Moment8bit& moment) {
      f(codes, std::span(moment.codes), std::vector<Index>{rows, cols});
      f(scales, std::span(moment.scales), std::vector<Index>{static_cast<Index>(moment.scales.size())});
    };
    visit_one("first_moment", "first_scales", first);
    visit_one("second_moment", "second_scales", second);
  }
};

/// The rule of AdamW with moments in 8 bits between the steps: each block is decoded, stepped as by AdamWRule and encoded again.
struct AdamW8bitRule {
  using Options = AdamWOptions;
  static constexpr Index smallest = 4096;  ///< numbers of a parameter from which on 8 bits are used

  static void check_options(const Options& options) { AdamWRule::check_options(options); }

  template <class S>
  static Moments8bit<S> memory(const Options& options, Index rows, Index cols) {
    const bool is_full = rows * cols < smallest;
    const std::size_t size = is_full ? 0 : static_cast<std::size_t>(rows * cols);
    return {rows,
            cols,
            {MomentCodes::first(), size},
            {MomentCodes::second(), size},
            AdamWRule::memory<S>(options, is_full ? rows : 0, is_full ? cols : 0)};
  }

  template <class S>
  static void update(const Options& options, const ParameterStep<S>& p, Moments8bit<S>& memory) {
    if (memory.is_full()) return AdamWRule::update<S>(options, p, memory.full);
    std::array<S, 2 * Moment8bit::block> numbers;
    for (std::size_t begin = 0; begin < p.value.size(); begin += Moment8bit::block) {
      const std::size_t length = std::min(Moment8bit::block, p.value.size() - begin);
      const std::span<S> first(numbers.data(), length), second(numbers.data() + Moment8bit::block, length);
      memory.first.decode(begin, first);
      memory.second.decode(begin, second);
      AdamWRule::advance<S>(options, p.step, p.value.subspan(begin, length), p.grad.subspan(begin, length), first, second);
      memory.first.encode(begin, std::span<const S>(first));
      memory.second.encode(begin, std::span<const S>(second));
    }
  }
};

/// AdamW over parameters(model) with two bytes of state a number instead of eight.
///
///   AdamW8bit optimizer{parameters(model), {.learning_rate = 2e-4}};
template <class S = float>
class AdamW8bit : public Optimizer<AdamW8bitRule, S> {
 public:
  using Optimizer<AdamW8bitRule, S>::Optimizer;
};

template <class S>
AdamW8bit(std::vector<ParameterRef<S>>) -> AdamW8bit<S>;
template <class S>
AdamW8bit(std::vector<ParameterRef<S>>, AdamWOptions) -> AdamW8bit<S>;

#if defined(LOWRANK_COMPILED)
extern template class Optimizer<AdamW8bitRule, float>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/optim/adamw8bit.inl>
#endif
