#include <doctest/doctest.h>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/random.hpp>
#include <lowrank/ops/bidiagonal_svd.hpp>
#include <lowrank/ops/decompose.hpp>

using namespace lowrank;

namespace {

Eigen::MatrixXd drawn(Index rows, Index cols, std::uint64_t seed) {
  Eigen::MatrixXd m(rows, cols);
  Random random(seed);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<double>(random.normal());
  return m;
}

double not_orthonormal(const Eigen::MatrixXd& q) {
  return (q.transpose() * q - Eigen::MatrixXd::Identity(q.cols(), q.cols())).cwiseAbs().maxCoeff();
}

/// Singular values 1, ½, ⅓ …: they fall slowly, which is hard for sampling.
Eigen::MatrixXd slowly_falling(Index rows, Index cols) {
  const Index k = std::min(rows, cols);
  const Eigen::VectorXd s = Eigen::VectorXd::LinSpaced(k, 1, static_cast<double>(k)).cwiseInverse();
  return thin_qr(drawn(rows, k, 1)).q * s.asDiagonal() * thin_qr(drawn(cols, k, 2)).q.transpose();
}

}  // namespace

TEST_CASE("thin_qr: Q is orthonormal, R triangular, Q R the matrix") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {7, 3}, {3, 7}, {40, 40}, {100, 33}}) {
    const Eigen::MatrixXd m = drawn(rows, cols, 3);
    const Qr qr = thin_qr(m);
    CHECK(qr.q.cols() == std::min(rows, cols));
    CHECK(not_orthonormal(qr.q) < 1e-13);
    CHECK((qr.q * qr.r - m).cwiseAbs().maxCoeff() < 1e-12);
    for (Index i = 0; i < qr.r.rows(); ++i)
      for (Index j = 0; j < std::min(i, qr.r.cols()); ++j) CHECK(qr.r(i, j) == 0);
  }
}

TEST_CASE("thin_svd: factors are orthonormal, values fall, the product is the matrix") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {1, 5}, {17, 16}, {16, 17}, {60, 20}, {20, 60}, {64, 64}}) {
    const Eigen::MatrixXd m = drawn(rows, cols, 4);
    const Svd svd = thin_svd(m);
    CHECK(not_orthonormal(svd.u) < 1e-12);
    CHECK(not_orthonormal(svd.v) < 1e-12);
    CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - m).cwiseAbs().maxCoeff() < 1e-12);
    for (Index i = 1; i < svd.s.size(); ++i) CHECK(svd.s[i] <= svd.s[i - 1]);
    CHECK(svd.s.minCoeff() >= 0);
  }
  CHECK(thin_svd(Eigen::MatrixXd::Zero(5, 4)).s.isZero());
}

// Two different rows, many times over: 62 singular values are zero, and all rotations among them are alike.
TEST_CASE("thin_svd of a flag with a cross has two singular values") {
  Eigen::MatrixXd flag = Eigen::MatrixXd::Constant(64, 64, 0.2);
  flag.middleRows(26, 10).setOnes();
  flag.middleCols(18, 10).setOnes();
  const Svd svd = thin_svd(flag);
  CHECK(not_orthonormal(svd.u) < 1e-12);
  CHECK(not_orthonormal(svd.v) < 1e-12);
  CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - flag).cwiseAbs().maxCoeff() < 1e-12);
  CHECK(svd.s[1] > 1);
  CHECK(svd.s[2] < 1e-12);
}

// Shapes on both sides of the QR decomposition that comes first, and of the groups in which columns are reflected and rows rotated.
TEST_CASE("thin_svd: singular values are those of the matrix that was built from them, to a few epsilon of the largest") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{2, 2}, {8, 8}, {31, 30}, {33, 33}, {48, 32}, {50, 33}, {49, 97}, {130, 121}}) {
    const Index k = std::min(rows, cols);
    for (const double fall : {1.0, 1e-3, 1e-12, 1e-25}) {  // from the first singular value to the last
      Eigen::VectorXd s(k);
      for (Index i = 0; i < k; ++i) s[i] = std::pow(fall, static_cast<double>(i) / static_cast<double>(k - 1));
      const Eigen::MatrixXd m = thin_qr(drawn(rows, k, 11)).q * s.asDiagonal() * thin_qr(drawn(cols, k, 12)).q.transpose();
      const Svd svd = thin_svd(m);
      INFO("[", rows, ", ", cols, "] falling to ", fall);
      CHECK((svd.s - s).cwiseAbs().maxCoeff() < 5e-15);
      CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - m).cwiseAbs().maxCoeff() < 5e-15);
      CHECK(not_orthonormal(svd.u) < 1e-14);
      CHECK(not_orthonormal(svd.v) < 1e-14);
    }
  }
}

