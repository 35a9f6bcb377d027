// A matrix in a format that is none.
// expect: QuantizedMatrix<Format>
#include <lowrank/quant.hpp>

struct Made {};

#if defined(WRONG)
using Matrix = lowrank::QuantizedMatrix<Made>;
#else
using Matrix = lowrank::QuantizedMatrix<lowrank::Nf4<64> >;
#endif

lowrank::Index rows(const Matrix& q) { return q.rows(); }
