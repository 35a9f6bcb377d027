#include <doctest/doctest.h>

#include <lowrank/core/matrix.hpp>

using namespace lowrank;

TEST_CASE("a weight lies row by row, an activation token by token") {
  Weight<float> w(2, 3);
  w << 1, 2, 3, 4, 5, 6;
  CHECK(w.data()[1] == 2);
  CHECK(w.data()[3] == 4);
  Activation<float> x(3, 2);
  x << 1, 4, 2, 5, 3, 6;
  CHECK(x.data()[1] == 2);
  CHECK(x.data()[3] == 4);
}

TEST_CASE("static sizes of one row or one column are accepted") {
  static_assert(Weight<float, 4, 1>::IsRowMajor == 0 && Weight<float, 1, 4>::IsRowMajor == 1);
  static_assert(Activation<float, 1, 4>::IsRowMajor == 1 && Activation<float, 4, 1>::IsRowMajor == 0);
  static_assert(Weight<double, 3, 5>::IsRowMajor == 1 && Activation<double, 3, 5>::IsRowMajor == 0);
  static_assert(Weight<float, 1, 1>::SizeAtCompileTime == 1);
}

TEST_CASE("maps see memory that another owns") {
  float numbers[6] = {1, 2, 3, 4, 5, 6};
  CHECK(ConstWeightMap<float>(numbers, 2, 3)(1, 0) == 4);
  CHECK(ConstActivationMap<float>(numbers, 3, 2)(1, 0) == 2);
  WeightMap<float>(numbers, 2, 3)(1, 2) = 9;
  CHECK(numbers[5] == 9);
}