TEST_CASE("thin_svd: rows or columns of very different lengths, falling or rising") {
  for (const double factor : {1e-3, 1e3}) {
    Eigen::VectorXd lengths(30);
    for (Index i = 0; i < 30; ++i) lengths[i] = std::pow(factor, static_cast<double>(i));
    lengths /= lengths.maxCoeff();
    const Eigen::MatrixXd m = drawn(30, 30, 13);
    for (const Eigen::MatrixXd& graded : {Eigen::MatrixXd(lengths.asDiagonal() * m), Eigen::MatrixXd(m * lengths.asDiagonal())}) {
      const Svd svd = thin_svd(graded);
      CHECK(not_orthonormal(svd.u) < 1e-14);
      CHECK(not_orthonormal(svd.v) < 1e-14);
      CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - graded).cwiseAbs().maxCoeff() < 5e-15 * svd.s[0]);
    }
  }
}

// Zeros on the diagonal of a bidiagonal matrix: no shift may divide by them, and one sweep moves each to the end.
TEST_CASE("thin_svd of matrices with zeros where the iteration divides") {
  Eigen::MatrixXd bidiagonal = Eigen::MatrixXd::Identity(40, 40);
  bidiagonal.diagonal(1).setOnes();
  for (const Index i : {0, 17, 18, 39}) bidiagonal(i, i) = 0;
  Eigen::MatrixXd shift = Eigen::MatrixXd::Zero(9, 9);
  shift.diagonal(1).setOnes();
  Eigen::MatrixXd triangular = Eigen::MatrixXd::Constant(40, 40, -1).triangularView<Eigen::StrictlyUpper>();
  triangular.diagonal().setOnes();  // nearly singular: its last singular value is about 2⁻³⁸
  for (const Eigen::MatrixXd& m : {bidiagonal, shift, triangular, Eigen::MatrixXd(Eigen::MatrixXd::Identity(33, 33)),
                                   Eigen::MatrixXd(Eigen::MatrixXd::Ones(40, 30)), Eigen::MatrixXd(drawn(80, 3, 14) * drawn(3, 70, 15))}) {
    const Svd svd = thin_svd(m);
    CHECK(not_orthonormal(svd.u) < 1e-14);
    CHECK(not_orthonormal(svd.v) < 1e-14);
    CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - m).cwiseAbs().maxCoeff() < 5e-15 * svd.s[0]);
    for (Index i = 1; i < svd.s.size(); ++i) CHECK(svd.s[i] <= svd.s[i - 1]);
  }
  CHECK(thin_svd(shift).s.head(8).isOnes(1e-15));
  CHECK(thin_svd(shift).s[8] == 0);
  const Svd cut = thin_svd(bidiagonal);  // without its first column and its last row, which are zero, its determinant is 1
  CHECK(cut.s[39] < 1e-15);
  CHECK(cut.s[38] > 0.01);
}

TEST_CASE("thin_svd and thin_qr scale with the matrix, to the largest and smallest numbers") {
  const Eigen::MatrixXd m = drawn(20, 15, 16);
  const Svd svd = thin_svd(m);
  const Qr qr = thin_qr(m);
  for (const double factor : {std::ldexp(1.0, 1000), std::ldexp(1.0, -900)}) {
    CHECK(thin_svd(factor * m).s == factor * svd.s);
    CHECK(thin_svd(factor * m).u == svd.u);
    CHECK(thin_qr(factor * m).q == qr.q);
    CHECK(thin_qr(factor * m).r == factor * qr.r);
  }
}

TEST_CASE("thin_svd: the length that a rotation keeps has all its digits where the squares would have none") {
  for (const double unit : {1.0, 0x1p-479, 0x1p-481, 0x1p-700, 0x1p-1000}) {
    CHECK(detail::length_of(3 * unit, -4 * unit) == 5 * unit);
    CHECK(detail::length_of(0, -unit) == unit);
  }
  CHECK(detail::length_of(0, 0) == 0);
}

