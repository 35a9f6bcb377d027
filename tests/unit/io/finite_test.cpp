#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/io/adapter_parts.hpp>
#include <lowrank/io/finite.hpp>
#include <lowrank/io/gguf_matrix.hpp>

using namespace lowrank;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A tensor of `rows` rows of two blocks, all bits zero but the two bytes at `offset` of block `block`.
gguf::Tensor with_half(GgmlType type, Index rows, Index block, Index offset, std::uint16_t bits) {
  const auto [name, size, block_bytes] = ggml_traits(type);
  gguf::Tensor tensor{"w", type, {rows, 2 * size}, Buffer::allocate(static_cast<std::size_t>(2 * rows * block_bytes))};
  std::memcpy(tensor.bytes.mutable_as<std::byte>() + block * block_bytes + offset, &bits, sizeof(bits));
  return tensor;
}

}  // namespace

TEST_CASE("a scale that is not finite is found in every block format") {
  struct Case {
    GgmlType type;
    std::vector<Index> offsets;
  };
  const std::vector<Case> cases{{GgmlType::f16, {0}},       {GgmlType::bf16, {0}},    {GgmlType::q4_0, {0}},   {GgmlType::q4_1, {0, 2}},
                                {GgmlType::q5_0, {0}},      {GgmlType::q5_1, {0, 2}}, {GgmlType::q8_0, {0}},   {GgmlType::q4_k, {0, 2}},
                                {GgmlType::q5_k, {0, 2}},   {GgmlType::q6_k, {208}},  {GgmlType::iq4_nl, {0}}, {GgmlType::iq4_xs, {0}},
                                {GgmlType::q2_k, {80, 82}}, {GgmlType::q3_k, {108}},  {GgmlType::tq1_0, {52}}, {GgmlType::tq2_0, {64}},
                                {GgmlType::iq1_s, {0}},     {GgmlType::iq2_xxs, {0}}, {GgmlType::iq2_xs, {0}}, {GgmlType::iq2_s, {0}},
                                {GgmlType::iq3_xxs, {0}},   {GgmlType::iq3_s, {0}}};
  for (const auto& [type, offsets] : cases) {
    CAPTURE(ggml_traits(type).name);
    const bool brain = type == GgmlType::bf16;
    for (const Index offset : offsets) {
      CHECK_FALSE(first_row_not_finite(with_half(type, 3, 5, offset, brain ? 0xFF7F : 0xFBFF)).has_value());  // the largest
      for (const int bits : brain ? std::vector{0x7F80, 0xFF80, 0x7FC0} : std::vector{0x7C00, 0xFC00, 0x7E01})
        for (const Index block : {0, 3, 5})
          CHECK(first_row_not_finite(with_half(type, 3, block, offset, static_cast<std::uint16_t>(bits))) == block / 2);
    }
  }
}

TEST_CASE("the scale of IQ1_M is put together before it is judged") {
  const auto with_scale = [](std::uint16_t bits) {
    gguf::Tensor tensor{"w", GgmlType::iq1_m, {3, 512}, Buffer::allocate(6 * 56)};
    for (Index i = 0; i < 4; ++i) {
      const auto word = static_cast<std::uint16_t>((bits >> 4 * i & 15) << 12 | 0x0FFF);
      std::memcpy(tensor.bytes.mutable_as<std::byte>() + 3 * 56 + 48 + 2 * i, &word, sizeof(word));
    }
    return tensor;
  };
  CHECK_FALSE(first_row_not_finite(with_scale(0xFBFF)).has_value());
  CHECK(first_row_not_finite(with_scale(0x7C00)) == 1);
  CHECK(first_row_not_finite(with_scale(0xFE01)) == 1);
}

TEST_CASE("codes and exponents of whole bytes are no floats") {
  CHECK_FALSE(first_row_not_finite(with_half(GgmlType::q4_1, 3, 1, 4, 0xFFFF)).has_value());
  CHECK_FALSE(first_row_not_finite(with_half(GgmlType::mxfp4, 3, 1, 0, 0xFFFF)).has_value());
  CHECK_FALSE(first_row_not_finite(with_half(GgmlType::i32, 3, 1, 0, 0xFFFF)).has_value());
}

TEST_CASE("the first of many is told, whichever thread finds one") {
  constexpr Index rows = 300, cols = 1000;
  std::vector<float> values(rows * cols, std::numeric_limits<float>::max());
  const auto look = [&] { return first_row_not_finite(make_tensor<float>("w", {rows, cols}, values)); };
  CHECK_FALSE(look().has_value());
  values.back() = -infinity;
  CHECK(look() == rows - 1);
  values[150 * cols] = std::nanf("");
  values[151 * cols] = infinity;
  CHECK(look() == 150);
  CHECK_FALSE(first_row_not_finite(make_tensor<float>("w", {0, 4}, std::span<const float>())).has_value());
  const std::vector<std::int32_t> numbers{-1, -1};
  CHECK_FALSE(first_row_not_finite(make_tensor<std::int32_t>("w", {2}, numbers)).has_value());
}

TEST_CASE("a tensor whose bytes are not those of its shape is refused") {
  const Buffer bytes = Buffer::allocate(36);
  for (const std::vector<Index>& shape : {std::vector<Index>{64, 64}, {-2, 32}, {2, 0}, {Index{1} << 40, Index{1} << 40}}) {
    CHECK_THROWS_AS(first_row_not_finite(gguf::Tensor{"w", GgmlType::q4_0, shape, bytes}), ShapeError);
    CHECK_THROWS_AS(first_row_not_finite(StoredTensor{"w", DType::f16, shape, bytes}), ShapeError);
    CHECK_THROWS_AS(gguf::to_floats(gguf::Tensor{"w", GgmlType::f16, shape, bytes}), ShapeError);
    CHECK_THROWS_AS(gguf::matrix(gguf::Tensor{"w", GgmlType::q4_0, shape, bytes}, "test"), ShapeError);
    CHECK_THROWS_AS(gguf::matrix(gguf::Tensor{"w", GgmlType::bf16, shape, bytes}, "test"), ShapeError);
    CHECK_THROWS_AS(detail::check_finite(StoredTensor{"w", DType::f16, shape, bytes}, "test", "file"), ShapeError);
    CHECK_THROWS_AS(detail::transposed(StoredTensor{"w", DType::f16, shape, bytes}), ShapeError);
  }
  CHECK_THROWS_AS(first_row_not_finite(gguf::Tensor{"w", GgmlType::q4_0, {2, 16}, bytes}), ShapeError);
  CHECK_FALSE(first_row_not_finite(gguf::Tensor{"w", GgmlType::q4_0, {2, 32}, bytes}).has_value());
}
