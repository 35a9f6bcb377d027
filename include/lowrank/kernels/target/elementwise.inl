// The loops of elementwise.hpp, in terms of the including target's Floats: load (of bfloat16, too), store, all, + − * /, fma(a, b, c) = a b
// + c, largest, sqrt, round, times_power(x, n) = x 2ⁿ, sum_of, largest_of, twice (each of size / 2 numbers two times), swapped
// (neighbours), store_upper (the upper 16 bits of each). No include guard: each target includes it once, inside its namespace and region.

/// Runs an operation on whole vectors, then once on what is left.
template <class Operation>
void each(Index n, Operation& operation) {
  Index i = 0;
  for (; i + Floats::size <= n; i += Floats::size) operation.at(i, Whole{});
  if (i < n) operation.at(i, First{n - i});
}

/// The nearest bfloat16 of each number, ties to even; NaN stays NaN. The rule of core/types.hpp, for vectors.
inline Floats nearest_bfloat16(Floats x) {
  typedef std::uint32_t Words __attribute__((vector_size(sizeof(Floats))));
  typedef std::int32_t Signed __attribute__((vector_size(sizeof(Floats))));
  const Words bits = __builtin_bit_cast(Words, x), nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
#if defined(LOWRANK_ABI_IS_RELAXED)
  const Signed is_number = __builtin_bit_cast(Signed, bits & 0x7fffffffu) <= 0x7f800000;
#else  // an instruction less
  typedef float Numbers __attribute__((vector_size(sizeof(Floats))));
  const Numbers number = __builtin_bit_cast(Numbers, x);
  const Signed is_number = number == number;  // NOLINT(misc-redundant-expression): NaN is not itself
#endif
  const Words kept = is_number ? nearest : bits | 0x400000u;
  return __builtin_bit_cast(Floats, kept & 0xffff0000u);
}

/// e^x by e^x = 2ⁿ e^r, n = round(x / ln 2), and a polynomial for e^r, |r| ≤ ln 2 / 2 (Cephes, Moshier 1989). NaN stays NaN.
inline Floats exponential_of(Floats x) {
  x = smallest(Floats::all(88.8f), largest(Floats::all(-87.33654f), x));
  const Floats n = round(x * Floats::all(1.44269504088896341f));
  Floats r = fma(n, Floats::all(-0.693359375f), x);
  r = fma(n, Floats::all(2.12194440e-4f), r);
  Floats p = fma(Floats::all(1.9875691500e-4f), r, Floats::all(1.3981999507e-3f));
  p = fma(p, r, Floats::all(8.3334519073e-3f));
  p = fma(p, r, Floats::all(4.1665795894e-2f));
  p = fma(p, r, Floats::all(1.6666665459e-1f));
  p = fma(p, r, Floats::all(5.0000001201e-1f));
  return times_power(fma(p * r, r, r + Floats::all(1.0f)), n);
}

/// 1 / (1 + e⁻ˣ).
inline Floats sigmoid_of(Floats x) {
  const Floats one = Floats::all(1.0f);
  return one / (one + exponential_of(Floats::all(0.0f) - x));
}

struct Largest {
  const float* x;
  float first;
  Floats value;
  template <class Part>
  void at(Index i, Part part) {
    value = largest(value, Floats::load(x + i, part, first));
  }
};
inline float largest_in(const float* x, Index n) {
  if (n == 0) return -std::numeric_limits<float>::infinity();
  Largest operation{x, x[0], Floats::all(x[0])};
  each(n, operation);
  return largest_of(operation.value);
}

struct Sum {
  const float* x;
  Floats sum = Floats::all(0.0f);
  template <class Part>
  void at(Index i, Part part) {
    sum = sum + Floats::load(x + i, part);
  }
};
inline float sum_in(const float* x, Index n) {
  Sum operation{x};
  each(n, operation);
  return sum_of(operation.sum);
}

struct SumOfSquares {
  const float* x;
  Floats sum = Floats::all(0.0f);
  template <class Part>
  void at(Index i, Part part) {
    const Floats v = Floats::load(x + i, part);
    sum = fma(v, v, sum);
  }
};
inline float sum_of_squares(const float* x, Index n) {
  SumOfSquares operation{x};
  each(n, operation);
  return sum_of(operation.sum);
}

