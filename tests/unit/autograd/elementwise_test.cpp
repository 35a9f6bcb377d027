#include "autograd_support.hpp"

#include <cmath>
#include <limits>

#include <lowrank/autograd.hpp>

using namespace lowrank;

namespace {

namespace support = autograd_tests;
using ElementVars = support::Vars;

// Values of f(Var) against those of an Eigen expression, and gradients, at shapes [1, 1], ragged, a row, a column, and empty.
template <class F, class Expected>
void check_elements(const F& f, const Expected& expected, float low = -2, float high = 2) {
  std::uint64_t seed = 1;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {5, 7}, {1, 9}, {17, 1}, {0, 3}, {3, 0}}) {
    const Activation<double> x = support::drawn(rows, cols, seed++, low, high);
    support::check_equal(f(Var<double>(x)).value(), Activation<double>(expected(x.array()).matrix()));
    support::check_differences([&](const ElementVars& v) { return f(v[0]); }, {x});
    const Activation<float> narrow = x.cast<float>();  // float goes the same way
    const Var<float> y = f(Var<float>(narrow));
    if (x.size() > 0) CHECK((y.value().cast<double>() - f(Var<double>(x)).value()).cwiseAbs().maxCoeff() < 1e-5);
  }
}

// f(x, y) of Vars of those shapes against the same of repeated arrays.
template <class F>
void check_broadcast(const F& f, float low = -1) {
  const std::pair<Index, Index> shapes[] = {{4, 3}, {4, 1}, {1, 3}, {1, 1}};
  for (const auto& [rows, cols] : shapes)
    for (const auto& [other_rows, other_cols] : shapes) {
      const Activation<double> x = support::drawn(rows, cols, 11, low), y = support::drawn(other_rows, other_cols, 12, low);
      const Index n = std::max(rows, other_rows), tokens = std::max(cols, other_cols);
      const Activation<double> whole_x = x.replicate(n / rows, tokens / cols), whole_y = y.replicate(n / other_rows, tokens / other_cols);
      support::check_equal(f(Var<double>(x), Var<double>(y)).value(), f(Var<double>(whole_x), Var<double>(whole_y)).value());
      support::check_differences([&](const ElementVars& v) { return f(v[0], v[1]); }, {x, y});
    }
}

}  // namespace

TEST_CASE("functions of each number: values and gradients") {
  check_elements([](const auto& x) { return exp(x); }, [](const auto& x) { return x.exp(); });
  check_elements([](const auto& x) { return log(x); }, [](const auto& x) { return x.log(); }, 0.2f, 3);
  check_elements([](const auto& x) { return sqrt(x); }, [](const auto& x) { return x.sqrt(); }, 0.2f, 3);
  check_elements([](const auto& x) { return square(x); }, [](const auto& x) { return x.square(); });
  check_elements([](const auto& x) { return pow(x, 2.5f); }, [](const auto& x) { return x.pow(2.5); }, 0.2f, 3);
  check_elements([](const auto& x) { return pow(x, 3); }, [](const auto& x) { return x.cube(); });
  check_elements([](const auto& x) { return tanh(x); }, [](const auto& x) { return x.tanh(); });
  check_elements([](const auto& x) { return sigmoid(x); }, [](const auto& x) { return 1 / (1 + (-x).exp()); });
  check_elements([](const auto& x) { return abs(x); }, [](const auto& x) { return x.abs(); });
}

TEST_CASE("arithmetic with numbers, and minus") {
  check_elements([](const auto& x) { return -x; }, [](const auto& x) { return -x; });
  check_elements([](const auto& x) { return x + 2.0f; }, [](const auto& x) { return x + 2; });
  check_elements([](const auto& x) { return 2 + x; }, [](const auto& x) { return x + 2; });
  check_elements([](const auto& x) { return x - 0.75f; }, [](const auto& x) { return x - 0.75; });
  check_elements([](const auto& x) { return 1 - x; }, [](const auto& x) { return 1 - x; });
  check_elements([](const auto& x) { return 2 * x; }, [](const auto& x) { return 2 * x; });
  check_elements([](const auto& x) { return x * 1.5f; }, [](const auto& x) { return x * 1.5; });
  check_elements([](const auto& x) { return x / 3; }, [](const auto& x) { return x / 3; });
  check_elements([](const auto& x) { return 3 / x; }, [](const auto& x) { return 3 / x; }, 0.5f, 3);
}

TEST_CASE("operations on two Vars repeat a dimension of 1") {
  check_broadcast([](const auto& x, const auto& y) { return x + y; });
  check_broadcast([](const auto& x, const auto& y) { return x - y; });
  check_broadcast([](const auto& x, const auto& y) { return x * y; });
  check_broadcast([](const auto& x, const auto& y) { return x / y; }, 0.3f);
  check_broadcast([](const auto& x, const auto& y) { return max(x, y); });
  const auto x = support::drawn(4, 3, 21), y = support::drawn(4, 1, 22);
  support::check_equal((Var<double>(x) * Var<double>(y)).value(), y.col(0).asDiagonal() * x);
  support::check_equal((Var<double>(x) - Var<double>(y)).value(), x.colwise() - y.col(0));
  support::check_differences([](const ElementVars& v) { return v[0] - v[0] * v[0] / (v[0] + 3); }, {x});
  CHECK((Var<double>(Activation<double>(0, 3)) + Var<double>(Activation<double>(0, 1))).value().cols() == 3);
  CHECK((Var<double>(Activation<double>(0, 3)) * Var<double>(Activation<double>(1, 1))).value().rows() == 0);
}

