// Chapter 1: a matrix of rank k is a sum of k outer products, and can be peeled back into them one by one.
#include <lowrank/ops/decompose.hpp>

#include <support/chapter.hpp>

using Eigen::MatrixXd;
using Eigen::VectorXd;
using lowrank::Index;

// One outer product b aᵀ: a column times a row.
struct Outer {
  VectorXd b, a;
};

// Wedderburn's step: M - c rᵀ / p, where p = M(i, j) is the largest entry, c its column and r its row, has rank one less.
Outer peel(MatrixXd& m) {
  Index i, j;
  m.cwiseAbs().maxCoeff(&i, &j);
  const Outer outer{m.col(j) / m(i, j), m.row(i).transpose()};
  m -= outer.b * outer.a.transpose();  // [m, 1] · [1, n]
  return outer;
}

// The number of singular values that rounding could not have made.
Index rank_of(const MatrixXd& m) {
  const VectorXd s = lowrank::thin_svd(m).s;
  return (s.array() > 1e-12 * s[0]).count();
}

// ‖what is left‖ / ‖M‖ after 0, 1, 2, … outer products.
std::vector<double> residuals(MatrixXd m, Index steps) {
  const double whole = m.norm();
  std::vector<double> left{1.0};
  for (Index step = 0; step < steps; ++step) {
    if (left.back() < 1e-14) break;  // nothing but rounding is left to peel
    peel(m);
    left.push_back(m.norm() / whole);
  }
  return left;
}

int main(int argc, char** argv) {
  support::Chapter chapter("1. Rank as a sum of outer products", argc, argv);
  const Index m = 96, n = 64, k = 6;

  const MatrixXd b = support::normal<MatrixXd>(m, k, 1), a = support::normal<MatrixXd>(k, n, 2);
  MatrixXd sum = MatrixXd::Zero(m, n);
  for (Index i = 0; i < k; ++i) sum += b.col(i) * a.row(i);  // k outer products
  chapter.section("Six outer products make a matrix of 6144 numbers that holds 960:");
  support::print("B", b);
  support::print("A", a);
  support::print("B A", sum);
  chapter.at_most("sum of outer products = B A, relative difference", 1e-14, (sum - b * a).norm() / sum.norm());
  chapter.equal("rank of a sum of 6 outer products", static_cast<double>(k), static_cast<double>(rank_of(sum)));

  // Storage: two factors hold r (m + n) numbers, the matrix m n. They are fewer while r < m n / (m + n); equality saves nothing.
  Index largest = 0;
  for (Index r = 1; r <= std::min(m, n); ++r) {
    const MatrixXd left(m, r), right(r, n);
    if (left.size() + right.size() < m * n) largest = r;
  }
  const double even = static_cast<double>(m * n) / static_cast<double>(m + n);
  chapter.equal("largest rank that saves storage, ceil(mn / (m + n)) - 1", std::ceil(even) - 1, static_cast<double>(largest));
  support::Table table({"rank r", "r (m + n)", "m n", "share"});
  for (const Index r : {Index{1}, k, Index{16}, largest, largest + 1, n}) {
    const auto factors = static_cast<double>(r * (m + n)), whole = static_cast<double>(m * n);
    table.add({support::format("%.0f", static_cast<double>(r)), support::format("%.0f", factors), support::format("%.0f", whole),
               support::format("%.1f %%", 100 * factors / whole)});
  }
  chapter.section("What the factors cost:");
  table.print();

  // Recovery: peeling finds k outer products in the finished matrix, without knowing B or A.
  MatrixXd rest = sum, rebuilt = MatrixXd::Zero(m, n);
  for (Index i = 0; i < k; ++i) {
    const Outer outer = peel(rest);
    rebuilt += outer.b * outer.a.transpose();
    if (i + 2 == k) chapter.equal("rank left after peeling 5", 1, static_cast<double>(rank_of(rest)));
  }
  chapter.at_most("6 peeled products rebuild the matrix, relative error", 1e-13, (rebuilt - sum).norm() / sum.norm());

  support::Plot plot("What is left of a 96 x 64 matrix after peeling r outer products", "outer products r", "relative norm of the rest",
                     {.log_y = true, .least_y = 1e-16});
  for (const Index rank : {Index{3}, Index{6}, Index{12}, Index{24}}) {
    const MatrixXd low = support::normal<MatrixXd>(m, rank, 3) * support::normal<MatrixXd>(rank, n, 4);
    const std::vector<double> left = residuals(low, n);
    std::vector<double> r(left.size());
    for (std::size_t i = 0; i < r.size(); ++i) r[i] = static_cast<double>(i);
    chapter.equal(support::format("rank %d: steps until only rounding is left", static_cast<int>(rank)), static_cast<double>(rank),
                  static_cast<double>(left.size() - 1));
    plot.line(support::format("rank %d", static_cast<int>(rank)), r, left);
  }
  chapter.picture("01_rank.svg", plot.svg());
  return chapter.finish();
}