struct Exponential {
  const float* x;
  Floats shift;
  float* out;
  Floats sum = Floats::all(0.0f);
  template <class Part>
  void at(Index i, Part part) {
    const Floats e = exponential_of(Floats::load(x + i, part, std::numeric_limits<float>::lowest()) - shift);
    e.store(out + i, part);
    sum = sum + e;
  }
};
inline float exponential(const float* x, float shift, Index n, float* out) {
  Exponential operation{x, Floats::all(shift), out};
  each(n, operation);
  return sum_of(operation.sum);
}

struct Scale {
  Floats factor;
  float* x;
  template <class Part>
  void at(Index i, Part part) {
    (Floats::load(x + i, part) * factor).store(x + i, part);
  }
};
inline void scale(float factor, Index n, float* x) {
  Scale operation{Floats::all(factor), x};
  each(n, operation);
}

struct Add {
  const float* x;
  Floats factor;
  float* y;
  template <class Part>
  void at(Index i, Part part) {
    fma(Floats::load(x + i, part), factor, Floats::load(y + i, part)).store(y + i, part);
  }
};
inline void add(const float* x, float factor, Index n, float* y) {
  Add operation{x, Floats::all(factor), y};
  each(n, operation);
}

struct Weighted {
  const float *x, *w;
  Floats factor;
  float* y;
  template <class Part>
  void at(Index i, Part part) {
    (Floats::load(x + i, part) * factor * Floats::load(w + i, part)).store(y + i, part);
  }
};
inline void weighted(const float* x, const float* w, float factor, Index n, float* y) {
  Weighted operation{x, w, Floats::all(factor), y};
  each(n, operation);
}

struct TripleSum {
  const float *w, *g, *x;
  Floats sum = Floats::all(0.0f);
  template <class Part>
  void at(Index i, Part part) {
    sum = fma(Floats::load(w + i, part) * Floats::load(g + i, part), Floats::load(x + i, part), sum);
  }
};
inline float triple_sum(const float* w, const float* g, const float* x, Index n) {
  TripleSum operation{w, g, x};
  each(n, operation);
  return sum_of(operation.sum);
}

struct NormGradient {
  const float *w, *g, *x;
  Floats rho, along;
  float* y;
  template <class Part>
  void at(Index i, Part part) {
    const Floats straight = rho * Floats::load(w + i, part) * Floats::load(g + i, part);
    (straight - along * Floats::load(x + i, part)).store(y + i, part);
  }
};
inline void norm_gradient(const float* w, const float* g, const float* x, float rho, float along, Index n, float* y) {
  NormGradient operation{w, g, x, Floats::all(rho), Floats::all(along), y};
  each(n, operation);
}

struct Swiglu {
  const float *gate, *up;
  float* y;
  template <class Part>
  void at(Index i, Part part) {
    const Floats v = Floats::load(gate + i, part);
    (v * sigmoid_of(v) * Floats::load(up + i, part)).store(y + i, part);
  }
};
inline void swiglu(const float* gate, const float* up, Index n, float* y) {
  Swiglu operation{gate, up, y};
  each(n, operation);
}

struct SwigluBackward {
  const float *gate, *up, *g;
  float *dgate, *dup;
  template <class Part>
  void at(Index i, Part part) {
    const Floats one = Floats::all(1.0f), v = Floats::load(gate + i, part), gradient = Floats::load(g + i, part), s = sigmoid_of(v);
    const Floats slope = s * fma(v, one - s, one);
    const Floats through_up = gradient * Floats::load(up + i, part);
    (gradient * v * s).store(dup + i, part);
    (through_up * slope).store(dgate + i, part);
  }
};
inline void swiglu_backward(const float* gate, const float* up, const float* g, Index n, float* dgate, float* dup) {
  SwigluBackward operation{gate, up, g, dgate, dup};
  each(n, operation);
}

struct SoftmaxBackward {
  const float* x;
  Floats shift, along;
  float *y, *d;
  template <class Part>
  void at(Index i, Part part) {
    const Floats p = exponential_of(Floats::load(x + i, part) - shift);
    p.store(y + i, part);
    (p * (Floats::load(d + i, part) - along)).store(d + i, part);
  }
};
inline void softmax_backward(const float* x, float shift, float along, Index n, float* y, float* d) {
  SoftmaxBackward operation{x, Floats::all(shift), Floats::all(along), y, d};
  each(n, operation);
}

