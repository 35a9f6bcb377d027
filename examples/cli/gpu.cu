// The one unit of the command line that nvcc compiles: kernels and the machine that launches them.
#include <lowrank/cuda/gpu.hpp>
