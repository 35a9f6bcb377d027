#include "autograd_support.hpp"

#include <cmath>
#include <limits>

#include <lowrank/autograd.hpp>

using namespace lowrank;

namespace {

namespace support = autograd_tests;
using ShapeVars = support::Vars;
using Plain = Activation<double>;

// f(Var) against an expression of arrays, and its gradient, at each shape.
template <class F, class Expected>
void check_values(const F& f, const Expected& expected, std::initializer_list<std::pair<Index, Index>> shapes) {
  std::uint64_t seed = 41;
  for (const auto& [rows, cols] : shapes) {
    const Plain x = support::drawn(rows, cols, seed++, -3, 3);
    support::check_equal(f(Var<double>(x)).value(), Plain(expected(x)));
    support::check_differences([&](const ShapeVars& v) { return f(v[0]); }, {x});
  }
}

Plain softmax_of(const Plain& x) {
  Plain y = x.array().exp().matrix();
  for (Index t = 0; t < x.cols(); ++t) y.col(t) /= y.col(t).sum();
  return y;
}

}  // namespace

TEST_CASE("products of two Vars, transposed or not") {
  for (const auto& [m, k, n] : {std::tuple<Index, Index, Index>{3, 5, 4}, {1, 1, 1}, {17, 9, 1}, {2, 0, 3}, {0, 3, 2}}) {
    const Plain a = support::drawn(m, k, 51), b = support::drawn(k, n, 52), at = a.transpose(), bt = b.transpose(), c = a * b;
    support::check_equal(matmul(Var<double>(a), Var<double>(b)).value(), c);
    support::check_equal(transposed_matmul(Var<double>(at), Var<double>(b)).value(), c);
    support::check_equal(matmul_transposed(Var<double>(a), Var<double>(bt)).value(), c);
    support::check_differences([](const ShapeVars& v) { return matmul(v[0], v[1]); }, {a, b});
    support::check_differences([](const ShapeVars& v) { return transposed_matmul(v[0], v[1]); }, {at, b});
    support::check_differences([](const ShapeVars& v) { return matmul_transposed(v[0], v[1]); }, {a, bt});
    const Var<float> narrow = matmul(Var<float>(a.cast<float>()), Var<float>(b.cast<float>()));
    if (c.size() > 0) CHECK((narrow.value().cast<double>() - c).cwiseAbs().maxCoeff() < 1e-5);
  }
  support::check_differences([](const ShapeVars& v) { return matmul_transposed(v[0], v[0]); }, {support::drawn(3, 4, 53)});
  CHECK(support::text_of_error<ShapeError>([] {
          matmul(Var<double>(Plain(2, 3)), Var<double>(Plain(2, 3)));
        }).find("the sum runs over 3 numbers on the left and 2 on the right") != std::string::npos);
}

TEST_CASE("transpose, reshape, slices") {
  check_values([](const auto& x) { return transpose(x); }, [](const Plain& x) { return x.transpose(); }, {{3, 4}, {1, 1}, {0, 2}});
  check_values([](const auto& x) { return reshape(x, x.cols(), x.rows()); },
               [](const Plain& x) { return Eigen::Map<const Plain>(x.data(), x.cols(), x.rows()); }, {{3, 4}, {1, 1}, {6, 1}, {0, 2}});
  check_values([](const auto& x) { return slice(x, 1, 2, 3, 1); }, [](const Plain& x) { return x.block(1, 2, 3, 1); }, {{4, 3}, {9, 5}});
  check_values([](const auto& x) { return slice_rows(x, 1, x.rows() - 1); }, [](const Plain& x) { return x.bottomRows(x.rows() - 1); },
               {{4, 3}, {1, 2}});
  check_values([](const auto& x) { return slice_cols(x, 0, x.cols()) * slice_cols(x, 0, 1); },
               [](const Plain& x) { return x.col(0).asDiagonal() * x; }, {{4, 3}, {1, 1}});
  const Var<double> x(support::drawn(4, 3, 54));
  CHECK(support::text_of_error<ShapeError>([&] { reshape(x, 5, 2); }).find("[reshape] x is [4, 3] but the result is to be [5, 2]") == 0);
  CHECK(support::text_of_error<ShapeError>([&] { slice_rows(x, 2, 3); }).find("[slice] x is [4, 3] but the block is rows 2 to 5") == 0);
  CHECK(support::text_of_error<ShapeError>([&] { slice_cols(x, -1, 1); }).find("[slice]") == 0);
}

