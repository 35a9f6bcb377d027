#pragma once

/// The border between the test, which a plain C++ compiler sees, and the device: vectors and packed matrices cross it, no CUDA type does.

#include <vector>

#include <lowrank/cuda/choose.hpp>
#include <lowrank/cuda/packed.hpp>

namespace device {

using Floats = std::vector<float>;

struct ProductResult {
  Floats y;
  bool repeats = false;  ///< a second run gave the same bits
};
/// W X + adapter · H, or turned, by the path that multiply chooses; adapter is B [out, rank], or turned A [rank, in].
ProductResult run_product(const lowrank::cuda::PackedMatrix& base, bool turned, const Floats& adapter, int rank, const Floats& x,
                          const Floats& h, int tokens);

/// W X + adapter · H, or turned, by one path. Nothing where the device has no such path.
Floats run_path(const lowrank::cuda::PackedMatrix& base, lowrank::cuda::ProductPath path, bool turned, const Floats& adapter, int rank,
                const Floats& x, const Floats& h, int tokens);

/// C [rows, cols] + scale · L Rᵀ over the tokens, for C of ones.
Floats run_outer(const Floats& left, const Floats& right, int rows, int cols, int tokens, float scale);

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

}  // namespace device
