// Numbers in double for a layer in float, by every kind of layer.
// first: layer(x): x must have the layer's scalar
// cases: 12
#include <lowrank/nn.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

template <class Layer>
void use(const Layer& layer) {
  const Activation<float> x(64, 2);
  [[maybe_unused]] Activation<float> y = layer(x);
  [[maybe_unused]] const Activation<double> d(64, 2);
#if WRONG == 7
  y = layer(d);
#elif WRONG == 8
  y = layer(2 * d);
#elif WRONG == 9
  y = layer.product(d);
#elif WRONG == 10
  y = layer.transposed_product(d);
#elif WRONG == 11
  Eigen::MatrixXd z = layer(d);
#elif defined(WRONG)
  auto z = layer(d);
#endif
}

void use_all(const Weight<float>& w, const Buffer& bytes) {
  [[maybe_unused]] const Linear<float> dense(w);
  [[maybe_unused]] const LoraLinear lora{dense};
#if !defined(WRONG) || WRONG == 1
  use(dense);
#endif
#if !defined(WRONG) || WRONG == 2
  use(FrozenLinear<float>(StoredMatrix<float>(64, 64, bytes)));
#endif
#if !defined(WRONG) || WRONG == 3
  use(QuantizedLinear{quantize<Nf4<64>>(w)});
#endif
#if !defined(WRONG) || (WRONG >= 4 && WRONG != 5 && WRONG != 6 && WRONG != 12)
  use(lora);
#endif
#if !defined(WRONG) || WRONG == 5
  use(DoraLinear{dense});
#endif
#if !defined(WRONG) || WRONG == 6
  use(AnyLinear(dense));
#endif
#if !defined(WRONG) || WRONG == 12
  use(LoraLinear<Linear<float, 64, 64>, 2>(Linear<float, 64, 64>()));
#endif
}
