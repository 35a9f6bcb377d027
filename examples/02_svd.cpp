// Chapter 2: the SVD orders outer products by size, and cutting it off is the best that any rank can do.
#include <lowrank/ops/decompose.hpp>

#include <support/chapter.hpp>

using Eigen::MatrixXd;
using Eigen::VectorXd;
using lowrank::Index;
using lowrank::Svd;

constexpr Index size = 64;

// A Nordic cross: every row is one of two patterns, so its rank is 2.
MatrixXd flag() {
  MatrixXd m = MatrixXd::Constant(size, size, 0.2);
  m.middleRows(26, 10).setConstant(1);
  m.middleCols(18, 10).setConstant(1);
  return m;
}

// U diag(s) Vᵀ with the first r singular values.
MatrixXd truncated(const Svd& svd, Index r) {
  const Svd best = svd.leading(r);
  return best.u * best.s.asDiagonal() * best.v.transpose();  // [m, r] · [r, r] · [r, n]
}

// ‖M - M_r‖ by the singular values that were cut: sqrt(Σ_{i > r} s_i²).
double tail(const VectorXd& s, Index r) { return s.tail(s.size() - r).norm(); }

struct Errors {
  std::vector<double> r, measured;
  double worst_frobenius = 0, worst_spectral = 0;  // largest distance to the prediction, in units of ‖M‖
};

Errors errors_of(const MatrixXd& m) {
  const Svd svd = lowrank::thin_svd(m);
  Errors errors;
  for (Index r = 0; r <= size; ++r) {
    const MatrixXd rest = m - truncated(svd, r);
    const double spectral = r < size ? svd.s[r] : 0;
    errors.r.push_back(static_cast<double>(r));
    errors.measured.push_back(rest.norm() / m.norm());
    errors.worst_frobenius = std::max(errors.worst_frobenius, std::abs(rest.norm() - tail(svd.s, r)) / m.norm());
    errors.worst_spectral = std::max(errors.worst_spectral, std::abs(lowrank::thin_svd(rest).s[0] - spectral) / m.norm());
  }
  return errors;
}

// The best approximation of M whose columns lie in the range of a basis: Q Qᵀ M. The rival is as good as its r directions allow.
double rival(const MatrixXd& m, const MatrixXd& directions) {
  const MatrixXd q = lowrank::thin_qr(directions).q;
  return (m - q * (q.transpose() * m)).norm();
}

int main(int argc, char** argv) {
  support::Chapter chapter("2. The singular value decomposition and Eckart-Young", argc, argv);
  const MatrixXd diagonal = MatrixXd::Identity(size, size), noise = support::normal<MatrixXd>(size, size, 1);
  const std::vector<std::pair<std::string, MatrixXd>> pictures{{"flag", flag()}, {"diagonal", diagonal}, {"noise", noise}};

  support::Plot plot("Best relative error of rank r", "rank r", "‖M - M_r‖ / ‖M‖");
  support::Table table({"matrix", "s1", "s2", "s3", "s32", "error at r = 2", "error at r = 32"});
  for (const auto& [name, m] : pictures) {
    const VectorXd s = lowrank::thin_svd(m).s;
    const Errors errors = errors_of(m);
    plot.line(name, errors.r, errors.measured);
    table.add({name, support::format("%.3f", s[0]), support::format("%.3f", s[1]), support::format("%.3f", s[2]),
               support::format("%.3f", s[31]), support::format("%.1f %%", 100 * errors.measured[2]),
               support::format("%.1f %%", 100 * errors.measured[32])});
    chapter.at_most(name + ": Frobenius error - tail of the squares, all r", 1e-13, errors.worst_frobenius);
    chapter.at_most(name + ": spectral error - s_(r+1), all r", 1e-13, errors.worst_spectral);
  }
  chapter.section("Three matrices of 64 x 64:");
  table.print();

  const VectorXd flag_s = lowrank::thin_svd(flag()).s, noise_s = lowrank::thin_svd(noise).s;
  chapter.equal("flag: singular values above rounding", 2, static_cast<double>((flag_s.array() > 1e-12 * flag_s[0]).count()));
  chapter.equal("diagonal: error at r = 32, sqrt(1 - r / n)", std::sqrt(0.5), errors_of(diagonal).measured[32], 1e-14);
  chapter.equal("noise: largest singular value, 2 sqrt(n)", 2 * std::sqrt(static_cast<double>(size)), noise_s[0], 1.0);

  // Rivals: r random directions, and r directions that have seen the matrix once (M times random columns), which is much harder to beat.
  const Index r = 8;
  MatrixXd m = noise;
  for (Index j = 0; j < size; ++j) m.col(j) *= std::pow(0.9, static_cast<double>(j));  // a matrix with a falling spectrum
  const double best = tail(lowrank::thin_svd(m).s, r);
  int wins = 0;
  double blind = 1e300, sighted = 1e300;
  for (std::uint64_t trial = 0; trial < 500; ++trial) {
    const MatrixXd random = support::normal<MatrixXd>(size, r, 100 + trial);
    const double first = rival(m, random), second = rival(m, m * random);
    blind = std::min(blind, first / best), sighted = std::min(sighted, second / best);
    wins += (first < best) + (second < best);
  }
  chapter.equal("rivals of rank 8 that beat the SVD, of 1000", 0, wins);
  chapter.section("The best of 500 rivals, as a multiple of the SVD's error:");
  std::printf("  random directions       %.3f\n  directions from M       %.3f\n", blind, sighted);

  chapter.picture("02_svd.svg", plot.svg());
  return chapter.finish();
}
