#include <doctest/doctest.h>

#include <lowrank/product/backward.hpp>

#include "../ops/ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

namespace {

/// X ↦ T X.
class MatrixMap : public InputMap<double> {
 public:
  explicit MatrixMap(Weight<double> t) : t_(std::move(t)) {}
  Activation<double> operator()(const ActivationView<double>& x) const override { return t_ * x; }
  Activation<double> transposed(const ActivationView<double>& g) const override { return t_.transpose() * g; }

 private:
  Weight<double> t_;
};

/// One layer with everything that a plan can say.
struct Problem {
  Index out = 7, in = 5, r = 3;
  Weight<double> w = random_matrix<Weight<double>>(out, in, 1), a = random_matrix<Weight<double>>(r, in, 2),
                 b = random_matrix<Weight<double>>(out, r, 3), middle, t = random_matrix<Weight<double>>(in, in, 4),
                 delta = random_matrix<Weight<double>>(out, in, 5);
  Column<double> m = random_matrix<Column<double>>(out, 1, 6), n = Column<double>::LinSpaced(out, 0.5, 2),
                 bias = random_matrix<Column<double>>(out, 1, 7), layer_bias = random_matrix<Column<double>>(out, 1, 8);
  DenseSource<double> delta_source{delta.data(), out, in};
  bool maps = false, gains = false, has_delta = false, scales_bias = false;

  LayerPlan<double> layer(std::vector<TokenRange> ranges) const {
    LayerPlan<double> layer;
    layer.weight = WeightView(DenseSource<double>(w.data(), out, in));
    layer.out = out, layer.in = in, layer.trains_bias = true;
    layer.bias = {layer_bias.data(), out, 1};
    Plan<double> plan;
    plan.a = {a.data(), r, in}, plan.b = {b.data(), out, r}, plan.bias = {bias.data(), out, 1};
    plan.scale = 0.5;
    plan.trains_a = plan.trains_b = plan.trains_bias = true;
    if (middle.size() > 0) plan.middle = {middle.data(), middle.rows(), middle.cols()}, plan.trains_middle = true;
    if (maps) plan.input_map = std::make_shared<MatrixMap>(t), plan.trains_input_map = true;
    if (gains) plan.gain = {m.cwiseQuotient(n), m.data(), n, scales_bias}, plan.trains_gain = true;
    if (has_delta) plan.delta = WeightView(delta_source);
    layer.plans.push_back(plan);
    for (const TokenRange range : ranges) layer.parts.push_back({0, range});
    return layer;
  }
  /// The formula, token by token.
  Activation<double> expected(const Activation<double>& x, const std::vector<TokenRange>& ranges) const {
    Activation<double> y = (w * x).colwise() + layer_bias;
    for (const auto [begin, count] : ranges) {
      const Activation<double> part = x.middleCols(begin, count);
      Activation<double> h = a * part;
      if (middle.cols() == 1) h = middle.col(0).asDiagonal() * h;
      if (middle.cols() > 1) h = middle * h;
      Activation<double> v = (maps ? Activation<double>(w * (t * part)) : Activation<double>(w * part)) + 0.5 * b * h;
      if (has_delta) v += 0.5 * delta * part;
      if (gains && scales_bias) v.colwise() += layer_bias;
      if (gains) v = m.cwiseQuotient(n).asDiagonal() * v;
      if (!(gains && scales_bias)) v.colwise() += layer_bias;
      y.middleCols(begin, count) = v.colwise() + 0.5 * bias;
    }
    return y;
  }
};

void check_problem(Problem p, const std::vector<TokenRange>& ranges, bool keeps_unscaled) {
  auto x = random_matrix<Activation<double>>(p.in, 6, 9);
  const auto g = random_matrix<Activation<double>>(p.out, 6, 10);
  const auto run = [&] {
    const LayerPlan<double> layer = p.layer(ranges);
    return group_forward<double>(std::span(&layer, 1), x, {.is_recorded = true, .keeps_unscaled = keeps_unscaled});
  };
  const auto loss = [&] { return run().y.front().cwiseProduct(g).sum(); };
  const LayerPlan<double> layer = p.layer(ranges);
  const auto forward = run();
  CHECK(largest_difference(forward.y.front(), p.expected(x, ranges)) < 1e-12);
  const auto y = std::make_shared<const Activation<double>>(forward.y.front());
  const auto gradients =
      group_backward<double>(std::span(&layer, 1), x, forward, {y}, {g}, true, {.is_recorded = true, .keeps_unscaled = keeps_unscaled});
  const auto& own = gradients.plans[0][0];
  CHECK(gradient_error(x, gradients.dx, loss) < gradient_tolerance);
  CHECK(gradient_error(p.a, own.a, loss) < gradient_tolerance);
  CHECK(gradient_error(p.b, own.b, loss) < gradient_tolerance);
  CHECK(gradient_error(p.bias, own.bias, loss) < gradient_tolerance);
  CHECK(gradient_error(p.layer_bias, gradients.bias[0], loss) < gradient_tolerance);
  if (p.middle.size() > 0) CHECK(gradient_error(p.middle, own.middle, loss) < gradient_tolerance);
  if (p.gains) CHECK(gradient_error(p.m, own.gain, loss) < gradient_tolerance);
  if (p.maps) CHECK(gradient_error(p.t, Weight<double>(own.mapped * own.x.transpose()), loss) < gradient_tolerance);
}

}  // namespace

TEST_CASE("each part of a plan: the formula, and gradients as finite differences, for all tokens and for ranges of them") {
  const std::vector<std::vector<TokenRange>> all_ranges{{{0, 6}}, {{1, 2}, {4, 2}}};
  for (const auto& ranges : all_ranges) {
    for (const bool keeps_unscaled : {true, false}) {
      for (int parts = 0; parts < 32; ++parts) {
        CAPTURE(ranges.size());
        CAPTURE(keeps_unscaled);
        CAPTURE(parts);
        Problem p;
        p.maps = parts & 1, p.gains = parts & 2, p.has_delta = parts & 4, p.scales_bias = parts & 8;
        if (parts & 16) p.middle = random_matrix<Weight<double>>(3, parts & 1 ? 1 : 3, 11);
        check_problem(p, ranges, keeps_unscaled);
      }
    }
  }
}

TEST_CASE("a factor that does not fit is refused, with all shapes") {
  Problem p;
  p.a = Weight<double>::Zero(2, 5);
  LayerPlan<double> layer = p.layer({{0, 6}});
  layer.plans[0].a.rows = 2;
  CHECK_THROWS_WITH_AS(group_forward<double>(std::span(&layer, 1), Activation<double>::Zero(5, 6), {}),
                       doctest::Contains("A is [2, 5], B is [7, 3] but the layer is [7, 5]"), ShapeError);
}

TEST_CASE("updates of one layer for the same tokens add up") {
  Problem p;
  LayerPlan<double> layer = p.layer({{0, 4}});
  layer.plans.push_back(layer.plans[0]);
  layer.plans[1].scale = 0.25;
  layer.parts.push_back({1, {0, 4}});
  const auto x = random_matrix<Activation<double>>(5, 4, 12);
  const Activation<double> y = group_forward<double>(std::span(&layer, 1), x, {}).y.front();
  const Activation<double> expected = ((p.w + 0.75 * p.b * p.a) * x).colwise() + (p.layer_bias + 0.75 * p.bias);
  CHECK(largest_difference(y, expected) < 1e-12);
}
