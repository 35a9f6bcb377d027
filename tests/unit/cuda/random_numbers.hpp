#pragma once

#include <vector>

#include <lowrank/core/random.hpp>

namespace cuda_test {

using namespace lowrank;

inline std::vector<float> random_numbers(Index count, std::uint64_t stream, float low = -1, float high = 1) {
  Random random(7, stream);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (float& x : numbers) x = static_cast<float>(random.uniform(low, high));
  return numbers;
}

}  // namespace cuda_test