TEST_CASE("slices that overlap, and what lies between them, add up in one gradient") {
  support::check_differences([](const ShapeVars& v) { return slice_rows(v[0], 0, 3) * slice_rows(v[0], 1, 3); },
                             {support::drawn(5, 2, 55)});
  support::check_differences([](const ShapeVars& v) { return v[0] * v[0] + broadcast_to(sum(slice(v[0], 1, 0, 2, 2)), 4, 2); },
                             {support::drawn(4, 2, 56)});
}

TEST_CASE("arrays put together, one below the other or side by side") {
  const Plain a = support::drawn(2, 3, 57), b = support::drawn(1, 3, 58), c = support::drawn(4, 3, 59), none(0, 3);
  Plain all(7, 3);
  all << a, b, c;
  support::check_equal(concat_rows({Var<double>(a), Var<double>(b), Var<double>(none), Var<double>(c)}).value(), all);
  support::check_equal(concat_rows(ShapeVars{Var<double>(all)}).value(), all);
  support::check_differences([](const ShapeVars& v) { return concat_rows({v[0], v[1], v[2], v[0]}); }, {a, b, c});
  const Var<double> at(a.transpose()), bt(b.transpose()), ct(c.transpose());
  support::check_equal(concat_cols({at, bt, ct}).value(), all.transpose());
  support::check_differences([](const ShapeVars& v) { return concat_cols(v); }, {at.value(), bt.value(), ct.value()});
  CHECK(support::text_of_error<ShapeError>([&] {
          concat_cols({Var<double>(a), Var<double>(b)});
        }).find("[concat_cols] the operands are [2, 3] and [1, 3]; they must have the same rows") == 0);
  CHECK(support::text_of_error<ShapeError>([&] { concat_rows(ShapeVars{}); }).find("[concat_rows] there is nothing") == 0);
}

TEST_CASE("sums, means and largest numbers, along a dimension or of all") {
  check_values([](const auto& x) { return sum(x, Dim::rows); }, [](const Plain& x) { return x.colwise().sum(); },
               {{19, 4}, {1, 1}, {0, 3}, {3, 0}});
  check_values([](const auto& x) { return sum(x, Dim::cols); }, [](const Plain& x) { return x.rowwise().sum(); },
               {{19, 4}, {1, 1}, {0, 3}, {3, 0}});
  check_values([](const auto& x) { return mean(x, Dim::rows); }, [](const Plain& x) { return x.colwise().mean(); }, {{19, 4}, {1, 1}});
  check_values([](const auto& x) { return mean(x, Dim::cols); }, [](const Plain& x) { return x.rowwise().mean(); }, {{19, 4}, {1, 1}});
  check_values([](const auto& x) { return mean(x); }, [](const Plain& x) { return Plain::Constant(1, 1, x.mean()); }, {{19, 4}, {1, 1}});
  check_values([](const auto& x) { return max(x, Dim::rows); }, [](const Plain& x) { return x.colwise().maxCoeff(); }, {{19, 4}, {1, 1}});
  check_values([](const auto& x) { return max(x, Dim::cols); }, [](const Plain& x) { return x.rowwise().maxCoeff(); }, {{19, 4}, {1, 1}});
  CHECK(mean(Var<double>(Plain(0, 3))).item() == 0);
  CHECK(support::text_of_error<ShapeError>([] { max(Var<double>(Plain(0, 3)), Dim::rows); }).find("[max] x is [0, 3]") == 0);
}

TEST_CASE("the first of equal numbers is the largest, and NaN before all") {
  Tape<double> tape;
  const auto x = tape.variable(Plain::Ones(3, 1));
  tape.backward(max(x, Dim::rows));
  CHECK(tape.gradient(x) == Plain(Eigen::Vector3d::Unit(0)));
  Plain with_nan = Plain::Ones(3, 1);
  with_nan(1, 0) = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(max(Var<double>(with_nan), Dim::rows).item()));
}

