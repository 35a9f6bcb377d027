#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>

namespace transformer {

using lowrank::Index;

/// How the next token is drawn from the logits.
struct SamplerOptions {
  float temperature = 0;  ///< 0: the most likely token
  Index top_k = 0;        ///< keep the k most likely; 0 keeps all
  float top_p = 1;        ///< keep the most likely that hold this share of the probability
  std::uint64_t seed = 0;
};

/// Draws tokens: softmax(logits / temperature), cut to top_k and top_p, renormalized.
class Sampler {
 public:
  /// Throws ValueError for what is no temperature, number or share.
  explicit Sampler(SamplerOptions options);

  /// logits [vocabulary]; cost: one pass, and a sort of the kept ones when sampling.
  std::int32_t operator()(const lowrank::Column<float>& logits);

 private:
  /// Index of a weight, by its share of the most likely ones that hold top_p of the sum; weights fall.
  std::size_t draw(const std::vector<double>& weights);

  SamplerOptions options_;
  lowrank::Random random_;
};

}  // namespace transformer
