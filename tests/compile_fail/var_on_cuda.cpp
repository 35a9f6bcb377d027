// An operation on a GPU's Var that no GPU kernel computes.
// expect: this operation on a Var runs on the CPU alone
#include <lowrank/autograd.hpp>
#include <lowrank/cuda.hpp>

#include <vector>

#if defined(WRONG)
using Place = lowrank::Cuda;
#else
using Place = lowrank::Cpu;
#endif

void f(const lowrank::Var<float, Place>& x) {
  tanh(x);
  relu(x);
  cross_entropy(x, std::vector<int>());
  x* x;
  x / 2;
  1 + x;
  softmax(x);
  matmul(x, x);
  lowrank::concat_rows({x, x});
  slice_rows(x, 0, 1);
  lowrank::where(lowrank::BoolArray(), x, 0);
  huber(x, {});
}

// What a GPU has.
void g(const lowrank::Var<float, lowrank::Cuda>& x) {
  -x + x - x;
  2 * x;
  x * 2;
}
