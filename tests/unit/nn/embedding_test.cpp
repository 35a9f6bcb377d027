#include <doctest/doctest.h>

#include <vector>

#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/embedding.hpp>

using namespace lowrank;

TEST_CASE("Embedding looks rows up and adds their gradients, equal ids together") {
  Embedding<double> table(5, 3, 1);
  const std::vector<std::int32_t> ids{4, 0, 4, 2};
  const Activation<double> y = table(ids);
  for (Index t = 0; t < 4; ++t) CHECK(y.col(t) == table.table().value.row(ids[static_cast<std::size_t>(t)]).transpose());

  const auto lookup = [&](const std::vector<Var<double>>& v) { return table(*v[0].tape(), ids); };
  const auto report = gradcheck(lookup, {Activation<double>::Zero(1, 1)}, parameters(table));
  INFO(report.where);
  CHECK(report.worst < 2e-9);
  CHECK(table.table().grad.row(1).isZero(0));

  table.set_trainable(false);
  Tape<double> tape;
  CHECK(table(tape, ids).value() == y);
  CHECK(tape.size() == 0);
}

TEST_CASE("an id outside the table is an error") {
  Embedding<float> table(5, 3);
  const std::vector<std::int32_t> ids{1, 5};
  CHECK_THROWS_AS(table(ids), ValueError);
  CHECK_THROWS_AS(Embedding<float>(0, 3), ShapeError);
  CHECK_THROWS_AS(Embedding<float>(4, -3), ShapeError);
  CHECK_THROWS_AS(Embedding<float>(Index{1} << 40, Index{1} << 40), ShapeError);
}
