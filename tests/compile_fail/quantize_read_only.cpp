// Writing a format that is only read.
// expect: quantize<Format>
#include <lowrank/quant.hpp>

#if defined(WRONG)
using Format = lowrank::Iq1S;
#else
using Format = lowrank::Q4_0;
#endif

lowrank::QuantizedMatrix<Format> packed(const lowrank::Weight<float>& w) { return lowrank::quantize<Format>(w); }
