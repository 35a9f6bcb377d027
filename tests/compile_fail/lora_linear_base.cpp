// An adapter around something that is no layer.
// expect: LoraLinear<Base, Rank>
#include <lowrank/nn.hpp>

struct NoLayer {};

#if defined(WRONG)
using Base = NoLayer;
#else
using Base = lowrank::Linear<float>;
#endif

lowrank::Activation<float> apply(const lowrank::LoraLinear<Base>& layer, const lowrank::Activation<float>& x) { return layer(x); }
