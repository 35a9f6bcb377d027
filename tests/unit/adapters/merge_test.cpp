#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/update/init.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

using namespace lowrank;

namespace {

Weight<float> random_weight(Index rows, Index cols, double deviation, std::uint64_t seed) {
  Weight<float> w(rows, cols);
  fill_normal(w, deviation, Random(seed));
  return w;
}

Activation<float> random_columns(Index rows, Index cols, std::uint64_t seed) {
  Activation<float> x(rows, cols);
  fill_normal(x, 1, Random(seed));
  return x;
}

template <class Layer>
void set_update(Layer& layer, double deviation) {
  layer.b().value = random_weight(layer.out_features(), layer.rank(), deviation, 7);
}

template <class W>
Weight<float> dense(const W& source) {
  Weight<float> w(source.rows(), source.cols());
  source.decode(0, w.rows(), 0, w.cols(), w.data(), w.cols());
  return w;
}

const float epsilon = std::numeric_limits<float>::epsilon();

}  // namespace

TEST_CASE("merging into a dense layer gives what the layer gave, and unmerging its own bits, a thousand times") {
  const Linear<float> base(random_weight(40, 64, 0.1, 1), Column<float>::LinSpaced(40, -1, 1));
  LoraLinear layer{base, {.rank = 4, .alpha = 8, .lora_bias = true}};
  set_update(layer, 0.1);
  layer.update().bias.value = random_weight(40, 1, 1, 2);
  const auto x = random_columns(64, 5, 3);
  const Activation<float> before = layer(x);
  for (int cycle = 0; cycle < 1000; ++cycle) {
    const MergeReport report = merge(layer);
    if (cycle == 0) {
      CHECK(layer(x).isApprox(before, 64 * epsilon));
      CHECK(report.update_norm == doctest::Approx(double((2 * layer.b().value * layer.a().value).norm())));
      CHECK(report.error_norm == 0);
      CHECK(report.survived == 1);
      CHECK(report.codes_changed > 0.99);
    }
    unmerge(layer);
  }
  CHECK(layer.base().weight().value == base.weight().value);
  CHECK(layer(x) == before);
}

TEST_CASE("merging into four bits reports what is lost, and the base's bytes come back") {
  const Weight<float> w = random_weight(64, 128, 0.05, 4);
  const auto check_format = [&](auto matrix) {
    LoraLinear layer{QuantizedLinear{matrix}, {.rank = 4, .alpha = 4}};
    set_update(layer, 0.02);
    const auto x = random_columns(128, 3, 5);
    const Activation<float> before = layer(x);
    const MergeReport report = merge(layer);
    const Weight<float> base = dequantize(matrix), merged = dequantize(layer.merged().weight());
    const Weight<float> wanted = base + layer.b().value * layer.a().value;
    CHECK(report.error_norm == doctest::Approx(double((merged - wanted).norm())).epsilon(1e-4));
    CHECK(report.relative_error == doctest::Approx(double((merged - wanted).norm() / wanted.norm())).epsilon(1e-4));
    const double along = double((merged - base).cwiseProduct(wanted - base).sum() / (wanted - base).squaredNorm());
    CHECK(report.survived == doctest::Approx(along).epsilon(1e-3));
    CHECK(report.codes_changed > 0);
    CHECK(report.codes_changed < 1);
    CHECK(!layer(x).isApprox(before, 1e-4f));
    unmerge(layer);
    CHECK(layer(x) == before);
  };
  check_format(quantize<Nf4<64>>(w));
  check_format(quantize<Nf4<64, DoubleQuant>>(w));
  check_format(quantize<Q4_1>(w));
}

TEST_CASE("an update that is far below the steps of the codes does not survive, and the report says so") {
  LoraLinear layer{QuantizedLinear{quantize<Nf4<64>>(random_weight(32, 64, 0.05, 6))}, {.rank = 2, .alpha = 2}};
  set_update(layer, 1e-6);
  const MergeReport report = merge(layer);
  CHECK(std::abs(report.survived) < 0.5);
  CHECK(report.codes_changed < 0.01);
}