TEST_CASE("softmax and its logarithm, along both dimensions") {
  const auto log_of = [](const Plain& x) { return Plain(softmax_of(x).array().log().matrix()); };
  const auto turned = [](const Plain& x) { return Plain(x.transpose()); };
  check_values([](const auto& x) { return softmax(x); }, softmax_of, {{5, 4}, {1, 1}, {33, 2}, {0, 3}, {3, 0}});
  check_values([](const auto& x) { return log_softmax(x); }, log_of, {{5, 4}, {1, 1}, {33, 2}, {0, 3}, {3, 0}});
  check_values([](const auto& x) { return softmax(x, Dim::cols); }, [&](const Plain& x) { return turned(softmax_of(turned(x))); },
               {{5, 4}, {1, 1}});
  check_values([](const auto& x) { return log_softmax(x, Dim::cols); }, [&](const Plain& x) { return turned(log_of(turned(x))); },
               {{5, 4}, {1, 1}});
}

TEST_CASE("softmax of large and of masked numbers, in float and double") {
  const auto check_masked = [](auto number) {
    using S = decltype(number);
    Activation<S> x(3, 1);
    x << S(1000), S(1000), -std::numeric_limits<S>::infinity();
    const Var<S> y = softmax(Var<S>(x)), log_y = log_softmax(Var<S>(x));
    CHECK(y.value()(0, 0) == S(0.5));
    CHECK(y.value()(2, 0) == 0);
    CHECK(softmax(Var<S>(Activation<S>::Constant(2, 1, x(2, 0)))).value().isZero(0));
    CHECK(std::abs(log_y.value()(1, 0) + std::log(S(2))) < S(1e-6));
    CHECK(log_y.value()(2, 0) == -std::numeric_limits<S>::infinity());
  };
  check_masked(1.0f);
  check_masked(1.0);
}

TEST_CASE("layer norm: values, and gradients of input, weight and bias") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{6, 4}, {1, 1}, {19, 130}, {3, 0}}) {
    const Plain x = support::drawn(rows, cols, 61, -2, 2);
    Parameter<double> weight{"weight", support::drawn(rows, 1, 62)}, bias{"bias", support::drawn(rows, 1, 63)},
        none{"bias", Weight<double>()};
    Plain expected = x;
    for (Index t = 0; t < cols; ++t) {
      const Eigen::ArrayXd centred = x.col(t).array() - x.col(t).mean();
      expected.col(t) = (centred / std::sqrt(centred.square().mean() + 1e-5) * weight.value.array() + bias.value.array()).matrix();
    }
    support::check_equal(layer_norm(Var<double>(x), weight, bias).value(), expected);
    if (cols > 100) continue;  // two forward passes a number are enough of 24
    support::check_differences([&](const ShapeVars& v) { return layer_norm(v[0], weight, bias, 1e-2); }, {x},
                               {reference(weight), reference(bias)});
    support::check_differences([&](const ShapeVars& v) { return square(layer_norm(v[0], weight, none, 1e-2)); }, {x}, {reference(weight)});
    weight.trainable = bias.trainable = false;
    weight.zero_grad();
    support::check_differences([&](const ShapeVars& v) { return layer_norm(v[0], weight, bias, 1e-2); }, {x});
    CHECK(weight.grad.isZero(0));
  }
  Parameter<double> weight{"weight", Weight<double>::Ones(3, 1)}, bias{"bias", Weight<double>::Ones(2, 1)};
  CHECK(support::text_of_error<ShapeError>([&] {
          layer_norm(Var<double>(Plain(3, 2)), weight, bias);
        }).find("bias is [2] but x is [3, 2]") != std::string::npos);
  CHECK(support::text_of_error<ShapeError>([&] {
          layer_norm(Var<double>(Plain(4, 2)), weight, bias);
        }).find("weight is [3] but x is [4, 2]") != std::string::npos);
}

