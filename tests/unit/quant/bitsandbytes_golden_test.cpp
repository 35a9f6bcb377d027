#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <lowrank/quant.hpp>

#include "../../support/golden.hpp"
#include "quant_support.hpp"

// Bytes, scales and values against bitsandbytes' CPU path. The library follows the CUDA rule, so some differ by design; each difference
// must be one of those that TableBlocks lists, and `Differences` counts them.

using namespace lowrank;
using namespace quant_test;

namespace {

const test::GoldenFile& golden_quant4() {
  static const test::GoldenFile file(LOWRANK_GOLDEN_DIR "/quant4.safetensors");
  return file;
}

template <std::size_t Size>
std::array<float, Size> table_of(const std::string& name) {
  std::array<float, Size> table;
  std::ranges::copy(golden_quant4().floats(name), table.begin());
  return table;
}

unsigned code_at(const std::vector<std::uint8_t>& packed, std::size_t i) { return i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15u; }

struct Differences {
  int zero_block = 0;     ///< 1. codes of a zero block
  int threshold = 0;      ///< 3. FP4 at a threshold
  int sign_of_zero = 0;   ///< 4. FP4 below the first threshold
  int nested_code = 0;    ///< 5. 8-bit codes
  int other = 0;          ///< must stay 0
  int misplaced_row = 0;  ///< 6. tensors that the CPU path dequantizes with another block's scale
};

// Whether t lies within 20 ulp of a threshold of FP4.
bool near_threshold(float t) {
  return std::ranges::any_of(Fp4<>::thresholds, [&](float x) { return std::abs(std::abs(t) - x) <= 20 * 0x1p-23f * x; });
}

template <class Format>
void compare_codes(const std::vector<float>& x, const std::vector<std::uint8_t>& ours, const std::vector<std::uint8_t>& theirs,
                   const std::vector<float>& absmax, Differences& found) {
  REQUIRE(ours.size() == theirs.size());
  for (std::size_t i = 0; i < 2 * ours.size(); ++i) {
    const unsigned code = code_at(ours, i), other = code_at(theirs, i);
    if (code == other) continue;
    const float scale = absmax[i / Format::block], t = i < x.size() ? x[i] * (1.0f / scale) : 0.0f;
    if (scale == 0)
      ++found.zero_block;
    else if (Format::quant_type == "fp4" && std::abs(t) <= Fp4<>::thresholds[0] && code % 8 == 0 && other % 8 == 0)
      ++found.sign_of_zero;
    else if (Format::quant_type == "fp4" && near_threshold(t))
      ++found.threshold;
    else
      ++found.other;
  }
}

// The golden storage, read by QuantizedMatrix, against the golden values.
template <class Format>
void compare_values(const QuantizedMatrix<Format>& q, const std::vector<float>& expected, bool is_bfloat16, Differences& found) {
  const Index cols = q.cols(), block = Format::block;
  const bool misplaced = cols % block != 0 && cols % 16 == 0;
  const Weight<float> w = dequantize(q);
  const auto rounded = [&](float v) { return is_bfloat16 ? static_cast<float>(BFloat16(v)) : v; };
  const auto* codes = q.storage().codes().template as<std::uint8_t>();
  const std::vector<std::uint8_t> packed(codes, codes + q.storage().codes().size());
  Index wrong = 0;
  for (Index i = 0; i < w.size(); ++i) {
    const float value = q.storage().table()[code_at(packed, static_cast<std::size_t>(i))];
    wrong += w.data()[i] != value * q.storage().scales()[i / block];
    const Index theirs = misplaced ? i / cols * (cols / block) + i % cols / block : i / block;
    wrong += rounded(value * q.storage().scales()[theirs]) != expected[static_cast<std::size_t>(i)];
  }
  CHECK(wrong == 0);
  found.misplaced_row += misplaced;
}

template <class Format>
QuantizedMatrix<Format> load(const std::string& key, Index rows, Index cols) {
  const Buffer codes = to_buffer(golden_quant4().bytes(key + ".packed")), absmax = to_buffer(golden_quant4().bytes(key + ".absmax"));
  const std::array<float, 16> table = table_of<16>("code." + std::string(Format::quant_type));
  if constexpr (Format::Scales::is_double_quantized) {
    const Buffer nested = to_buffer(golden_quant4().bytes(key + ".absmax2"));
    return {rows, cols, codes, absmax, nested, golden_quant4().floats(key + ".offset")[0], table, table_of<256>("nested_code")};
  } else {
    return {rows, cols, codes, absmax, table};
  }
}

template <class Scales>
void compare_scales(const Scales& ours, const Scales& theirs, const std::vector<float>& absmax, Differences& found) {
  if constexpr (requires { ours.nested_absmax(); }) {
    const float unit = 0x1p-23f * theirs.offset();  // the mean of the scales is summed in another order
    CHECK(std::abs(ours.offset() - theirs.offset()) <= 3 * unit);
    CHECK(ours.map() == theirs.map());
    for (std::size_t i = 0; i < absmax.size(); ++i) {
      const float nested = quant::load<float>(theirs.nested_absmax().data() + i / 256 * 4);
      CHECK(std::abs(quant::load<float>(ours.nested_absmax().data() + i / 256 * 4) - nested) <= 4 * unit);
      const auto code = static_cast<std::uint8_t>(ours.absmax().data()[i]), other = static_cast<std::uint8_t>(theirs.absmax().data()[i]);
      if (code == other) continue;
      const float t = (absmax[i] - theirs.offset()) / nested;  // they round t to a multiple of 2 / 65535 first
      CHECK(other >= quant::nearest_code(theirs.map(), t - 1.01f / 65535));
      CHECK(other <= quant::nearest_code(theirs.map(), t + 1.01f / 65535));
      CHECK(std::abs(ours.map()[code] - t) <= std::abs(ours.map()[other] - t) + 4 * 0x1p-23f);
      ++found.nested_code;
    }
  } else {
    CHECK(std::ranges::equal(ours.absmax().bytes(), theirs.absmax().bytes()));
  }
}

template <class Format>
void compare(const std::string& input, const std::string& kind, Differences& found) {
  const std::string suffix = std::string(Format::quant_type) + "." + std::to_string(Format::block), key = input + "." + suffix + kind;
  CAPTURE(key);
  const std::vector<float> x = golden_quant4().floats(input + ".input");
  const std::vector<Index> shape = golden_quant4().shape(input + ".input");
  const auto q = quantize<Format>(DenseSource<float>(x.data(), shape[0], shape[1]));
  const auto stored = load<Format>(key, shape[0], shape[1]);

  const auto* codes = q.storage().codes().template as<std::uint8_t>();
  const std::vector<float> absmax = golden_quant4().floats(input + "." + suffix + ".plain.absmax");
  compare_codes<Format>(x, {codes, codes + q.storage().codes().size()}, golden_quant4().bytes(key + ".packed"), absmax, found);
  compare_scales(q.storage().scales(), stored.storage().scales(), absmax, found);
  compare_values(stored, golden_quant4().floats(key + ".dequant"), input.ends_with("bfloat16"), found);
}

template <template <int, class> class Format, class Scales>
Differences compare_all(const std::string& kind) {
  Differences found;
  for (const std::string input : {"gauss_96x256", "outlier_zero_64x192", "straddle_33x80", "odd_7x37"})
    for (const std::string dtype : {".float32", ".bfloat16"}) {
      compare<Format<32, Scales>>(input + dtype, kind, found);
      compare<Format<64, Scales>>(input + dtype, kind, found);
      compare<Format<128, Scales>>(input + dtype, kind, found);
    }
  return found;
}

}  // namespace

