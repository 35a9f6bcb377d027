// The headers under nvcc: as host code, and what is constexpr as device code too.
#include <lowrank/adapters.hpp>
#include <lowrank/io.hpp>
#include <lowrank/lowrank.hpp>

#include <lowrank/cuda.hpp>

__global__ void round_trip(float* values) { values[threadIdx.x] = lowrank::BFloat16(values[threadIdx.x]); }

lowrank::Weight<float> scaled(const lowrank::Weight<float>& w) { return 2.0f * w; }
