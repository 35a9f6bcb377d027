#pragma once

#include <cmath>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Root-mean-square norm of each token, y = w ∘ x ρ with ρ = 1 / √(mean(x²) + ε), as rms_norm_forward. X, Y [n, tokens]. Grid: a block of
/// 256 threads a token.
struct RmsNormForward {
  static constexpr int most_threads = 256;
  const float *x = nullptr, *weight = nullptr;
  int n = 0, tokens = 0;
  float epsilon = 0;
  float* y = nullptr;

  LaunchShape shape() const { return {.x = static_cast<unsigned>(tokens), .threads = most_threads, .shared_bytes = 16 * sizeof(float)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const float* const from = x + static_cast<Index>(t.block_x()) * n;
    float squares = 0;
    for (int i = t.thread(); i < n; i += t.threads()) squares += from[i] * from[i];
    const float rho = 1.0f / std::sqrt(block_sum(t, squares, &shared_as<float>(t)) / static_cast<float>(n) + epsilon);
    for (int i = t.thread(); i < n; i += t.threads()) y[static_cast<Index>(t.block_x()) * n + i] = from[i] * rho * weight[i];
  }
};

/// dx = ρ (w∘g) − x ρ³ mean(w∘g∘x), as rms_norm_backward; rho [tokens], if given, is kept for the weight's gradient. A block a token.
struct RmsNormBackward {
  static constexpr int most_threads = 256;
  const float *x = nullptr, *weight = nullptr, *g = nullptr;
  int n = 0, tokens = 0;
  float epsilon = 0;
  float *dx = nullptr, *rho = nullptr;

  LaunchShape shape() const { return {.x = static_cast<unsigned>(tokens), .threads = most_threads, .shared_bytes = 16 * sizeof(float)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const Index at = static_cast<Index>(t.block_x()) * n;
    float* const scratch = &shared_as<float>(t);
    float squares = 0, products = 0;
    for (int i = t.thread(); i < n; i += t.threads()) {
      squares += x[at + i] * x[at + i];
      products += weight[i] * g[at + i] * x[at + i];
    }
    const float r = 1.0f / std::sqrt(block_sum(t, squares, scratch) / static_cast<float>(n) + epsilon);
    const float along = r * r * r * (block_sum(t, products, scratch) / static_cast<float>(n));
    for (int i = t.thread(); i < n; i += t.threads()) dx[at + i] = r * weight[i] * g[at + i] - along * x[at + i];
    if (rho && t.thread() == 0) rho[t.block_x()] = r;
  }
};

/// dw += Σₜ ρ g∘x, tokens in order. A thread a row; grid: n / 128.
struct RmsNormWeightGradient {
  static constexpr int most_threads = 128;
  const float *x = nullptr, *g = nullptr, *rho = nullptr;
  int n = 0, tokens = 0;
  float* dweight = nullptr;

  LaunchShape shape() const { return {.x = static_cast<unsigned>(ceil_div(n, most_threads)), .threads = most_threads}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const int i = t.block_x() * most_threads + t.thread();
    if (i >= n) return;
    float sum = 0;
    for (Index token = 0; token < tokens; ++token) sum += rho[token] * g[token * n + i] * x[token * n + i];
    dweight[i] += sum;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
