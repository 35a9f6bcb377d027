#pragma once

#include <cmath>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::quant {

namespace detail {

/// The number of the largest magnitude, the first of equals.
LOWRANK_INLINE float extreme(const float* x, Index n) {
  float largest = 0, found = 0;
  for (Index i = 0; i < n; ++i)
    if (std::abs(x[i]) > largest) largest = std::abs(x[i]), found = x[i];
  return found;
}

LOWRANK_INLINE float affine_error(const float* x, const float* w, Index n, float scale, float low, const std::uint8_t* codes,
                                  bool by_magnitude) {
  float error = 0;
  for (Index i = 0; i < n; ++i) {
    const float rest = rounded(scale * static_cast<float>(codes[i])) + low - x[i];
    error += rounded(w[i] * (by_magnitude ? std::abs(rest) : rounded(rest * rest)));
  }
  return error;
}

/// Σ w, Σ w x over the numbers, and Σ w q, Σ w q², Σ w q x over their codes.
struct AffineSums {
  float w = 0, x = 0, q = 0, qq = 0, qx = 0;
};

LOWRANK_INLINE AffineSums affine_sums(AffineSums sums, const float* x, const float* w, Index n, const std::uint8_t* codes) {
  for (Index i = 0; i < n; ++i) {
    const auto q = static_cast<float>(codes[i]);
    const float wq = rounded(w[i] * q);
    sums.q += wq, sums.qq += rounded(wq * q), sums.qx += rounded(wq * x[i]);
  }
  return sums;
}

/// The line through (q, x): x ≈ scale · q + low, low ≤ 0; false where all codes are equal.
LOWRANK_INLINE bool fit_line(const AffineSums& s, float& scale, float& low) {
  const float determinant = rounded(s.w * s.qq) - rounded(s.q * s.q);
  if (!(determinant > 0)) return false;
  scale = (rounded(s.w * s.qx) - rounded(s.x * s.q)) / determinant;
  low = (rounded(s.qq * s.x) - rounded(s.q * s.qx)) / determinant;
  if (low > 0) low = 0, scale = s.qx / s.qq;
  return true;
}

/// Σ w x q and Σ w q²: the scale of least error is their quotient, and lowers it by the square of the first over the second.
struct ScaleSums {
  float xq = 0, qq = 0;

  void add(float w, float x, float q) { xq += rounded(rounded(w * x) * q), qq += rounded(rounded(w * q) * q); }
  void remove(float w, float x, float q) { xq -= rounded(rounded(w * x) * q), qq -= rounded(rounded(w * q) * q); }
  /// Whether they promise less error than `gain` does.
  bool is_above(float gain) const { return qq > 0 && rounded(xq * xq) > rounded(gain * qq); }
  /// The same for other codes of the same numbers.
  bool is_above(const ScaleSums& other) const { return rounded(xq * xq) * other.qq > rounded(other.xq * other.xq) * qq; }
};

/// Changes one code after the other to the best one for the scale that the others ask for, five times or until none changes.
template <class Weight>
void descend(const float* x, const Weight& w, Index n, int low, int high, int* codes, ScaleSums& sums) {
  for (int round = 0; round < 5; ++round) {
    bool changed = false;
    for (Index i = 0; i < n; ++i) {
      ScaleSums others = sums;
      others.remove(w(i), x[i], static_cast<float>(codes[i]));
      if (!(others.xq > 0) || !(others.qq > 0)) continue;
      const int code = rounded_code(x[i] * others.qq / others.xq, low, high);
      if (code == codes[i]) continue;
      others.add(w(i), x[i], static_cast<float>(code));
      if (!others.is_above(sums)) continue;
      codes[i] = code, sums = others, changed = true;
    }
    if (!changed) return;
  }
}

}  // namespace detail

LOWRANK_INLINE ScaleAndMinimum search_affine(const float* x, const float* w, Index n, const AffineSearch& search, std::uint8_t* codes) {
  float low = x[0], high = x[0];
  detail::AffineSums all{w[0], w[0] * x[0]};
  for (Index i = 1; i < n; ++i) {
    low = std::min(low, x[i]), high = std::max(high, x[i]);
    all.w += w[i], all.x += rounded(w[i] * x[i]);
  }
  low = std::min(low, 0.0f);
  std::fill_n(codes, n, std::uint8_t{0});
  if (high <= low) return {0, -low};
  const auto encode = [&](float levels, std::uint8_t* to) {
    const float inverse = levels / (high - low);
    for (Index i = 0; i < n; ++i) to[i] = static_cast<std::uint8_t>(rounded_code(inverse * (x[i] - low), 0, search.largest));
    return 1 / inverse;
  };
  const auto largest = static_cast<float>(search.largest);
  float scale = encode(largest, codes), best = detail::affine_error(x, w, n, scale, low, codes, search.by_magnitude);
  std::uint8_t tried[32];
  for (int k = 0; k <= search.steps; ++k) {  // each from the best minimum so far
    encode(search.first + rounded(search.step * static_cast<float>(k)) + largest, tried);
    float slope, base;
    if (!detail::fit_line(detail::affine_sums(all, x, w, n, tried), slope, base)) continue;
    const float error = detail::affine_error(x, w, n, slope, base, tried, search.by_magnitude);
    if (!(error < best)) continue;
    best = error, scale = slope, low = base;
    std::copy_n(tried, n, codes);
  }
  return {scale, -low};
}

