#include <doctest/doctest.h>

#include <10_transformer.hpp>

#include <lowrank/update/lora.hpp>

#include <exercises/difference.hpp>

TEST_CASE("exercise 10a: backward of a row of DoRA") {
  Eigen::VectorXd v(5), m(1), g(5);
  v << 0.5, -2.0, 1.5, 0.25, 1.0;
  g << 1.0, 0.5, -0.75, 2.0, 0.1;
  m << 1.7;
  const auto loss = [&] { return m[0] * v.normalized().dot(g); };
  const RowGradients gradients = dora_row_backward(v, m[0], g);
  CHECK((gradients.v - exercises::difference(v, loss)).norm() < 1e-8);
  CHECK(std::abs(gradients.m - exercises::difference(m, loss)[0]) < 1e-8);
}

TEST_CASE("exercise 10b: numbers that LoRA trains in a block") {
  const long d = 96, kv = 32, f = 256;
  for (const long r : {1, 8, 64}) {
    long count = 0;
    for (const auto& [out, in] : {std::pair{d, d}, {kv, d}, {kv, d}, {d, d}, {f, d}, {f, d}, {d, f}}) {
      const auto update = lowrank::make_lora(in, out, {.rank = r});
      count += update.a.size() + update.b.size();
    }
    CHECK(numbers_in_a_block(d, kv, f, r) == count);
  }
}