TEST_CASE("thin_svd of zeros has orthonormal factors all the same") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {6, 6}, {9, 4}, {4, 9}}) {
    const Svd svd = thin_svd(Eigen::MatrixXd::Zero(rows, cols));
    CHECK(svd.s.isZero(0));
    CHECK(not_orthonormal(svd.u) == 0);
    CHECK(not_orthonormal(svd.v) == 0);
  }
}

TEST_CASE("product_svd equals the SVD of the product, also where the rank exceeds a side") {
  for (const auto& [out, r, in] : {std::array<Index, 3>{40, 4, 30}, {5, 9, 30}, {30, 9, 5}, {1, 1, 1}, {6, 20, 7}}) {
    const Eigen::MatrixXd b = drawn(out, r, 5), a = drawn(r, in, 6), product = b * a;
    const Svd svd = product_svd(b, a), dense = thin_svd(product);
    CHECK(svd.s.size() == std::min({out, r, in}));
    CHECK((svd.s - dense.s.head(svd.s.size())).cwiseAbs().maxCoeff() < 1e-11 * dense.s[0]);
    CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - product).cwiseAbs().maxCoeff() < 1e-11 * dense.s[0]);
  }
}

TEST_CASE("leading: the error of a truncation is the norm of what is left out") {
  const Eigen::MatrixXd m = drawn(30, 20, 7);
  const Svd svd = thin_svd(m), kept = svd.leading(5);
  CHECK((kept.u * kept.s.asDiagonal() * kept.v.transpose() - m).norm() == doctest::Approx(svd.s.tail(15).norm()));
  CHECK(svd.leading(99).s.size() == 20);
}

TEST_CASE("randomized_svd: near the best truncation, nearer with more power iterations, the same for any number of threads") {
  const Eigen::MatrixXd m = slowly_falling(150, 200);
  const Weight<float> w = m.cast<float>();
  const DenseSource<float> source(w.data(), w.rows(), w.cols());
  const Index rank = 10;
  const double best = thin_svd(m).s.tail(140).norm();
  double before = 10;
  for (const Index q : {0, 1, 3}) {
    const Svd svd = randomized_svd(source, rank, {.power_iterations = q});
    CHECK(not_orthonormal(svd.u) < 1e-5);
    CHECK(not_orthonormal(svd.v) < 1e-5);
    const double error = (svd.u * svd.s.asDiagonal() * svd.v.transpose() - m).norm() / best;
    CHECK(error < before * (1 + 1e-6));
    before = error;
  }
  CHECK(before < 1.001);
  const Svd once = randomized_svd(source, rank);
  const int threads = thread_count();
  set_thread_count(1);
  const Svd again = randomized_svd(source, rank);
  set_thread_count(threads);
  CHECK(once.u == again.u);
  CHECK(once.s == again.s);
}

TEST_CASE("randomized_svd finds a matrix of low rank exactly; a full rank asks for no oversampling") {
  const Weight<float> w = (drawn(40, 3, 8) * drawn(3, 50, 9)).cast<float>();
  const Svd svd = randomized_svd(DenseSource<float>(w.data(), 40, 50), 3);
  CHECK((svd.u * svd.s.asDiagonal() * svd.v.transpose() - w.cast<double>()).norm() < 1e-5 * w.norm());
  CHECK(randomized_svd(DenseSource<float>(w.data(), 40, 50), 40).s.size() == 40);
}

TEST_CASE("Decompositions refuse what they cannot decompose") {
  Eigen::MatrixXd m = drawn(4, 4, 10);
  m(2, 1) = std::nan("");
  CHECK_THROWS_AS(thin_svd(m), ValueError);
  CHECK_THROWS_AS(thin_qr(m), ValueError);
  CHECK_THROWS_AS(thin_qr(Eigen::MatrixXd(0, 3)), ShapeError);
  CHECK_THROWS_AS(product_svd(drawn(4, 3, 1), drawn(2, 4, 1)), ShapeError);
  const Weight<float> w = Weight<float>::Ones(4, 4);
  CHECK_THROWS_AS(randomized_svd(DenseSource<float>(w.data(), 4, 4), 5), ValueError);
  CHECK_THROWS_AS(randomized_svd(DenseSource<float>(w.data(), 4, 4), 0), ValueError);
}