LOWRANK_INLINE float search_symmetric(const float* x, const float* w, Index n, int half, std::uint8_t* codes) {
  const float extreme = detail::extreme(x, n);
  std::fill_n(codes, n, std::uint8_t{0});
  if (std::abs(extreme) < least_magnitude) return 0;
  const auto code = [&](float inverse, Index i) { return rounded_code(inverse * x[i], -half, half - 1); };
  const auto sums_of = [&](float inverse) {
    detail::ScaleSums sums;
    for (Index i = 0; i < n; ++i) sums.add(w[i], x[i], static_cast<float>(code(inverse, i)));
    return sums;
  };
  const auto encode = [&](float inverse) {
    for (Index i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(code(inverse, i) + half);
  };
  const float first = -static_cast<float>(half) / extreme;
  detail::ScaleSums sums = sums_of(first);
  encode(first);
  float scale = sums.qq != 0 ? sums.xq / sums.qq : 0.0f, best = scale * sums.xq;
  for (int k = -9; k <= 9; ++k) {
    if (k == 0) continue;
    const float inverse = -(static_cast<float>(half) + rounded(0.1f * static_cast<float>(k))) / extreme;
    sums = sums_of(inverse);
    if (!sums.is_above(best)) continue;
    encode(inverse);
    scale = sums.xq / sums.qq, best = scale * sums.xq;
  }
  return scale;
}

LOWRANK_INLINE float descend_symmetric(const float* x, Index n, int half, std::uint8_t* codes) {
  const float extreme = detail::extreme(x, n);
  std::fill_n(codes, n, std::uint8_t{0});
  if (std::abs(extreme) < least_magnitude) return 0;
  const auto weight = [x](Index i) { return rounded(x[i] * x[i]); };
  const float inverse = -static_cast<float>(half) / extreme;
  int q[32];
  detail::ScaleSums sums;
  for (Index i = 0; i < n; ++i) {
    q[i] = rounded_code(inverse * x[i], -half, half - 1);
    sums.add(weight(i), x[i], static_cast<float>(q[i]));
  }
  detail::descend(x, weight, n, -half, half - 1, q, sums);
  for (Index i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(q[i] + half);
  return sums.qq > 0 ? sums.xq / sums.qq : 0.0f;
}

LOWRANK_INLINE float search_positive(const float* x, const float* w, Index n, int largest, std::uint8_t* codes) {
  const float extreme = std::max(0.0f, *std::max_element(x, x + n));
  std::fill_n(codes, n, std::uint8_t{0});
  if (extreme < least_magnitude) return 0;
  const auto error_of = [&](float inverse) {
    const float scale = 1 / inverse;
    float error = 0;
    for (Index i = 0; i < n; ++i) {
      const float rest = x[i] - rounded(scale * static_cast<float>(rounded_code(inverse * x[i], 0, largest)));
      error += rounded(rounded(w[i] * rest) * rest);
    }
    return error;
  };
  float inverse = static_cast<float>(largest) / extreme, best = error_of(inverse);
  for (int k = -4; k <= 4; ++k) {
    if (k == 0) continue;
    const float tried = (rounded(0.1f * static_cast<float>(k)) + static_cast<float>(largest)) / extreme, error = error_of(tried);
    if (error < best) best = error, inverse = tried;
  }
  int q[32];
  detail::ScaleSums sums;
  for (Index i = 0; i < n; ++i) {
    q[i] = rounded_code(inverse * x[i], 0, largest);
    sums.add(w[i], x[i], static_cast<float>(q[i]));
  }
  detail::descend(
      x, [w](Index i) { return w[i]; }, n, 0, largest, q, sums);
  for (Index i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(q[i]);
  return sums.qq > 0 ? sums.xq / sums.qq : 0.0f;
}

LOWRANK_INLINE int nearest_value(const std::array<float, 16>& values, float t) {
  int place = 0;
  for (std::size_t i = 1; i < 16; ++i) place += t + t >= values[i - 1] + values[i];
  return place;
}

LOWRANK_INLINE float search_values(const float* x, const float* w, Index n, const std::array<float, 16>& values) {
  const float extreme = detail::extreme(x, n);
  if (std::abs(extreme) < least_magnitude) return 0;
  const auto sums_of = [&](float inverse) {
    detail::ScaleSums sums;
    for (Index i = 0; i < n; ++i) {
      const float value = values[static_cast<std::size_t>(nearest_value(values, inverse * x[i]))], wv = rounded(w[i] * value);
      sums.xq += rounded(wv * x[i]), sums.qq += rounded(wv * value);
    }
    return sums;
  };
  detail::ScaleSums sums = sums_of(1 / (-extreme / values[0]));
  float scale = sums.qq > 0 ? sums.xq / sums.qq : 0.0f, best = scale * sums.xq;
  for (int k = -7; k <= 7; ++k) {
    sums = sums_of((static_cast<float>(k) + values[0]) / extreme);
    if (sums.is_above(best)) scale = sums.xq / sums.qq, best = scale * sums.xq;
  }
  return scale;
}

LOWRANK_INLINE float sum_of_squares(const float* x, Index n) {
  float sum = 0;
  for (Index i = 0; i < n; ++i) sum += rounded(x[i] * x[i]);
  return sum;
}

LOWRANK_INLINE float weigh(const float* x, const float* importance, Index n, float mean_square, float* w) {
  float sum = 0;
  for (Index i = 0; i < n; ++i) {
    w[i] = importance[i] * std::sqrt(mean_square + rounded(x[i] * x[i]));
    sum += rounded(w[i]);
  }
  return sum;
}

}  // namespace lowrank::inline LOWRANK_ABI::quant
LOWRANK_IEEE_END
