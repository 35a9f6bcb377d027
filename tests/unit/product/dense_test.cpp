#include <lowrank/product/dense.hpp>

#include <doctest/doctest.h>

#include <lowrank/error.hpp>

using lowrank::Activation;
using lowrank::Index;

namespace {

/// The largest difference from Eigen's product, of the three ways to write it.
template <class S>
double difference_from_eigen(Index m, Index k, Index n) {
  const Activation<S> a = Activation<S>::Random(m, k), b = Activation<S>::Random(k, n), wanted = a * b;
  double largest = 0;
  for (const Activation<S>& given :
       {lowrank::times<S>(a, b), lowrank::transposed_times<S>(a.transpose(), b), lowrank::times_transposed<S>(a, b.transpose())}) {
    REQUIRE(given.rows() == m);
    REQUIRE(given.cols() == n);
    if (wanted.size() > 0) largest = std::max(largest, static_cast<double>((given - wanted).cwiseAbs().maxCoeff()));
  }
  return largest;
}

}  // namespace

TEST_CASE("products of two dense matrices, around the borders of panels") {
  for (const Index m : {1, 7, 8, 33, 65})
    for (const Index k : {0, 1, 15, 32, 129})
      for (const Index n : {0, 1, 8, 9, 64}) {
        CAPTURE(m);
        CAPTURE(k);
        CAPTURE(n);
        CHECK(difference_from_eigen<float>(m, k, n) < 1e-4);
        CHECK(difference_from_eigen<double>(m, k, n) < 1e-13);
      }
}

TEST_CASE("a window is multiplied in place") {
  const Activation<float> all = Activation<float>::Random(20, 30);
  const auto a = all.block(2, 3, 9, 11), b = all.block(5, 7, 11, 4);
  CHECK((lowrank::times<float>(a, b) - a * b).norm() < 1e-5f);
}

TEST_CASE("shapes that do not fit are named") {
  const Activation<float> a(2, 3), b(2, 3);
  CHECK_THROWS_WITH_AS(lowrank::times<float>(a, b),
                       "[times] the sum runs over 3 numbers on the left and 2 on the right; both must be the same", lowrank::ShapeError);
  CHECK_THROWS_AS(lowrank::transposed_times<float>(a, b.transpose()), lowrank::ShapeError);
}