TEST_CASE("search finds scales with less error") {
  const auto matrix = quantize<Nf4<64>>(random_weight(64, 128, 0.05, 8));
  LoraLinear plain{QuantizedLinear{matrix}, {.rank = 4, .alpha = 4}}, searched{QuantizedLinear{matrix}, {.rank = 4, .alpha = 4}};
  set_update(plain, 0.05), set_update(searched, 0.05);
  CHECK(merge(searched, {.search = true}).error_norm < 0.98 * merge(plain).error_norm);
}

TEST_CASE("a merged DoRA layer computes the same") {
  DoraLinear layer{Linear<float>(random_weight(20, 32, 0.2, 9)), {.rank = 3, .alpha = 6}};
  set_update(layer, 0.1);
  layer.magnitude().value *= 1.25f;
  const auto x = random_columns(32, 4, 10);
  const Activation<float> before = layer(x);
  merge(layer);
  CHECK(layer(x).isApprox(before, 64 * epsilon));
}

TEST_CASE("bfloat16 is rounded once, from the sum in fp32") {
  const Weight<float> w = random_weight(16, 32, 1, 11);
  LoraLinear layer{FrozenLinear<BFloat16>{round_to<BFloat16>(DenseSource<float>(w.data(), 16, 32))}, {.rank = 2, .alpha = 2}};
  set_update(layer, 0.3);
  const Weight<float> base = dense(layer.base().weight()), sum = base + layer.b().value * layer.a().value;
  merge(layer);
  const Weight<float> merged = dense(layer.merged().weight());
  for (Index i = 0; i < merged.size(); ++i) CHECK(merged.data()[i] == static_cast<float>(BFloat16(sum.data()[i])));
}

TEST_CASE("a merged weight has the same bits however it is cut, for ranks below and above the columns that are formed at a time") {
  for (const Index rank : {1, 5, 200}) {
    const Index rows = 37, cols = 1100;
    LoraLinear layer{QuantizedLinear<Nf4<64>>{quantize<Nf4<64>>(random_weight(rows, cols, 0.05, 1))}, {.rank = rank, .alpha = 2}};
    set_update(layer, 0.1);
    Plan<float> plan = layer.plan();
    plan.gain.factors = Column<float>::LinSpaced(rows, 0.5f, 2);
    const MergedSource merged(layer.base().source(), plan);
    const Weight<float> whole = dense(merged);
    const Weight<float> expected = Column<float>::LinSpaced(rows, 0.5f, 2).asDiagonal() *
                                   (dequantize(layer.base().weight()) + layer.update().scale * layer.b().value * layer.a().value);
    CHECK(whole.isApprox(expected, 64 * epsilon));
    Weight<float> pieces(rows, cols);
    Weight<double> doubles(rows, cols);
    for (Index row = 0; row < rows; row += 5)
      for (Index col = 0; col < cols; col += 333) {
        const Index count = std::min<Index>(5, rows - row), length = std::min<Index>(333, cols - col);
        merged.decode(row, count, col, length, &pieces(row, col), cols);
        merged.decode(row, count, col, length, &doubles(row, col), cols);
      }
    CHECK(pieces == whole);
    CHECK(doubles == whole.cast<double>());
    const auto stored = quantize<Nf4<64>>(merged), from_dense = quantize<Nf4<64>>(whole);
    CHECK(dequantize(stored) == dequantize(from_dense));
    CHECK(dequantize(quantize<Q4_1>(merged)) == dequantize(quantize<Q4_1>(whole)));
  }
}

/// P X = X with its rows in reverse order.
struct Reversed : InputMap<float> {
  Activation<float> operator()(const ActivationView<float>& x) const override { return x.colwise().reverse(); }
  Activation<float> transposed(const ActivationView<float>& g) const override { return g.colwise().reverse(); }
};

