#pragma once

/// Random matrices in every format that products are measured with.

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant.hpp>

namespace benchmarks {

using lowrank::AnyMatrix;
using lowrank::Index;

/// Uniform in [-1, 1), the same numbers each time.
template <class Matrix>
Matrix random_matrix(Index rows, Index cols, std::uint64_t seed) {
  Matrix matrix(rows, cols);
  const lowrank::Random random(seed);
  auto* numbers = matrix.data();
  lowrank::parallel_ranges(matrix.size(), 1 << 16, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) numbers[i] = 2.0f * random.uniform_at(static_cast<std::uint64_t>(i)) - 1.0f;
  });
  return matrix;
}

template <class Quantization>
AnyMatrix quantized(const lowrank::Weight<float>& w) {
  return AnyMatrix(lowrank::quantize<Quantization>(w));
}

template <class Element>
AnyMatrix dense(const lowrank::Weight<float>& w) {
  auto buffer = lowrank::Buffer::allocate(static_cast<std::size_t>(w.size()) * sizeof(Element));
  std::transform(w.data(), w.data() + w.size(), buffer.mutable_as<Element>(), [](float x) { return static_cast<Element>(x); });
  return AnyMatrix(lowrank::StoredMatrix<Element>(w.rows(), w.cols(), std::move(buffer)));
}

/// Blocks of random codes with scales of the usual size; only the shape is that of w. A block begins with d and dmin.
inline AnyMatrix random_q4_k(const lowrank::Weight<float>& w) {
  using lowrank::Q4K;
  lowrank::Random random(1);
  auto buffer = lowrank::Buffer::allocate(static_cast<std::size_t>(w.size() / Q4K::block * Q4K::block_bytes));
  auto* words = buffer.mutable_as<std::uint32_t>();
  for (std::size_t i = 0; i < buffer.size() / 4; ++i) words[i] = random.bits();
  const lowrank::Half scales[] = {lowrank::Half(0.002f), lowrank::Half(0.02f)};
  for (std::size_t at = 0; at < buffer.size(); at += Q4K::block_bytes) std::memcpy(buffer.mutable_as<std::byte>() + at, scales, 4);
  return AnyMatrix(lowrank::QuantizedMatrix<Q4K>(w.rows(), w.cols(), std::move(buffer)));
}

struct Format {
  std::string name;
  AnyMatrix (*make)(const lowrank::Weight<float>& w);
  bool is_quantized;
};

inline const std::vector<Format>& formats() {
  using namespace lowrank;
  static const std::vector<Format> all{{"nf4", quantized<Nf4<64>>, true}, {"nf4_dq", quantized<Nf4<64, DoubleQuant>>, true},
                                       {"q4_1", quantized<Q4_1>, true},   {"q4_k", random_q4_k, true},
                                       {"q8_0", quantized<Q8_0>, true},   {"fp32", dense<float>, false},
                                       {"bf16", dense<BFloat16>, false}};
  return all;
}

/// The same matrix [rows, cols] at several places, `bytes` together, so that using them in turn reads memory and no cache.
///
/// Only the last ones are kept; measurements of one format and shape follow each other.
inline const std::vector<AnyMatrix>& copies(const Format& format, Index rows, Index cols, std::size_t bytes) {
  static std::vector<AnyMatrix> kept;
  static std::string key;
  const std::string wanted = lowrank::concat(format.name, ' ', rows, ' ', cols);
  if (key == wanted) return kept;
  kept.clear();
  const auto w = random_matrix<lowrank::Weight<float>>(rows, cols, 1);
  do kept.push_back(format.make(w));
  while (kept.size() * kept.back().bytes() < bytes);
  key = wanted;
  return kept;
}

}  // namespace benchmarks
