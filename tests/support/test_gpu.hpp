#pragma once

/// The machine that tests of the CUDA backend's host side run on: the model of a GPU, or, in tests/cuda/, a GPU.

#if defined(LOWRANK_TEST_ON_A_GPU)

#include <lowrank/cuda/machine.hpp>

namespace simt_test {
struct Schedule {};
inline constexpr Schedule schedules[3] = {};
inline std::shared_ptr<lowrank::cuda::Machine> test_gpu(Schedule = {}, bool = false) { return lowrank::cuda::open_gpu(); }
}  // namespace simt_test

#else

#include <support/model_gpu.hpp>

namespace simt_test {
inline std::shared_ptr<ModelGpu> test_gpu(Schedule schedule = {}, bool has_wgmma = false) {
  return std::make_shared<ModelGpu>(schedule, has_wgmma);
}
}  // namespace simt_test

#endif
