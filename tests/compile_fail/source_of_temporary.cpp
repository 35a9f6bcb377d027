// A source of something that ends with the expression.
// expect: numbers: give the
// cases: 8
#include <lowrank/nn.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

template <class Owner>
auto named(const Owner& owner) {
  return owner.source();
}

void use(const Weight<float>& w, const Buffer& bytes) {
  Linear<float> dense(w);
  const auto source = dense.source();
  const WeightView view = AnyLinear(dense).visit([&](const auto&) { return WeightView(source); });
  (void)view;
#if WRONG == 1
  (void)Linear<float>(w).source();
#elif WRONG == 2
  (void)quantize<Nf4<64> >(source).source();
#elif WRONG == 3
  (void)QuantizedLinear{quantize<Nf4<64> >(source)}.source();
#elif WRONG == 4
  (void)AnyLinear(dense).source();
#elif WRONG == 5
  (void)StoredMatrix<float>(8, 8, bytes).source();
#elif WRONG == 6
  (void)AnyMatrix(StoredMatrix<float>(8, 8, bytes)).view();
#elif WRONG == 7
  (void)make_lora<float>(8, 6, {}).plan({});
#elif WRONG == 8
  (void)LoraLinear{dense}.plan();
#else
  (void)named(dense), (void)named(AnyLinear(dense)), (void)bytes;
#endif
}
