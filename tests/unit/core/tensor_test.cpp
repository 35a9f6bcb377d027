#include <doctest/doctest.h>

#include <lowrank/core/tensor.hpp>

using namespace lowrank;

TEST_CASE("DType: every name leads back to its type") {
  for (std::size_t i = 0; i < detail::dtype_traits.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(dtype_from_name(dtype_name(dtype)) == dtype);
    CHECK(dtype_bits(dtype) > 0);
  }
  CHECK(dtype_name(DType::u64) == "U64");
  CHECK_FALSE(dtype_from_name("F31").has_value());
}

TEST_CASE("StoredTensor: numbers of each type become float, other types are refused") {
  const std::vector<float> values{1.0f, -2.5f, 0.0f, 384.0f};
  const std::vector<double> doubles(values.begin(), values.end());
  std::vector<Half> halves;
  std::vector<BFloat16> brains;
  for (const float value : values) {
    halves.emplace_back(value);
    brains.emplace_back(value);
  }
  CHECK(to_floats(make_tensor<float>("x", {2, 2}, values)) == values);
  CHECK(to_floats(make_tensor<double>("x", {4}, doubles)) == values);
  CHECK(to_floats(make_tensor<Half>("x", {4}, halves)) == values);
  CHECK(to_floats(make_tensor<BFloat16>("x", {1, 4}, brains)) == values);
  const std::vector<std::int32_t> whole{1, 2};
  CHECK_THROWS_WITH_AS(to_floats(make_tensor<std::int32_t>("x", {2}, whole)), doctest::Contains("I32"), FormatError);
  CHECK_THROWS_WITH_AS(make_tensor<float>("x", {3}, values), doctest::Contains("4 values but the shape [3]"), ShapeError);
  CHECK(make_tensor<float>("scalar", {}, std::span(values).first(1)).size() == 1);
}

TEST_CASE("StoredTensor: a shape that is none, or that the bytes do not fit, is refused by whoever reads it") {
  const Buffer bytes = Buffer::allocate(4);
  const auto refused = [&](const StoredTensor& tensor, const char* reason) {
    CHECK_THROWS_WITH_AS(to_floats(tensor), doctest::Contains(reason), ShapeError);
    CHECK_THROWS_WITH_AS(tensor.check_bytes("test"), doctest::Contains(reason), ShapeError);
  };
  constexpr Index huge = Index{1} << 40;
  refused({"x", DType::f32, {10, 100}, bytes}, "x has 4 bytes but [10, 100] of F32 needs 4000");
  refused({"x", DType::f32, {}, {}}, "x has 0 bytes but [] of F32 needs 4");
  refused({"x", DType::f32, {2, 0}, bytes}, "x has 4 bytes but [2, 0] of F32 needs 0");
  refused({"x", DType::f64, {1}, bytes}, "needs 8");
  refused({"x", DType::f32, {-1, -1}, bytes}, "x cannot be [-1, -1]");
  refused({"x", DType::f32, {huge, huge}, bytes}, "all numbers must fit in memory");
  refused({"x", DType::f32, {huge, huge, 0}, bytes}, "all numbers must fit in memory");
  refused({"x", DType::f64, {Index{1} << 61, 4}, bytes}, "all numbers must fit in memory");
  CHECK_THROWS_AS((void)(StoredTensor{"x", DType::f32, {huge, huge}, bytes}.size()), ShapeError);
  CHECK_THROWS_AS((void)(StoredTensor{"x", DType::f32, {-4}, bytes}.size()), ShapeError);
  const float value = 2;
  CHECK_THROWS_AS((make_tensor<float>("x", {-1, -1}, std::span(&value, 1))), ShapeError);
  CHECK_NOTHROW(StoredTensor{"x", DType::f4, {3, 3}, Buffer::allocate(5)}.check_bytes("test"));
  CHECK_THROWS_WITH_AS((StoredTensor{"x", DType::f4, {3, 3}, bytes}.check_bytes("test")), doctest::Contains("needs 5"), ShapeError);
}

TEST_CASE("StoredTensor: bytes need not be aligned") {
  Buffer bytes = Buffer::allocate(9);
  const float value = 1.5f;
  std::memcpy(bytes.mutable_as<std::byte>() + 1, &value, sizeof value);
  CHECK(to_floats({"x", DType::f32, {1}, bytes.slice(1, 4)}) == std::vector<float>{1.5f});
}