TEST_CASE("a sum of one shape goes into the operand that was moved in") {
  Var<double> x(support::drawn(3, 2, 23));
  const double* const memory = x.value().data();
  CHECK((std::move(x) + Var<double>(support::drawn(3, 2, 24))).value().data() == memory);
  Var<double> y(support::drawn(3, 2, 25));
  const double* const other = y.value().data();
  CHECK((std::move(y) - 1).value().data() == other);
}

TEST_CASE("shapes that do not fit end in a sentence") {
  const Var<double> x(support::drawn(4, 3, 26)), y(support::drawn(2, 3, 27));
  for (const auto& text : {support::text_of_error<ShapeError>([&] { x + y; }), support::text_of_error<ShapeError>([&] { x* y; }),
                           support::text_of_error<ShapeError>([&] { x / y; }), support::text_of_error<ShapeError>([&] { max(x, y); })})
    CHECK(text.find("the operands are [4, 3] and [2, 3] but must have one shape") != std::string::npos);
  CHECK(support::text_of_error<ShapeError>([&] { broadcast_to(y, 4, 3); }).find("x is [2, 3] but the result is to be [4, 3]") !=
        std::string::npos);
}

TEST_CASE("where chooses by a mask, values and gradients, and repeats") {
  const auto x = support::drawn(4, 3, 28), y = support::drawn(4, 3, 29), column = support::drawn(4, 1, 30);
  const BoolArray mask = x.array() > 0;
  const Activation<double> chosen = mask.select(x.array(), y.array()).matrix();
  support::check_equal(where(mask, Var<double>(x), Var<double>(y)).value(), chosen);
  support::check_differences([&](const ElementVars& v) { return where(mask, v[0], v[1]); }, {x, y});
  support::check_differences([&](const ElementVars& v) { return where(mask, v[0], v[1]); }, {x, column});
  support::check_differences([&](const ElementVars& v) { return where(mask, v[0], 0.5) * where(mask, -1, v[0]); }, {x});
  CHECK(support::text_of_error<ShapeError>([&] {
          where(mask, Var<double>(x), Var<double>(support::drawn(2, 3, 1)));
        }).find("[broadcast] x is [2, 3]") == 0);
}

TEST_CASE("gradients where a function has an edge are those of PyTorch") {
  const double infinite = std::numeric_limits<double>::infinity();
  const auto slope = [](const auto& f, double at) {
    Tape<double> tape;
    const auto x = tape.variable(Activation<double>::Constant(1, 1, at));
    tape.backward(f(x));
    return tape.gradient(x)(0, 0);
  };
  CHECK(slope([](const auto& x) { return abs(x); }, 0) == 0);
  CHECK(slope([](const auto& x) { return sqrt(x); }, 0) == infinite);
  CHECK(slope([](const auto& x) { return pow(x, 0); }, 0) == 0);
  CHECK(slope([](const auto& x) { return pow(x, 1); }, 0) == 1);
  CHECK(slope([](const auto& x) { return max(x, Var<double>(Activation<double>::Zero(1, 1))); }, 0) == 0.5);
  CHECK(slope([&](const auto& x) { return where(BoolArray::Constant(1, 1, false), x, -infinite); }, 1) == 0);
  const double none = std::numeric_limits<double>::quiet_NaN();
  const Var<double> one(Activation<double>::Ones(1, 1)), nan(Activation<double>::Constant(1, 1, none));
  CHECK(std::isnan(max(one, nan).item()));
  CHECK(std::isnan(max(nan, one).item()));
  const Var<float> far(Activation<float>::Constant(1, 1, -200.f));
  CHECK(sigmoid(far).item() < 1e-30f);
  CHECK(sigmoid(-far).item() == 1);
}

TEST_CASE("names of Eigen and of this library go together") {
  using namespace Eigen;
  const Activation<double> x = support::drawn(3, 2, 31, 0.5f, 2);
  const Var<double> v(x);
  support::check_equal(
      (exp(v) + log(v) * sqrt(v) - pow(v, 2) / abs(v) + tanh(v)).value(),
      Activation<double>(exp(x.array()) + log(x.array()) * sqrt(x.array()) - pow(x.array(), 2) / abs(x.array()) + tanh(x.array())));
  const Var<double> sums = sum(transpose(where(x.array() > 1, v, 0)), Dim::rows);
  const VectorXd expected = (x.array() > 1).select(x.array(), 0.0).rowwise().sum();
  support::check_equal(sums.value(), expected.transpose());
}
