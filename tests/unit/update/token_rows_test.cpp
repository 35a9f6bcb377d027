#include <doctest/doctest.h>

#include <algorithm>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/embedding.hpp>
#include <lowrank/update/token_rows.hpp>

#include "../nn/nn_support.hpp"

using namespace lowrank;
using nn_test::random_columns;

namespace {

constexpr Index token_count = 11, token_dim = 6;

TokenRows<double> some_rows() {
  TokenRows<double> own{{7, 2, 9}, {"rows", random_columns<double>(3, token_dim, 4)}};
  return own;
}

LoraWeights<double> table_update() {
  LoraWeights<double> update{.a = {"A", random_columns<double>(2, token_count, 5)}, .b = {"B", random_columns<double>(token_dim, 2, 6)}};
  update.scale = 1.5;
  return update;
}

}  // namespace

TEST_CASE("rows of tokens take the place of a table's columns and of a head's logits; gradients are finite differences") {
  TokenRows<double> own = some_rows();
  const std::vector<std::int32_t> ids{2, 5, 9, 2};
  const auto columns = [&](const std::vector<Var<double>>& x) { return replace_columns(x[0] * 2.0, ids, token_count, own); };
  const auto logits = [&](const std::vector<Var<double>>& x) { return replace_logits(x[0] * 2.0, x[1], own); };
  const auto y = random_columns<double>(token_dim, 4, 1), z = random_columns<double>(token_count, 4, 2),
             x = random_columns<double>(token_dim, 4, 3);
  const Activation<double> replaced = columns({Var<double>(y)}).value();
  CHECK(replaced.col(0) == own.rows.value.row(1).transpose());
  CHECK(replaced.col(1) == 2 * y.col(1));
  CHECK(replaced.col(2) == own.rows.value.row(2).transpose());
  CHECK(replaced.col(3) == replaced.col(0));
  const Activation<double> spoken = logits({Var<double>(z), Var<double>(x)}).value();
  for (Index token = 0; token < token_count; ++token) {
    const auto place = std::find(own.ids.begin(), own.ids.end(), token) - own.ids.begin();
    const Activation<double> want = place < 3 ? Activation<double>(own.rows.value.row(place) * x) : Activation<double>(2 * z.row(token));
    CHECK(spoken.row(token).isApprox(want.row(0), 1e-12));
  }
  CHECK(gradcheck(columns, {y}, {reference(own.rows)}).worst < 1e-7);
  CHECK(gradcheck(logits, {z, x}, {reference(own.rows)}).worst < 1e-7);
  own.ids[0] = token_count;
  CHECK_THROWS_AS(columns({Var<double>(y)}), ValueError);
  own = some_rows();
  own.ids.pop_back();
  CHECK_THROWS_AS(columns({Var<double>(y)}), ShapeError);
}

TEST_CASE("a head that follows its table's update, and DoRA of the table: the dense formula, and finite differences") {
  LoraWeights<double> update = table_update();
  const auto logits = [&](const std::vector<Var<double>>& x) { return add_table_logits(x[0] * 2.0, x[1], update); };
  const auto z = random_columns<double>(token_count, 4, 2), x = random_columns<double>(token_dim, 4, 3);
  const Activation<double> dense = 2 * z + update.scale * (update.b.value * update.a.value).transpose() * x;
  CHECK(logits({Var<double>(z), Var<double>(x)}).value().isApprox(dense, 1e-12));
  CHECK(gradcheck(logits, {z, x}, {reference(update.a), reference(update.b)}).worst < 1e-7);

  const Weight<double> table = random_columns<double>(token_count, token_dim, 8);
  DoraWeights<double> dora{table_update()};
  dora.magnitude.name = "m";
  dora.magnitude.value = random_columns<double>(token_dim, 1, 9);
  const DenseSource<double> source(table.data(), token_count, token_dim);
  const Weight<double> whole = table + dora.scale * (dora.b.value * dora.a.value).transpose();
  const Column<double> norms = dora_table_norms<double>(WeightView(source), dora);
  CHECK(norms.isApprox(whole.colwise().norm().transpose(), 1e-12));
  const auto y = random_columns<double>(token_dim, 5, 1);
  const auto scaled = [&](const std::vector<Var<double>>& in) { return scale_embedding(in[0] * 2.0, 1, 3, WeightView(source), dora); };
  Activation<double> want = 2 * y;
  want.middleCols(1, 3) = (dora.magnitude.value.col(0).array() / norms.array()).matrix().asDiagonal() * want.middleCols(1, 3);
  CHECK(scaled({Var<double>(y)}).value().isApprox(want, 1e-12));
  dora.gain = Column<double>::Constant(token_dim, 3);  // of inference with fixed numbers
  CHECK(scaled({Var<double>(y)}).value().col(1) == 6 * y.col(1));
  CHECK(gradcheck(scaled, {y}, {reference(dora.magnitude)}).worst < 1e-7);  // A and B are constants in n
}
