#include <doctest/doctest.h>

#include <vector>

#include <lowrank/ops/embedding.hpp>

#include "ops_support.hpp"

using namespace lowrank;
using namespace ops_test;

TEST_CASE("embedding picks rows, its backward adds into them, equal ids more than once") {
  auto table = random_matrix<Weight<double>>(5, 70, 1);
  const std::vector<std::int32_t> ids{4, 0, 4};
  const DenseSource<double> source(table.data(), 5, 70);
  const auto g = random_matrix<Activation<double>>(70, 3, 2);
  const auto loss = [&] { return embedding_forward<double>(source, ids).cwiseProduct(g).sum(); };
  Weight<double> gradient = Weight<double>::Zero(5, 70);
  embedding_backward(gradient, ids, g);
  CHECK(gradient_error(table, gradient, loss) < gradient_tolerance);
  CHECK(embedding_forward(source, ids).col(2) == table.row(4).cast<float>().transpose());
  CHECK(embedding_forward(source, {}).cols() == 0);
}

TEST_CASE("an id outside the table is refused by its number and place") {
  Weight<float> table = Weight<float>::Zero(5, 2);
  const DenseSource<float> source(table.data(), 5, 2);
  const std::vector<std::int32_t> large{1, 5}, negative{-1};
  CHECK_THROWS_WITH_AS(embedding_forward(source, large),
                       "[embedding_forward] id 5 at token 1 is outside the table's 5 rows; ids must be in [0, 5)", ValueError);
  CHECK_THROWS_AS(embedding_forward(source, negative), ValueError);
  CHECK_THROWS_AS(embedding_backward(table, negative, Activation<float>::Zero(2, 1)), ValueError);
  CHECK_THROWS_AS(embedding_backward(table, large, Activation<float>::Zero(2, 1)), ShapeError);
}
