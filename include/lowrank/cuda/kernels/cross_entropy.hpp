#pragma once

#include <cmath>
#include <cstdint>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// Cross-entropy of a slice of logits [vocabulary, count]: loss[i] = −log softmax(column i)[target i], and in place of the logits its
/// gradient, share · (softmax − onehot), if asked for; a negative target is ignored: loss and gradient are 0. A block of 256 threads a
/// token; two passes over a column for the loss, one more for the gradient. The whole [vocabulary, tokens] never exists: W X, this, Wᵀ of
/// it, slice after slice.
struct CrossEntropySlice {
  static constexpr int most_threads = 256;
  float* logits = nullptr;
  const std::int32_t* targets = nullptr;  ///< [count], inside the vocabulary or negative
  int vocabulary = 0, count = 0;
  float share = 0;  ///< 1 / the number of counted tokens of the batch
  bool wants_gradient = false;
  float* losses = nullptr;  ///< [count]

  LaunchShape shape() const { return {.x = static_cast<unsigned>(count), .threads = most_threads, .shared_bytes = 16 * sizeof(float)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    float* const column = logits + static_cast<Index>(t.block_x()) * vocabulary;
    float* const scratch = &shared_as<float>(t);
    const int target = targets[t.block_x()];
    if (target < 0) return ignore(t, column);
    float largest = -INFINITY, sum = 0;
    for (int i = t.thread(); i < vocabulary; i += t.threads()) largest = std::fmax(largest, column[i]);
    largest = block_max(t, largest, scratch);
    for (int i = t.thread(); i < vocabulary; i += t.threads()) sum += std::exp(column[i] - largest);
    sum = block_sum(t, sum, scratch);
    if (t.thread() == 0) losses[t.block_x()] = (largest - column[target]) + std::log(sum);
    if (!wants_gradient) return;
    t.sync();  // the target's logit has been read
    const float factor = share / sum;
    for (int i = t.thread(); i < vocabulary; i += t.threads())
      column[i] = std::exp(column[i] - largest) * factor - (i == target ? share : 0.0f);
  }

 private:
  template <class Simt>
  LOWRANK_DEVICE void ignore(Simt& t, float* column) const {
    if (t.thread() == 0) losses[t.block_x()] = 0;
    for (int i = t.thread(); wants_gradient && i < vocabulary; i += t.threads()) column[i] = 0;
  }
};

/// total += Σ x in double, in a fixed order. One block of 256 threads.
struct AddToTotal {
  static constexpr int most_threads = 256;
  const float* x = nullptr;
  Index size = 0;
  double* total = nullptr;

  LaunchShape shape() const { return {.threads = most_threads, .shared_bytes = most_threads * sizeof(double)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    double* const parts = &shared_as<double>(t);
    double sum = 0;
    for (Index i = t.thread(); i < size; i += most_threads) sum += static_cast<double>(x[i]);
    parts[t.thread()] = sum;
    t.sync();
    if (t.thread() != 0) return;
    for (int i = 1; i < most_threads; ++i) sum += parts[i];
    *total += sum;
  }
};

/// y = share · total, as a float: the mean of the losses. One thread.
struct StoreShare {
  static constexpr int most_threads = 32;
  const double* total = nullptr;
  double share = 0;
  float* y = nullptr;

  LaunchShape shape() const { return {.threads = most_threads}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    if (t.thread() == 0) *y = static_cast<float>(share * *total);
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
