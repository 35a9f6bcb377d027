#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <sstream>

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

TEST_CASE_TEMPLATE("16-bit numbers are scalars of Eigen: cast, added, multiplied, reduced, printed", T, Half, BFloat16) {
  Weight<float> w(2, 3);
  w << 1, -2, 3, 0.5f, 8, -0.25f;
  const Weight<T> small = w.cast<T>();
  CHECK((small + small).template cast<float>() == 2 * w);
  CHECK((small * T(2.0f) - small).template cast<float>() == w);
  CHECK((-small).template cast<float>() == -w);
  CHECK(small.cwiseAbs().maxCoeff() == 8);
  CHECK(small.sum() == 10.25f);
  CHECK((small * small.transpose()).eval()(0, 0) == 14);
  CHECK(std::abs(small.norm() / std::sqrt(78.3125f) - 1) <= 2 * std::numeric_limits<T>::epsilon());
  CHECK(small.isApprox(small));
  CHECK(!small.isApprox((small * T(1.5f)).eval()));
  CHECK((small.template cast<Half>().template cast<BFloat16>().template cast<double>() == w.cast<double>()));
  std::ostringstream text;
  text << small;
  CHECK(text.str() == "    1    -2     3\n  0.5     8 -0.25");
  Weight<T> sum = Weight<T>::Zero(2, 3);
  sum += small;
  sum *= T(4.0f);
  CHECK(sum(1, 2) == -1);
}

TEST_CASE("all_finite looks at every number, in either order") {
  Weight<float> w = Weight<float>::Ones(3, 5);
  CHECK(detail::all_finite(w));
  w(2, 1) = std::numeric_limits<float>::infinity();
  CHECK(!detail::all_finite(w));
  Eigen::MatrixXd m = Eigen::MatrixXd::Ones(3, 5);
  CHECK(detail::all_finite(m));
  m(2, 4) = std::numeric_limits<double>::quiet_NaN();
  CHECK(!detail::all_finite(m));
}
