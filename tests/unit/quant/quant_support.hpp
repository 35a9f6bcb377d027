#pragma once

#include <algorithm>
#include <vector>

#include <lowrank/core/buffer.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>

namespace quant_test {

using namespace lowrank;

inline Weight<float> normal(Index rows, Index cols, std::uint64_t seed = 7) {
  Random random(seed);
  Weight<float> w(rows, cols);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = random.normal();
  return w;
}

inline Buffer to_buffer(const std::vector<std::uint8_t>& bytes) {
  Buffer buffer = Buffer::allocate(bytes.size());
  std::copy(bytes.begin(), bytes.end(), buffer.mutable_as<std::uint8_t>());
  return buffer;
}

}  // namespace quant_test
