#pragma once

/// The border between the test, which a plain C++ compiler sees, and the device: vectors and packed matrices cross it, no CUDA type does.

#include <vector>

#include <lowrank/cuda/choose.hpp>
#include <lowrank/cuda/packed.hpp>

namespace device {

using Floats = std::vector<float>;

/// Y, dX and the factors' gradients of a low-rank layer; repeats: a second pass gave the same bits.
struct LayerResult {
  Floats y, dx, da, db;
  bool repeats = false;
};
LayerResult run_layer(const lowrank::cuda::PackedMatrix& base, const Floats& a, const Floats& b, float scale, const Floats& x,
                      const Floats& g, int tokens);

/// W X + adapter · H, or turned, by one path; adapter is B [out, rank], or turned A [rank, in]. Nothing where the device has no such path.
Floats run_path(const lowrank::cuda::PackedMatrix& base, lowrank::cuda::ProductPath path, bool turned, const Floats& adapter, int rank,
                const Floats& x, const Floats& h, int tokens);

struct AttentionSizes {
  int heads, kv_heads, head_size, batch, queries, keys;
};
struct AttentionResult {
  Floats y, log_sum_exp, dq, dk, dv;
};
AttentionResult run_attention(const AttentionSizes& sizes, const Floats& q, const Floats& k, const Floats& v, const Floats& g);

/// Forward alone, as launch_attention chooses: for one query the keys in pieces.
Floats run_attention_forward(const AttentionSizes& sizes, const Floats& q, const Floats& k, const Floats& v);

struct NormResult {
  Floats y, dx;
};
NormResult run_norm(const Floats& x, const Floats& weight, const Floats& g, int tokens, float epsilon);

struct SwigluResult {
  Floats y, dgate, dup;
};
SwigluResult run_swiglu(const Floats& gate, const Floats& up, const Floats& g);

struct LossResult {
  Floats losses, gradient;
};
LossResult run_cross_entropy(const Floats& logits, const std::vector<std::int32_t>& targets, float share);

/// Fits B A X to a target by AdamW, every step but the first a recorded graph; |Y − target|² before and after.
struct FitResult {
  float before = 0, after = 0;
};
FitResult fit(const lowrank::cuda::PackedMatrix& base, const Floats& a, const Floats& b, const Floats& x, const Floats& target, int tokens,
              int steps);

}  // namespace device
