#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/kernels/target/dispatch.hpp>
#include <lowrank/quant.hpp>

#include "fixtures.hpp"

// Every target writes the bytes of the scalar rule, and the scalar rule those of the format's own description.

using namespace fixtures;
using kernels::TableEncoder;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(), tiny = std::numeric_limits<float>::denorm_min();

/// Blocks of every kind that may matter: normal, zero, subnormal, on thresholds, with outliers, near the ends of the range.
template <class Format>
std::vector<float> hard_numbers(Index count, Index block) {
  Random random(11);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) {
    float& value = x[static_cast<std::size_t>(i)];
    const float threshold = Format::thresholds[static_cast<std::size_t>(random.bits() % Format::thresholds.size())];
    const float direction = random.uniform(-1, 1) < 0 ? -infinity : infinity;
    switch (i / block % 9) {
      case 0:
        value = random.normal();
        break;
      case 1:
        value = i % 3 == 0 ? -0.0f : 0.0f;
        break;
      case 2:
        value = random.normal() * 1e-39f;
        break;
      case 3:
        value = i % block == 5 ? 1.0f : threshold * (i % 4 == 0 ? -1.0f : 1.0f);
        break;
      case 4:
        value = i % block == 9 ? -1.0f : std::nextafter(threshold, direction);
        break;
      case 5:
        value = i % block == 7 ? 1000.0f : random.normal();
        break;
      case 6:
        value = random.uniform(-1, 1) * 3e38f;
        break;
      case 7:
        value = std::ldexp(random.normal(), -120 - static_cast<int>(random.bits() % 30));
        break;
      default:
        value = i % 5 == 0 ? tiny : static_cast<float>(BFloat16(random.normal()));
    }
  }
  return x;
}

template <class Format>
void check_rule() {
  std::vector<float> points = {0.0f, -0.0f, tiny, -tiny, 1.0f, -1.0f, 1.5f, -1.5f, infinity, -infinity};
  for (const float threshold : Format::thresholds)
    for (const float sign : {1.0f, -1.0f})
      for (const float direction : {infinity, -infinity, threshold}) points.push_back(sign * std::nextafter(threshold, direction));
  Random random(3);
  for (int i = 0; i < 5000; ++i) points.push_back(random.uniform(-1.1f, 1.1f));
  Index wrong = 0;
  for (const float t : points) {
    const unsigned rank = kernels::scalar::rank_of(Format::rule, t);
    wrong += Format::rule.codes[rank] != Format::encode(t);
    wrong += Format::rule.values[rank] != Format::table[Format::encode(t)];
  }
  CHECK(wrong == 0);
}

template <class Format>
void check_encode(std::span<const float> fractions) {
  const Index block = Format::block, blocks = std::max<Index>(20, 12000 / block);
  const auto x = hard_numbers<Format>(block * blocks, block);
  const TableEncoder encoder{Format::rule, block, fractions};
  std::vector<std::uint8_t> expected(static_cast<std::size_t>(block * blocks / 2), 0xee);
  std::vector<float> scales(static_cast<std::size_t>(blocks), -1.0f);
  REQUIRE(kernels::scalar::encode_table(encoder, x.data(), blocks, expected.data(), scales.data()) == blocks);
  if (fractions.empty()) {  // the plain rule, spelled out
    Index wrong = 0;
    for (Index i = 0; i < block * blocks; ++i) {
      const float scale = scales[static_cast<std::size_t>(i / block)], t = x[static_cast<std::size_t>(i)] * (1.0f / scale);
      const unsigned byte = expected[static_cast<std::size_t>(i / 2)], code = i % 2 == 0 ? byte >> 4 : byte & 15u;
      wrong += code != (scale == 0 ? 0u : Format::encode(t));
    }
    CHECK(wrong == 0);
  }
  for_each_target([&](const kernels::Target&) {
    CAPTURE(std::string(kernels::target_name()));
    CAPTURE(block);
    std::vector<std::uint8_t> codes(expected.size(), 0x77);
    std::vector<float> found(scales.size(), -2.0f);
    CHECK(kernels::current_target().quantize.encode_table(encoder, x.data(), blocks, codes.data(), found.data()) == blocks);
    CHECK(codes == expected);
    CHECK(found == scales);
  });
}

/// Numbers in blocks of 32 on which ggml's rules hinge: ties of magnitudes, zeros of both signs, halves.
std::vector<float> ggml_numbers(Index count) {
  Random random(5);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) {
    float& value = x[static_cast<std::size_t>(i)];
    switch (i / 32 % 8) {
      case 0:
        value = random.normal();
        break;
      case 1:
        value = random.uniform(-1, 1) < 0 ? -0.0f : 0.0f;
        break;
      case 2:
        value = random.normal() * 1e-39f;
        break;
      case 3:
        value = static_cast<float>(static_cast<int>(random.bits() % 9) - 4);
        break;
      case 4:
        value = i % 32 == 0 ? 127.0f : static_cast<float>(static_cast<int>(random.bits() % 200) - 100) * 0.5f;
        break;
      case 5:
        value = random.uniform(-1, 1) < 0 ? -2.0f : 2.0f;
        break;
      case 6:
        value = std::abs(random.normal()) * 1e-6f;
        break;
      default:
        value = i % 32 == 3 ? -0.0f : std::abs(static_cast<float>(BFloat16(random.normal()))) * (i % 7 == 0 ? 0.0f : 1.0f);
    }
  }
  return x;
}

