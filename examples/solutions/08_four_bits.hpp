#pragma once

// Solutions of chapter 8, with the reason in a line or two.

#include <cmath>

// 8a, derivation. Bits a weight: a code of 4 bits, for each block a scale of `scale_bits`, and, if `nested` is not 0, one more fp32 number
// for each `nested` scales.
// => Each part, divided by the weights that share it.
inline double bits_per_weight([[maybe_unused]] int block, [[maybe_unused]] int scale_bits, [[maybe_unused]] int nested) {
  const double nested_bits = nested == 0 ? 0.0 : 32.0 / nested;
  return 4 + (scale_bits + nested_bits) / block;
}

// 8b, prediction. Weights uniform in [-1, 1], sixteen even values from -absmax to absmax, blocks of B. The root mean square error, to 3 %?
// => The largest of B numbers that are uniform in [0, 1] has the mean square B / (B + 2); the step is 2/15 of it, the error step / √12.
inline double even_rmse([[maybe_unused]] int block) {
  const double b = block;
  return 2.0 / 15 / std::sqrt(12.0) * std::sqrt(b / (b + 2));
}
