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