template <class Format>
void check_ggml() {
  const Index blocks = 800;
  const auto x = ggml_numbers(32 * blocks);
  std::vector<std::byte> expected(static_cast<std::size_t>(blocks * Format::block_bytes));
  for (Index b = 0; b < blocks; ++b) REQUIRE(Format::encode(x.data() + 32 * b, 32, expected.data() + b * Format::block_bytes));
  for_each_target([&](const kernels::Target&) {
    const auto encode = kernels::current_target().quantize.*Format::encode_blocks;
    if (encode == nullptr) return;
    CAPTURE(std::string(Format::name));
    CAPTURE(std::string(kernels::target_name()));
    std::vector<std::byte> found(expected.size());
    CHECK(encode(x.data(), blocks, found.data()) == blocks);
    CHECK(found == expected);
    for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
      auto broken = x;
      broken[32 * 7 + 31] = bad;
      CHECK(encode(broken.data(), blocks, found.data()) == 7);
    }
  });
}

template <class Element>
bool same_bits(const Element* a, const Element* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(Element)) == 0;
}

/// Stretches of a flat source, into memory that is aligned and into memory that is not, against its own decode.
template <class Element>
void check_decode(const BlockSource& flat, kernels::QuantizeKernels::Decode<Element> decode) {
  const Index size = flat.pitch, unit = flat.order == CodeOrder::nibble_pairs ? 32 : flat.block;
  std::vector<float> floats(static_cast<std::size_t>(size));
  flat.decode(0, 1, 0, size, floats.data(), size);
  std::vector<Element> expected(floats.size()), out(floats.size() + 64);
  std::transform(floats.begin(), floats.end(), expected.begin(), [](float x) { return Element(x); });
  for (Index begin : {Index{0}, unit, 3 * unit})
    for (Index count : {Index{0}, Index{32}, 5 * unit, (size - begin) / 32 * 32})
      for (bool streams : {false, true}) {
        auto address = reinterpret_cast<std::uintptr_t>(out.data());
        Element* to = out.data() + (streams ? (16 - address % 16) % 16 / sizeof(Element) : 1);
        std::fill(out.begin(), out.end(), Element(-7.0f));
        decode(flat, begin, count, to, streams);
        CHECK(same_bits(to, expected.data() + begin, count));
        CHECK(static_cast<float>(to[count]) == -7.0f);
      }
}

void check_decode(BlockSource source) {
  source.pitch = source.col_count = source.pitch * source.row_count;
  source.row_count = 1;
  for_each_target([&](const kernels::Target&) {
    CAPTURE(std::string(kernels::target_name()));
    CAPTURE(static_cast<int>(source.order));
    const kernels::QuantizeKernels& target = kernels::current_target().quantize;
    CHECK((target.decode_float == nullptr) == (target.decode_bfloat16 == nullptr));
    if (target.decode_float == nullptr) return;
    check_decode<float>(source, target.decode_float);
    check_decode<BFloat16>(source, target.decode_bfloat16);
  });
}

}  // namespace

TEST_CASE("the rule of the kernels is that of the formats") {
  check_rule<Nf4<>>();
  check_rule<Fp4<>>();
}

TEST_CASE("every target quantizes NF4 and FP4 to the same bytes") {
  check_encode<Nf4<32>>({});
  check_encode<Nf4<64>>({});
  check_encode<Nf4<4096>>({});
  check_encode<Fp4<32>>({});
  check_encode<Fp4<64>>({});
}

TEST_CASE("every target finds the same scales by search") {
  const auto fractions = Search{}.fractions();
  check_encode<Nf4<32>>(fractions);
  check_encode<Fp4<64>>(fractions);
  const float wild[] = {1e-30f, 1e30f, 2.0f, 0.01f, 0.9f};
  check_encode<Nf4<64>>(wild);
}

TEST_CASE("the first block that is not finite is named") {
  const TableEncoder encoder{Nf4<>::rule, 64, {}};
  std::vector<std::uint8_t> codes(640);
  std::vector<float> scales(20);
  for_each_target([&](const kernels::Target&) {
    for (const float bad : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
      auto x = random_floats(1280, 2);
      x[64 * 13 + 63] = bad;
      x[64 * 17] = bad;
      CHECK(kernels::current_target().quantize.encode_table(encoder, x.data(), 20, codes.data(), scales.data()) == 13);
    }
  });
}

TEST_CASE("every target quantizes ggml's simple formats to the same bytes") {
  check_ggml<Q4_0>();
  check_ggml<Q4_1>();
  check_ggml<Q8_0>();
}

TEST_CASE("every target decodes stretches to the same bits") {
  check_decode(pairs(8, 640, 64, false, 1).source);
  Blocks pair = pairs(9, 320, 32, true, 2);
  check_decode(pair.source);
  pair = pairs(3, 4096, 1024, false, 3);
  pair.scales[1] = 0;  // a zero block of -1: -0
  pair.scales[2] = infinity;
  pair.source.scales = reinterpret_cast<const std::byte*>(pair.scales.data());
  check_decode(pair.source);
  for (bool has_offset : {false, true}) {
    const Blocks half = ggml(8, 640, 4, has_offset, 4);
    check_decode(half.source);
  }
  const Blocks bytes = ggml(8, 640, 8, false, 5);
  check_decode(bytes.source);
}
