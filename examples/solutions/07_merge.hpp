#pragma once

// Solutions of chapter 7, with the reason in a line or two.

#include <cmath>

// 7a, derivation. Each batch of b tokens brings another adapter of rank r for a weight [m, n]. Merging it costs 2 r m n operations, keeping
// it apart 2 r (m + n) a token. Is merging for this one batch fewer operations?
// => The rank falls out: m n < b (m + n).
inline bool merging_is_cheaper([[maybe_unused]] long m, [[maybe_unused]] long n, [[maybe_unused]] long r, [[maybe_unused]] long b) {
  return m * n < b * (m + n);
}

// 7b, prediction. A merged weight is rounded to bfloat16, which has 8 significant bits. ‖rounded - w‖ / ‖w‖ for normal weights, up to 10 %?
// => In [2^e, 2^(e+1)) the error is uniform in ±2^(e-8), of variance 2^(2e-16) / 3; a mantissa that is uniform on a logarithmic scale has
// => the mean square 1.5 / ln 2.
inline double bfloat16_rounding_error() { return std::ldexp(1.0, -8) / std::sqrt(3 * 1.5 / std::log(2.0)); }
