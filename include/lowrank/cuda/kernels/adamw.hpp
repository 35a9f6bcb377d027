#pragma once

/// The optimizer over all parameters of a model in three launches, whatever their number: norm of the gradients (two), step (one).

#include <cmath>

#include <lowrank/cuda/kernels/simt.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

/// One parameter tensor; its elements are cut into blocks of `elements_of_block`, the first of which is `first_block` of the launch.
struct OptimizedTensor {
  float *value = nullptr, *grad = nullptr, *first = nullptr, *second = nullptr;
  Index size = 0;
  int first_block = 0;
};

/// The numbers that change from step to step; in device memory, so that a captured graph reads new ones each time it is launched.
struct AdamWNumbers {
  float decay = 1, rate = 0, correction = 1, beta2 = 0, epsilon = 0, toward1 = 1, toward2 = 1;
};

inline constexpr int elements_of_block = 1024;

/// Numbers the blocks of tensors, in order; returns how many there are.
inline int number_blocks(OptimizedTensor* tensors, int count) {
  int blocks = 0;
  for (int i = 0; i < count; ++i) {
    tensors[i].first_block = blocks;
    blocks += static_cast<int>(ceil_div(tensors[i].size, elements_of_block));
  }
  return blocks;
}

namespace detail {

/// The tensor that a block works on: the last whose first block is not after it and that has elements.
LOWRANK_DEVICE const OptimizedTensor& tensor_of(const OptimizedTensor* tensors, int count, int block) {
  int low = 0, high = count;  // tensors[low].first_block ≤ block < tensors[high].first_block
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (tensors[middle].first_block <= block)
      low = middle;
    else
      high = middle;
  }
  return tensors[low];
}

/// Σ of a number a thread, in the order of the threads; valid in thread 0. parts holds a number a thread.
template <class Simt>
LOWRANK_DEVICE double ordered_sum(Simt& t, double value, double* parts) {
  parts[t.thread()] = value;
  t.sync();
  double sum = 0;
  if (t.thread() == 0)
    for (int i = 0; i < t.threads(); ++i) sum += parts[i];
  return sum;
}

}  // namespace detail

/// partials[block] = Σ g² of the block's elements, in double. Grid: blocks of all tensors, 256 threads.
struct SquaredSums {
  static constexpr int most_threads = 256;
  const OptimizedTensor* tensors = nullptr;
  int count = 0, blocks = 0;
  double* partials = nullptr;

  LaunchShape shape() const {
    return {.x = static_cast<unsigned>(blocks), .threads = most_threads, .shared_bytes = most_threads * sizeof(double)};
  }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const OptimizedTensor& tensor = detail::tensor_of(tensors, count, t.block_x());
    const Index begin = static_cast<Index>(t.block_x() - tensor.first_block) * elements_of_block;
    double sum = 0;
    for (Index i = begin + t.thread(); i < begin + elements_of_block && i < tensor.size; i += most_threads)
      sum += static_cast<double>(tensor.grad[i]) * static_cast<double>(tensor.grad[i]);
    sum = detail::ordered_sum(t, sum, &shared_as<double>(t));
    if (t.thread() == 0) partials[t.block_x()] = sum;
  }
};

/// norm = √Σ partials, and the factor that brings it to max_norm as clip_gradient_norm does: max_norm / (norm + 1e-6) if that is below 1,
/// else 1, also where the norm is not finite. One block.
struct ClipFactor {
  static constexpr int most_threads = 256;
  const double* partials = nullptr;
  int blocks = 0;
  float max_norm = 0;
  float *norm = nullptr, *factor = nullptr;

  LaunchShape shape() const { return {.threads = most_threads, .shared_bytes = most_threads * sizeof(double)}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    double sum = 0;
    for (int i = t.thread(); i < blocks; i += most_threads) sum += partials[i];
    sum = detail::ordered_sum(t, sum, &shared_as<double>(t));
    if (t.thread() != 0) return;
    const double root = std::sqrt(sum), scale = static_cast<double>(max_norm) / (root + 1e-6);
    *norm = static_cast<float>(root);
    *factor = scale < 1 && std::isfinite(root) ? static_cast<float>(scale) : 1.0f;
  }
};

/// AdamWRule for every element of every tensor; the gradient is taken times *factor, if given, and set to zero for the next step.
/// Grid: blocks of all tensors, 256 threads.
struct AdamWUpdate {
  static constexpr int most_threads = 256;
  const OptimizedTensor* tensors = nullptr;
  int count = 0, blocks = 0;
  const AdamWNumbers* numbers = nullptr;
  const float* factor = nullptr;

  LaunchShape shape() const { return {.x = static_cast<unsigned>(blocks), .threads = most_threads}; }

  template <class Simt>
  LOWRANK_DEVICE void operator()(Simt& t) const {
    const OptimizedTensor& tensor = detail::tensor_of(tensors, count, t.block_x());
    const AdamWNumbers s = *numbers;
    const float scale = factor ? *factor : 1.0f;
    const Index begin = static_cast<Index>(t.block_x() - tensor.first_block) * elements_of_block;
    for (Index i = begin + t.thread(); i < begin + elements_of_block && i < tensor.size; i += most_threads) {
      const float g = scale * tensor.grad[i];
      const float first = tensor.first[i] + s.toward1 * (g - tensor.first[i]);
      const float second = s.beta2 * tensor.second[i] + s.toward2 * g * g;
      tensor.first[i] = first;
      tensor.second[i] = second;
      tensor.value[i] = s.decay * tensor.value[i] - s.rate * first / (std::sqrt(second) / s.correction + s.epsilon);
      tensor.grad[i] = 0;
    }
  }
};

}  // namespace lowrank::inline LOWRANK_ABI::cuda
