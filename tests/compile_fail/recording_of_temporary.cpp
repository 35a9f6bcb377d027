// A recorded pass of a layer that ends with the expression.
// expect: the recording refers to the layer: give the layer a name first
// cases: 7
#include <lowrank/nn.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

Var<float> use(const Weight<float>& w, Tape<float>& tape, const Var<float>& x, std::span<const std::int32_t> ids) {
  Linear<float> dense(w);
#if WRONG == 1
  return Linear<float>(w)(x);
#elif WRONG == 2
  return QuantizedLinear{quantize<Nf4<64> >(w)}(x);
#elif WRONG == 3
  return LoraLinear{dense}(x);
#elif WRONG == 4
  return DoraLinear{dense}(x);
#elif WRONG == 5
  return AnyLinear(dense)(x);
#elif WRONG == 6
  return AnyLinear(dense).embed(&tape, ids);
#elif WRONG == 7
  return Embedding<float>(w)(tape, ids);
#else
  return Var<float>(LoraLinear{dense}(x.value())) + dense(x) + Var<float>(Embedding<float>(w)(ids)) + tape.input(x.value());
#endif
}
