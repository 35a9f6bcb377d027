// Its own program: the switch changes Eigen's inline functions.
#include <cstdlib>
#define EIGEN_RUNTIME_NO_MALLOC
#define eigen_assert(condition) ((condition) ? static_cast<void>(0) : std::abort())  // in every build
#include <doctest/doctest.h>

#include <limits>

#include <lowrank/nn/linear.hpp>
#include <lowrank/nn/lora_linear.hpp>

using namespace lowrank;

namespace {

/// No allocation by Eigen while this lives: it would stop the program.
struct NoMalloc {
  NoMalloc() { Eigen::internal::set_is_malloc_allowed(false); }
  ~NoMalloc() { Eigen::internal::set_is_malloc_allowed(true); }
};

template <int Rows, int Cols>
Activation<float, Rows, Cols> random_columns(std::uint64_t seed) {
  Activation<float, Rows, Cols> x;
  fill_uniform(x, 1, Random(seed));
  return x;
}

template <int Tokens>
void check_layer() {
  LoraLinear<Linear<float, 64, 64>, 4> layer{Linear<float, 64, 64>{{.bias = true}}, {.alpha = 8}};
  fill_uniform(layer.b().value, 0.5, Random(1));
  const auto x = random_columns<64, Tokens>(2), g = random_columns<64, Tokens>(3);
  Activation<float, 64, Tokens> y, dx;
  {
    const NoMalloc guard;
    y = layer(x);
    dx = layer.backward(x, g);
  }
  const Weight<float> w = layer.base().weight().value + 2 * layer.b().value * layer.a().value;
  const float tolerance = 64 * std::numeric_limits<float>::epsilon();
  CHECK(y.isApprox(((w * x).colwise() + layer.base().bias().value.col(0)).eval(), tolerance));
  CHECK(dx.isApprox(w.transpose() * g, tolerance));
  // The same gradients as a tape's.
  const Weight<float> da = layer.a().grad, db = layer.b().grad;
  layer.a().zero_grad(), layer.b().zero_grad();
  Tape<float> tape;
  tape.backward(layer(tape.variable(Activation<float>(x))), Activation<float>(g));
  CHECK(da.isApprox(layer.a().grad, tolerance));
  CHECK(db.isApprox(layer.b().grad, tolerance));
}

}  // namespace

TEST_CASE("a layer of static sizes runs forward and backward without allocating") {
  check_layer<1>();
  check_layer<8>();
}
