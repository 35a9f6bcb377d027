#include <doctest/doctest.h>

#include <01_rank.hpp>

#include <lowrank/update/init.hpp>
#include <lowrank/ops/decompose.hpp>

using Eigen::MatrixXd;

TEST_CASE("exercise 1a: the largest rank that saves storage") {
  for (const long m : {1, 2, 3, 7, 64, 100}) {
    for (const long n : {1, 2, 3, 6, 36, 96}) {
      long largest = 0;
      for (long r = 1; r <= std::min(m, n); ++r)
        if (r * m + r * n < m * n) largest = r;
      CAPTURE(m);
      CAPTURE(n);
      CHECK(largest_saving_rank(m, n) == largest);
    }
  }
}

TEST_CASE("exercise 1b: the rank of an element-wise product") {
  const auto random = [](long rows, long cols, std::uint64_t seed) {
    MatrixXd m(rows, cols);
    lowrank::fill_normal(m, 1, lowrank::Random(seed));
    return m;
  };
  const long m = 24, n = 20;
  for (const auto& [p, q] : {std::pair{1L, 1L}, {2L, 3L}, {4L, 4L}, {5L, 9L}}) {
    const MatrixXd left = random(m, p, 1) * random(p, n, 2), right = random(m, q, 3) * random(q, n, 4);
    const Eigen::VectorXd s = lowrank::thin_svd(left.cwiseProduct(right)).s;
    CHECK(rank_of_elementwise_product(p, q, m, n) == (s.array() > 1e-10 * s[0]).count());
  }
}
