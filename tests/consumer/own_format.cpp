// A stranger's 4-bit format: quantized, multiplied, adapted, merged: docs/your_own_format.md.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/autograd/functions.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/row_blocks.hpp>

namespace mine {

using namespace lowrank;

/// Powers of two: w = d · table[q], 32 weights in 18 bytes, 4.5 bits a weight. A block is a half d, the largest magnitude, then the
/// codes: weight j in the low nibble of byte 2 + j, weight j + 16 in the high one. Bits 0 to 2 of a code are k: 2^-k, or 0 for k = 7; bit 3
/// is the sign.
struct Log4 {
  static constexpr std::string_view name = "LOG4";
  static constexpr Index block = 32, block_bytes = 18;
  static constexpr double bits_per_weight = 8.0 * block_bytes / block;
  using Storage = RowBlocks<Log4>;

  static constexpr std::array<float, 16> table = {1,  0.5f,  0.25f,  0.125f,  0.0625f,  0.03125f,  0.015625f,  0,
                                                  -1, -0.5f, -0.25f, -0.125f, -0.0625f, -0.03125f, -0.015625f, 0};

  /// What kernels multiply by.
  static void describe(BlockSource& s) {
    s.order = CodeOrder::nibble_halves;
    s.table = table;
    s.codes_at = 2;
    s.read_scales = HalfScales::read;  // at byte 0, no offset
  }

  /// One block from count <= 32 numbers; false where they cannot be stored.
  static bool encode(const float* x, Index count, std::byte* to) {
    const Half scale{std::abs(*std::max_element(x, x + count, [](float a, float b) { return std::abs(a) < std::abs(b); }))};
    const auto d = static_cast<float>(scale);
    quant::store(to, scale);
    for (Index j = 0; j < block / 2; ++j) to[2 + j] = quant::nibbles(code_of(x, count, j, d), code_of(x, count, j + block / 2, d));
    return std::isfinite(d);
  }

  /// The 32 numbers of a block.
  static void decode(const std::byte* from, float* out) {
    const float d = quant::load<Half>(from);
    for (Index j = 0; j < block / 2; ++j) {
      const auto pair = static_cast<std::size_t>(from[2 + j]);
      out[j] = d * table[pair & 15], out[j + block / 2] = d * table[pair >> 4];
    }
  }

 private:
  static int code_of(const float* x, Index count, Index i, float d) {
    if (i >= count || d == 0.0f) return 7;  // padding is zero
    const float steps = -std::log2(std::abs(x[i]) / d);
    const int k = steps < 6.5f ? std::max(0, static_cast<int>(std::lround(steps))) : 7;
    return k | (x[i] < 0 ? 8 : 0);
  }
};
static_assert(QuantFormat<Log4> && WritableFormat<Log4>);

}  // namespace mine

int main() {
  using namespace lowrank;
  Weight<float> w(64, 80);  // rows end inside a block
  fill_normal(w, 0.1, Random(1));
  const QuantizedMatrix<mine::Log4> q = quantize<mine::Log4>(w);
  const QuantizationError error = quantization_error(w, q);
  std::printf("%.2f bits a weight, relative error %.3f\n", error.bits_per_weight, error.relative);

  Activation<float> x(80, 16), target(64, 16);
  fill_normal(x, 1, Random(2)), fill_normal(target, 1, Random(3));
  const QuantizedLinear base{q};
  const Activation<float> expected = dequantize(q) * x;
  const float distance = (base(x) - expected).norm() / expected.norm();
  std::printf("product: off by %.1e\n", static_cast<double>(distance));

  LoraLinear layer{base, {.rank = 4, .alpha = 8}};
  AdamW<float> optimizer{parameters(layer), {.learning_rate = 0.02}};
  const auto loss_now = [&] { return (std::as_const(layer)(x) - target).squaredNorm() / static_cast<float>(target.size()); };
  const float before = loss_now();
  for (int step = 0; step < 40; ++step) {
    optimizer.zero_grad();
    Tape<float> tape;
    tape.backward(mse(layer(tape.input(x)), target));
    optimizer.step();
  }
  const float trained = loss_now();
  const MergeReport report = merge(layer);
  std::printf("loss %.3f -> %.3f; merged, %.0f %% of the update survived\n", static_cast<double>(before), static_cast<double>(trained),
              100 * report.survived);
  unmerge(layer);
  const bool right = error.relative < 0.25 && distance < 1e-6f && trained < 0.7f * before && loss_now() == trained && report.survived > 0.3;
  return right ? 0 : 1;
}
