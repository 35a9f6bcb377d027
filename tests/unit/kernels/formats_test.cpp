#include <doctest/doctest.h>

#include <string>

#include <lowrank/kernels/driver/gemm.hpp>
#include <lowrank/quant.hpp>

#include "../../support/golden.hpp"
#include "fixtures.hpp"

using namespace fixtures;

namespace {

/// The description of a format says what its own decode says, on every target, for windows inside blocks too.
template <class Format>
void check_description(const QuantizedMatrix<Format>& q) {
  const BlockSource source = q.source();
  const Index rows = q.rows(), cols = q.cols();
  const Weight<float> expected = dequantize(q);
  for_each_target([&](const kernels::Target&) {
    CAPTURE(std::string(Format::name));
    CAPTURE(std::string(kernels::target_name()));
    for (auto [col, length] : {std::pair<Index, Index>{0, cols}, {16, cols - 16}, {3, cols - 5}, {cols - 1, 1}}) {
      std::vector<float> out(static_cast<std::size_t>(rows * length));
      kernels::current_target().decode_blocks(source, 0, rows, col, length, out.data(), length);
      Index wrong = 0;
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < length; ++j) {
          const double want = static_cast<double>(expected(i, col + j)),
                       have = static_cast<double>(out[static_cast<std::size_t>(i * length + j)]);
          // slope · number + offset, fused or not: the offset of Q4_1 and Q4_K may be larger than the value
          const double largest = 16.0 * std::abs(want) + static_cast<double>(expected.cwiseAbs().maxCoeff());
          wrong += !(std::abs(want - have) <= 0x1p-23 * largest) && (is_finite(want) || is_finite(have)) && want != have;
        }
      CHECK(wrong == 0);
    }
  });
}

template <class Format>
void check_golden() {
  const test::GoldenFile file(LOWRANK_GOLDEN_DIR "/gguf_blocks.safetensors");
  const auto bytes = file.bytes(std::string(Format::name) + ".bytes");
  Buffer buffer = Buffer::allocate(bytes.size());
  std::copy(bytes.begin(), bytes.end(), buffer.mutable_as<std::uint8_t>());
  check_description(QuantizedMatrix<Format>(4, 512, buffer));
}

template <class Format>
void check_quantized(Index rows, Index cols) {
  const auto w = random_floats(rows * cols, 1);
  check_description(quantize<Format>(DenseSource<float>(w.data(), rows, cols)));
}

}  // namespace

TEST_CASE("ggml's formats are described to the kernels as they decode") {
  check_golden<Q4_0>();
  check_golden<Q4_1>();
  check_golden<Q8_0>();
  check_golden<Q4K>();
  check_golden<Iq4Nl>();
  check_golden<Iq4Xs>();
}

TEST_CASE("rows that end inside a block, blocks that straddle rows") {
  check_quantized<Q4_1>(19, 77);
  check_quantized<Q8_0>(19, 40);
  check_quantized<Nf4<64>>(19, 77);
  check_quantized<Nf4<64, DoubleQuant>>(35, 128);
  check_quantized<Fp4<32>>(3, 96);
}
