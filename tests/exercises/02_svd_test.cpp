#include <doctest/doctest.h>

#include <Eigen/Eigenvalues>

#include <02_svd.hpp>

#include <lowrank/update/init.hpp>
#include <lowrank/ops/decompose.hpp>

using Eigen::MatrixXd;

namespace {
MatrixXd random(long rows, long cols) {
  MatrixXd m(rows, cols);
  lowrank::fill_normal(m, 1, lowrank::Random(5));
  return m;
}
}  // namespace

TEST_CASE("exercise 2a: the distance to the nearest matrix of rank r") {
  const MatrixXd m = random(14, 9);
  const Eigen::VectorXd eigenvalues = Eigen::SelfAdjointEigenSolver<MatrixXd>(m.transpose() * m).eigenvalues();
  const lowrank::Svd svd = lowrank::thin_svd(m);
  for (long r = 0; r <= 9; ++r) {
    const lowrank::Svd best = svd.leading(r);
    const double distance = (m - best.u * best.s.asDiagonal() * best.v.transpose()).norm();
    CHECK(std::abs(distance_to_rank(eigenvalues, r) - distance) < 1e-6 * m.norm());
  }
  Eigen::VectorXd rounded(3);
  rounded << -1e-17, 0, 4;
  CHECK(distance_to_rank(rounded, 1) == 0);
}

TEST_CASE("exercise 2b: four copies") {
  const MatrixXd m = random(8, 11);
  MatrixXd four(16, 22);
  four << m, m, m, m;
  CHECK(largest_of_four_copies(lowrank::thin_svd(m).s[0]) == doctest::Approx(lowrank::thin_svd(four).s[0]).epsilon(1e-12));
}
