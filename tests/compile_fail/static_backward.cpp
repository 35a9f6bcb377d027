// A backward pass without a tape whose static sizes do not fit.
// first: backward(x, g): x must be [in, tokens] and g [out, tokens]
// cases: 4
#include <lowrank/nn.hpp>

using namespace lowrank;

#if !defined(WRONG)
using X = Activation<float, 8, 3>;
using G = Activation<float, 6, 3>;
#elif WRONG == 1
using X = Activation<float, 7, 3>;
using G = Activation<float, 6, 3>;
#elif WRONG == 2
using X = Activation<float, 8, 3>;
using G = Activation<float, 5, 3>;
#elif WRONG == 3
using X = Activation<float, 8, 3>;
using G = Activation<float, 6, 4>;
#else
using X = Activation<float, 8, 3>;
using G = Activation<double, 6, 3>;
#endif

Activation<float, 8, 3> use(LoraLinear<Linear<float, 8, 6>, 2>& layer, const X& x, const G& g) { return layer.backward(x, g); }