TEST_CASE("a plan with all that a method may have is merged as it computes") {
  const Index rows = 20, cols = 70;
  const Weight<float> w = random_weight(rows, cols, 1, 1), a = random_weight(3, cols, 1, 2), b = random_weight(rows, 2, 1, 3),
                      middle = random_weight(2, 3, 1, 4), delta = random_weight(rows, cols, 1, 5), own = random_weight(rows, 1, 1, 6);
  const Column<float> gain = Column<float>::LinSpaced(rows, 0.5f, 2), bias = random_weight(rows, 1, 1, 7);
  Plan<float> plan;
  plan.a = {a.data(), 3, cols}, plan.b = {b.data(), rows, 2}, plan.middle = {middle.data(), 2, 3};
  plan.scale = 0.5f, plan.input_map = std::make_shared<Reversed>(), plan.gain = {.factors = gain, .scales_bias = true};
  plan.delta = DenseSource<float>(delta.data(), rows, cols), plan.bias = {own.data(), rows, 1};
  const Weight<float> sum = w.rowwise().reverse() + 0.5f * (b * middle * a + delta), expected = gain.asDiagonal() * sum;
  const MergedSource merged(DenseSource<float>(w.data(), rows, cols), plan);
  CHECK(dense(merged).isApprox(expected, 64 * epsilon));
  Weight<float> window(4, 11);
  merged.decode(7, 4, 30, 11, window.data(), 11);
  CHECK(window == dense(merged).block(7, 30, 4, 11));
  CHECK(merged_bias(plan, bias).isApprox(Column<float>(gain.asDiagonal() * bias + 0.5f * own), 4 * epsilon));
  CHECK_THROWS_AS(extract_update(plan, RankChoice::rank(2)), ValueError);

  plan.input_map = nullptr, plan.gain = {}, plan.delta = {};
  const Weight<float> factors = 0.5f * b * middle * a;
  const FittedUpdate exact = extract_update(plan, RankChoice::rank(2));
  CHECK(exact.fit.residual < 1e-6);
  CHECK(Weight<float>(exact.factors.b * exact.factors.a).isApprox(factors, 64 * epsilon));
  plan.delta = DenseSource<float>(delta.data(), rows, cols);
  const FittedUpdate whole = extract_update(plan, RankChoice::energy(1));
  CHECK(Weight<float>(whole.factors.b * whole.factors.a).isApprox(factors + 0.5f * delta, 1e-5f));
  CHECK(extract_update(plan, RankChoice::energy(0.5)).fit.residual <= std::sqrt(0.5));
}

TEST_CASE("an update of rank 0 changes nothing") {
  const Weight<float> w = random_weight(3, 5, 1, 1);
  Plan<float> update;
  update.a = {nullptr, 0, 5}, update.b = {nullptr, 3, 0};
  CHECK(dense(MergedSource(DenseSource<float>(w.data(), 3, 5), update)) == w);
}

template <class Format>
void check_changed_codes(Index rows, Index cols) {
  const Weight<float> w = random_weight(rows, cols, 0.05, 1), other = w + random_weight(rows, cols, 0.01, 2);
  const auto before = quantize<Format>(w), after = quantize<Format>(other);
  const BlockSource x = before.source(), y = after.source();
  Index changed = 0;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) changed += x.nibble(i * x.pitch + j) != y.nibble(i * y.pitch + j);
  const MergeReport report = merge_report(before, DenseSource<float>(other.data(), rows, cols), after);
  CHECK(report.codes_changed == doctest::Approx(static_cast<double>(changed) / static_cast<double>(rows * cols)));
  CHECK((changed > 0 || cols == 1));  // a single number of a block is its own minimum
}

TEST_CASE("changed codes are counted right where rows end inside a byte or a block") {
  for (const Index cols : {1, 31, 64, 97, 256}) {
    check_changed_codes<Nf4<64>>(7, cols);
    check_changed_codes<Q4_1>(7, cols);
  }
}

TEST_CASE("merging refuses what would not be finite, a second merge, and training while merged") {
  LoraLinear layer{Linear<float>(4, 4), {.rank = 2}};
  layer.b().value.setConstant(std::numeric_limits<float>::max());
  layer.a().value.setConstant(std::numeric_limits<float>::max());
  CHECK_THROWS_WITH_AS(merge(layer), doctest::Contains("not finite"), ValueError);
  CHECK(!layer.is_merged());
  CHECK_THROWS_AS(unmerge(layer), Error);
  layer.b().value.setZero();
  merge(layer);
  CHECK_THROWS_WITH_AS(merge(layer), doctest::Contains("already"), Error);
  Tape<float> tape;
  CHECK_THROWS_WITH_AS(layer(tape.variable(random_columns(4, 2, 1))), doctest::Contains("unmerge"), Error);
}
