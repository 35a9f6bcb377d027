#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/device.hpp>
#include <lowrank/core/shape.hpp>
#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Which two numbers of a head turn together: (j, j + size/2), as in Hugging Face's rotate_half, or (2j, 2j + 1), as in GGUF llama files.
enum class RopePairs { halves, interleaved };

/// Rotary position embedding. frequency_factors, empty or one a pair, divide the frequencies (the llama 3 scaling and its kin).
struct RopeOptions {
  Index head_size = 0;
  double base = 10000;
  RopePairs pairs = RopePairs::halves;
  std::vector<double> frequency_factors = {};
  Index turned = 0;      ///< numbers of a head that turn, its first ones (partial RoPE); 0: all
  double magnitude = 1;  ///< what turns is also multiplied by it (YaRN's attention factor)

  Index turned_size() const { return turned > 0 ? turned : head_size; }
};

/// cos and sin of every angle, [n / 2, T], n = turned_size(): pair j of a token at position p turns by p · base^(−2j / n) / factor_j; both
/// times the magnitude.
///
/// Angles in double. Depends on the positions only, so one table serves all heads and layers. Throws ShapeError, ValueError.
template <class S>
class RopeTable {
 public:
  RopeTable(std::span<const Index> positions, const RopeOptions& options);

  Index tokens() const { return cos_.cols(); }
  Index head_size() const { return head_size_; }
  /// Pairs of a head that turn.
  Index turned_pairs() const { return cos_.rows(); }
  RopePairs pairs() const { return pairs_; }
  const S* cos(Index t) const { return cos_.col(t).data(); }
  const S* sin(Index t) const { return sin_.col(t).data(); }
  /// The table on a GPU.
  DeviceSlot& device() const { return device_; }

 private:
  Activation<S> cos_, sin_;
  mutable DeviceSlot device_;
  RopePairs pairs_;
  Index head_size_;
};

template <class S>
RopeTable<S>::RopeTable(std::span<const Index> positions, const RopeOptions& options)
    : pairs_(options.pairs), head_size_(options.head_size) {
  const Index turned = options.turned_size(), half = turned / 2, tokens = static_cast<Index>(positions.size());
  const auto factors = static_cast<Index>(options.frequency_factors.size());
  check<ShapeError>(options.head_size > 0 && options.head_size % 2 == 0, "rope", "head_size is ", options.head_size,
                    "; it must be even and positive");
  check<ShapeError>(turned > 0 && turned % 2 == 0 && turned <= options.head_size, "rope", turned, " of ", options.head_size,
                    " numbers of a head turn; the count must be even, positive and at most head_size");
  check<ShapeError>(factors == 0 || factors == half, "rope", "there are ", factors, " frequency factors for ", half,
                    " pairs; give one a pair, or none");
  check<ValueError>(is_finite(options.base) && options.base > 0, "rope", "base is ", options.base, "; it must be positive");
  check<ValueError>(is_finite(options.magnitude) && options.magnitude > 0, "rope", "magnitude is ", options.magnitude,
                    "; it must be positive");
  element_count("rope", "the table [head_size, tokens]", {options.head_size, tokens});
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (Index j = 0; j < half; ++j) {
    const auto k = static_cast<std::size_t>(j);
    frequency[k] = std::pow(options.base, -2.0 * static_cast<double>(j) / static_cast<double>(turned));
    if (factors > 0) frequency[k] /= options.frequency_factors[k];
  }
  cos_.resize(half, tokens);
  sin_.resize(half, tokens);
  parallel_ranges(tokens, 32, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t) {
      for (Index j = 0; j < half; ++j) {
        const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) * frequency[static_cast<std::size_t>(j)];
        cos_(j, t) = static_cast<S>(options.magnitude * std::cos(angle));
        sin_(j, t) = static_cast<S>(options.magnitude * std::sin(angle));
      }
    }
  });
}

namespace detail {

/// Turns the pairs of one head by the angles, or back for direction = −1.
template <class S>
void rotate_head(const S* x, S* y, const S* cos, const S* sin, Index half, RopePairs pairs, S direction) {
  if constexpr (std::is_same_v<S, float>) {
    const auto rotate = pairs == RopePairs::halves ? elementwise().rotate_halves : elementwise().rotate_neighbours;
    return rotate(x, cos, sin, half, direction, y);
  }
  if (pairs == RopePairs::halves) {
    for (Index j = 0; j < half; ++j) {
      const S left = x[j], right = x[j + half], s = direction * sin[j];
      y[j] = left * cos[j] - right * s;
      y[j + half] = right * cos[j] + left * s;
    }
  } else {
    for (Index j = 0; j < half; ++j) {
      const S left = x[2 * j], right = x[2 * j + 1], s = direction * sin[j];
      y[2 * j] = left * cos[j] - right * s;
      y[2 * j + 1] = right * cos[j] + left * s;
    }
  }
}

template <class S>
Activation<S> rotate(const char* operation, const ActivationView<S>& x, const RopeTable<S>& table, S direction) {
  check<ShapeError>(x.cols() == table.tokens() && x.rows() % table.head_size() == 0, operation, "x is [", x.rows(), ", ", x.cols(),
                    "] but the head size is ", table.head_size(), " and there are ", table.tokens(),
                    " positions; x must be [heads * head_size, tokens] with one position a token");
  const Index size = table.head_size(), pairs = table.turned_pairs(), still = size - 2 * pairs;
  Activation<S> y(x.rows(), x.cols());
  for_each_token(x.rows(), x.cols(), [&](Index t) {
    for (Index row = 0; row < x.rows(); row += size) {
      rotate_head(x.col(t).data() + row, y.col(t).data() + row, table.cos(t), table.sin(t), pairs, table.pairs(), direction);
      std::copy_n(x.col(t).data() + row + 2 * pairs, still, y.col(t).data() + row + 2 * pairs);
    }
  });
  return y;
}

}  // namespace detail

/// Turns each pair of each head of X [heads · head_size, T] by its angle. Su et al. 2021. Throws ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> rope_forward(const X& x, const RopeTable<S>& table) {
  return detail::rotate<S>("rope_forward", x, table, S(1));
}

/// Gradient of rope_forward: the inverse rotation, for a rotation's transpose is its inverse; the magnitude stays.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> rope_backward(const X& g, const RopeTable<S>& table) {
  return detail::rotate<S>("rope_backward", g, table, S(-1));
}

/// The same with a table made for this call.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> rope_forward(const X& x, std::span<const Index> positions, const RopeOptions& options) {
  return rope_forward(x, RopeTable<S>(positions, options));
}

template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> rope_backward(const X& g, std::span<const Index> positions, const RopeOptions& options) {
  return rope_backward(g, RopeTable<S>(positions, options));
}

#if defined(LOWRANK_COMPILED)
extern template class RopeTable<float>;
extern template Activation<float> rope_forward(const Activation<float>&, const RopeTable<float>&);
extern template Activation<float> rope_backward(const Activation<float>&, const RopeTable<float>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/ops/rope.inl>
#endif
