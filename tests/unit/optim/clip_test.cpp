#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <lowrank/optim/clip.hpp>

using namespace lowrank;

namespace {

struct Pair {
  Parameter<double> a{"a", Weight<double>::Zero(1, 2)}, b{"b", Weight<double>::Zero(1, 1)};
  std::vector<ParameterRef<double>> references{reference(a), reference(b)};
  Pair() {
    a.grad << 3, 4;
    b.grad << 12;
  }
};

}  // namespace

TEST_CASE("clipping scales all gradients to the norm, as torch does") {
  Pair pair;
  CHECK(clip_gradient_norm(pair.references, 1.0) == 13.0);
  const double tolerance = 4 * std::numeric_limits<double>::epsilon();
  CHECK(std::abs(pair.a.grad(0, 0) - 0.23076921301775288) < tolerance);
  CHECK(std::abs(pair.a.grad(0, 1) - 0.3076922840236705) < tolerance);
  CHECK(std::abs(pair.b.grad(0, 0) - 0.9230768520710115) < tolerance);
}

TEST_CASE("gradients below the norm are left as they are") {
  Pair pair;
  CHECK(clip_gradient_norm(pair.references, 14.0) == 13.0);
  CHECK(pair.b.grad(0, 0) == 12.0);
}

TEST_CASE("a norm that is not finite changes nothing and is returned") {
  Pair pair;
  pair.a.grad(0, 0) = std::numeric_limits<double>::infinity();
  CHECK(std::isinf(clip_gradient_norm(pair.references, 1.0)));
  CHECK(pair.b.grad(0, 0) == 12.0);
}

TEST_CASE("the bound must be positive") {
  Pair pair;
  CHECK_THROWS_AS(clip_gradient_norm(pair.references, 0.0), ValueError);
  CHECK(clip_gradient_norm(std::vector<ParameterRef<float>>{}, 1.0) == 0.0);
}