TEST_CASE("tables and the dynamic map are those of bitsandbytes") {
  CHECK(Nf4<>::table == table_of<16>("code.nf4"));
  CHECK(Fp4<>::table == table_of<16>("code.fp4"));
  CHECK(quant::dynamic_map() == table_of<256>("nested_code"));
  const std::array<float, 256> positive = quant::dynamic_map(false);
  CHECK(positive[0] == 0);
  CHECK(positive[1] == doctest::Approx(3.25e-7));
  CHECK(positive[254] == doctest::Approx(0.9964844));
}

TEST_CASE("NF4 equals bitsandbytes, zero blocks aside") {
  const Differences plain = compare_all<Nf4, PlainScales>(".plain");
  CHECK(plain.other == 0);
  CHECK(plain.threshold + plain.sign_of_zero + plain.nested_code == 0);
  CHECK(plain.zero_block == 4 * 64);        // one zero run of 64 weights, at blocks of 32 and 64, in two precisions
  CHECK(plain.misplaced_row == 3 * 2 + 2);  // straddle_33x80 at each block, outlier_zero_64x192 at 128
  const Differences nested = compare_all<Nf4, DoubleQuant>(".dq");
  CHECK(nested.other == 0);
  CHECK(nested.zero_block == 4 * 64);
  CHECK(nested.nested_code == 21);
}

TEST_CASE("FP4 equals bitsandbytes, zero blocks, thresholds and the sign of small weights aside") {
  const Differences plain = compare_all<Fp4, PlainScales>(".plain");
  CHECK(plain.other == 0);
  CHECK(plain.zero_block == 0);
  CHECK(plain.threshold > 0);
  CHECK(plain.threshold < 150);
  CHECK(plain.sign_of_zero > 0);
  const Differences nested = compare_all<Fp4, DoubleQuant>(".dq");
  CHECK(nested.other == 0);
  CHECK(nested.threshold == plain.threshold);
  CHECK(nested.sign_of_zero == plain.sign_of_zero);
}
