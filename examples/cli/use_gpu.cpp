#include <cli/common.hpp>

#if defined(LOWRANK_CLI_HAS_CUDA)
#include <lowrank/cuda/machine.hpp>
#include <lowrank/cuda/query.hpp>
#endif

namespace cli {

#if defined(LOWRANK_CLI_HAS_CUDA)

std::shared_ptr<void> use_gpu() {
  lowrank::check<lowrank::Error>(lowrank::cuda::is_available(), "device",
                                 "there is no NVIDIA GPU of compute capability 8.0 or more with a working driver; use --device cpu");
  return std::make_shared<lowrank::cuda::Use>(lowrank::cuda::open_gpu());
}

std::string gpu_name() { return lowrank::cuda::devices().front().name; }

#else

std::shared_ptr<void> use_gpu() {
  lowrank::fail<lowrank::Error>("device", "this program was built without CUDA; build it with nvcc and -DLOWRANK_CUDA=ON, or use ",
                                "--device cpu");
}

std::string gpu_name() { return {}; }

#endif

}  // namespace cli
