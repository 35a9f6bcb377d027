// A program that uses the library as another project does.
#include <cstdio>

#include <lowrank/lowrank.hpp>

int main() {
  using namespace lowrank;
  const Weight<float> w = Weight<float>::Constant(8, 64, 0.5f);
  const auto q = quantize<Nf4<64>>(w);
  const Activation<float> y = multiply(q, Activation<float>::Ones(64, 2));
  std::printf("version %d.%d.%d, 64 weights of 0.5 times 1 sum to %g\n", LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR,
              LOWRANK_VERSION_PATCH, static_cast<double>(y(0, 0)));
  return y(0, 0) == 32.0f ? 0 : 1;
}
