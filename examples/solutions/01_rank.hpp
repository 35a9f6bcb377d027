#pragma once

// Solutions of chapter 1, with the reason in a line or two.

#include <algorithm>
#include <cmath>

// 1a, derivation. The largest rank r for which two factors [m, r] and [r, n] hold fewer numbers than the matrix [m, n]; 0 if none does.
// => r (m + n) < m n, strictly, so that a rank that just breaks even does not count.
inline long largest_saving_rank([[maybe_unused]] long m, [[maybe_unused]] long n) { return (m * n - 1) / (m + n); }

// 1b, prediction. The rank of the element-wise product of two matrices [m, n] of ranks p and q whose factors are random.
// Think of the product of two outer products before you measure.
// => (b aᵀ) ∘ (d cᵀ) = (b ∘ d) (a ∘ c)ᵀ is one outer product, and there are p q of them; no matrix has more than min(m, n).
inline long rank_of_elementwise_product([[maybe_unused]] long p, [[maybe_unused]] long q, [[maybe_unused]] long m,
                                        [[maybe_unused]] long n) {
  return std::min({p * q, m, n});
}
