// Activations whose static number of rows is not the layer's.
// first: layer(x): x does not have the layer's rows
// cases: 4
#include <lowrank/nn.hpp>

using namespace lowrank;

#if defined(WRONG)
constexpr int in = 7;
#else
constexpr int in = 8;
#endif

Activation<float, 6, 3> use(const Linear<float, 8, 6>& dense, const LoraLinear<Linear<float, 8, 6>, 2>& lora) {
  [[maybe_unused]] const Activation<float, in, 3> x = Activation<float, in, 3>::Ones();
#if !defined(WRONG) || WRONG == 1
  return dense(x);
#elif WRONG == 2
  return lora(x);
#elif WRONG == 3
  auto y = dense(x);
  return y;
#else
  return dense.product(x);
#endif
}
