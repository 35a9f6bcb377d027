// A program that uses the library as another project does, and knows what must come out.
#include <cmath>
#include <cstdio>

#if defined(SINGLE_HEADER)
#include "lowrank.hpp"
#else
#include <lowrank/quant/dequantize.hpp>
#include <lowrank/quant/error.hpp>
#include <lowrank/quant/nf4.hpp>
#endif

int main() {
  using namespace lowrank;
  Weight<float> w = Weight<float>::Constant(8, 64, 1.5f);
  w.col(0).setConstant(-2.0f);  // the largest of each block: NF4 stores w / 2
  const QuantizedMatrix<Nf4<64>> q = quantize<Nf4<64>>(w);
  const Weight<float> d = dequantize(q);
  const double error = quantization_error(w, q).max_abs;

  const double level = 0.7229568362236023;  // the entry of NF4's table next to 1.5 / 2 (Dettmers et al. 2023, appendix E)
  std::printf("lowrank %d.%d.%d: -2 is stored as %.7g, 1.5 as %.7g, error %.7g\n", LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR,
              LOWRANK_VERSION_PATCH, static_cast<double>(d(7, 0)), static_cast<double>(d(7, 63)), error);
  const bool right =
      d(7, 0) == -2.0f && std::abs(static_cast<double>(d(7, 63)) - 2 * level) < 1e-6 && std::abs(error - (1.5 - 2 * level)) < 1e-6;
  return right ? 0 : 1;
}