#include <lowrank/kernels/target/rows.inl>

inline void rotate_neighbours(const float* x, const float* cos, const float* sin, Index half, float direction, float* y) {
  const Floats signs = alternating(-direction, direction);
  Index j = 0;
  for (; j + Floats::size / 2 <= half && Floats::size > 1; j += Floats::size / 2) {
    const Floats pair = Floats::load(x + 2 * j, Whole{});
    fma(swapped(pair), twice(sin + j) * signs, pair * twice(cos + j)).store(y + 2 * j, Whole{});
  }
  for (; j < half; ++j) {
    const float left = x[2 * j], right = x[2 * j + 1], s = direction * sin[j];
    y[2 * j] = left * cos[j] - right * s;
    y[2 * j + 1] = right * cos[j] + left * s;
  }
}

struct RotateHalves {
  const float *x, *cos, *sin;
  Index half;
  Floats direction;
  float* y;
  template <class Part>
  void at(Index j, Part part) {
    const Floats left = Floats::load(x + j, part), right = Floats::load(x + half + j, part);
    const Floats c = Floats::load(cos + j, part), s = direction * Floats::load(sin + j, part);
    (left * c - right * s).store(y + j, part);
    fma(left, s, right * c).store(y + half + j, part);
  }
};
inline void rotate_halves(const float* x, const float* cos, const float* sin, Index half, float direction, float* y) {
  RotateHalves operation{x, cos, sin, half, Floats::all(direction), y};
  each(half, operation);
}

struct ToBfloat16 {
  const float* x;
  std::uint16_t* out;
  template <class Part>
  void at(Index i, Part part) {
    nearest_bfloat16(Floats::load(x + i, part)).store_upper(out + i, part);
  }
};
inline void to_bfloat16_bits(const float* x, Index n, std::uint16_t* out) {
  ToBfloat16 operation{x, out};
  each(n, operation);
}

struct AdamWUpdate {
  const AdamWStep& step;
  const float* g;
  float *value, *first, *second;
  template <class Part>
  void at(Index i, Part part) {
    const Floats gradient = Floats::load(g + i, part), m = Floats::load(first + i, part), p = Floats::load(value + i, part);
    const Floats new_m = fma(Floats::all(step.toward1), gradient - m, m);
    const Floats new_v = fma(Floats::all(step.beta2), Floats::load(second + i, part), Floats::all(step.toward2) * gradient * gradient);
    const Floats divisor = sqrt(new_v) / Floats::all(step.correction) + Floats::all(step.epsilon);
    new_m.store(first + i, part);
    new_v.store(second + i, part);
    (Floats::all(step.decay) * p - Floats::all(step.rate) * new_m / divisor).store(value + i, part);
  }
};
inline void adamw(const AdamWStep& step, const float* g, Index n, float* value, float* first, float* second) {
  AdamWUpdate operation{step, g, value, first, second};
  each(n, operation);
}

inline constexpr Elementwise elementwise = {.largest = largest_in,
                                            .sum = sum_in,
                                            .sum_of_squares = sum_of_squares,
                                            .exponential = exponential,
                                            .scale = scale,
                                            .add = add,
                                            .weighted = weighted,
                                            .triple_sum = triple_sum,
                                            .norm_gradient = norm_gradient,
                                            .swiglu = swiglu,
                                            .swiglu_backward = swiglu_backward,
                                            .softmax_backward = softmax_backward,
                                            .rotate_neighbours = rotate_neighbours,
                                            .rotate_halves = rotate_halves,
                                            .to_bfloat16 = to_bfloat16_bits,
                                            .adamw = adamw,
                                            .float_rows = {dots_of_columns<float>, add_weighted_rows_to_columns<float>},
                                            .bfloat16_rows = {dots_of_columns<BFloat16>, add_weighted_rows_to_columns<BFloat16>},
                                            .bfloat16_products = {dots_of_columns<BFloat16>, add_weighted_rows_to_columns<BFloat16>}};