TEST_CASE("losses over numbers: values by their formulas, each reduction, gradients") {
  const Plain x = support::drawn(5, 4, 71, -3, 3), p = support::drawn(5, 4, 72, 0, 1), q = softmax_of(p);
  const Eigen::ArrayXXd logits = x.array(), t = p.array(), sigma = 1 / (1 + (-logits).exp());
  const Eigen::ArrayXXd bce = -(t * sigma.log() + (1 - t) * (1 - sigma).log());
  const Eigen::ArrayXXd e = (logits - t).abs(), huber_terms = (e <= 1.5).select(0.5 * e.square(), 1.5 * (e - 0.75));
  const Eigen::ArrayXXd divergence = q.array() * (q.array().log() - logits);
  const std::pair<Reduction, double> reductions[] = {{Reduction::mean, 20}, {Reduction::sum, 1}, {Reduction::batch_mean, 4}};
  for (const auto& [how, parts] : reductions) {
    const Reduction reduction = how;
    CHECK(binary_cross_entropy_with_logits(Var<double>(x), p, reduction).item() == doctest::Approx(bce.sum() / parts).epsilon(1e-13));
    CHECK(huber(Var<double>(x), p, 1.5, reduction).item() == doctest::Approx(huber_terms.sum() / parts).epsilon(1e-13));
    CHECK(kl_divergence(Var<double>(x), q, reduction).item() == doctest::Approx(divergence.sum() / parts).epsilon(1e-13));
    support::check_differences([&](const ShapeVars& v) { return 2 * binary_cross_entropy_with_logits(v[0], p, reduction); }, {x});
    support::check_differences([&](const ShapeVars& v) { return 2 * huber(v[0], p, 1.5, reduction); }, {x});
    support::check_differences([&](const ShapeVars& v) { return 2 * kl_divergence(log_softmax(v[0]), q, reduction); }, {x});
  }
  CHECK(huber(Var<double>(x), p).item() == huber(Var<double>(x), p, 1, Reduction::mean).item());
  CHECK(huber(Var<double>(Plain(0, 3)), Plain(0, 3)).item() == 0);
  CHECK(support::text_of_error<ShapeError>([&] { huber(Var<double>(x), Plain(5, 3)); }).find("[huber] x is [5, 4] but target is [5, 3]") ==
        0);
  CHECK(support::text_of_error<ValueError>([&] { huber(Var<double>(x), p, 0); }).find("[huber] delta is 0") == 0);
}

TEST_CASE("losses of extreme numbers stay finite") {
  const Var<float> x(Activation<float>::Constant(1, 1, -500.f));
  CHECK(binary_cross_entropy_with_logits(x, Activation<float>::Ones(1, 1)).item() == 500);
  CHECK(binary_cross_entropy_with_logits(x, Activation<float>::Zero(1, 1)).item() == 0);
  CHECK(kl_divergence(x, Activation<float>::Zero(1, 1)).item() == 0);
}

TEST_CASE("an attention head written with these operations equals attention()") {
  const Plain q = support::drawn(4, 3, 81), k = support::drawn(4, 3, 82), v = support::drawn(4, 3, 83);
  const auto head = [](const ShapeVars& x) {
    const auto scores = transposed_matmul(x[1], x[0]) / std::sqrt(4.0);  // Kᵀ Q [keys, queries]
    BoolArray visible(3, 3);
    for (Index i = 0; i < 3; ++i)
      for (Index j = 0; j < 3; ++j) visible(i, j) = i <= j;
    return matmul(x[2], softmax(where(visible, scores, -std::numeric_limits<double>::infinity())));
  };
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_size = 4};
  support::check_equal(head({Var<double>(q), Var<double>(k), Var<double>(v)}).value(),
                       attention(Var<double>(q), Var<double>(k), Var<double>(v), shape).value());
  support::check_differences(head, {q, k, v});
}

TEST_CASE("reshape refuses sizes that are negative or whose product overflows, huber a delta that is no number") {
  Tape tape;
  const auto x = tape.variable(Activation<float>::Ones(4, 0).eval());
  CHECK_THROWS_AS(reshape(x, -4, 0), ShapeError);
  CHECK_THROWS_AS(reshape(x, Index{1} << 32, Index{1} << 32), ShapeError);
  CHECK_THROWS_AS(reshape(x, 1, 1), ShapeError);
  CHECK_THROWS_AS(huber(x, Activation<float>::Ones(4, 0), std::nan("")), ValueError);
}
