#include <lowrank/cuda/machine.hpp>
#include <lowrank/cuda/query.hpp>

#include <cli/common.hpp>

namespace cli {

std::shared_ptr<void> use_gpu() {
#if defined(LOWRANK_CLI_HAS_CUDA)
  lowrank::check<lowrank::Error>(lowrank::cuda::is_available(), "device",
                                 "there is no NVIDIA GPU of compute capability 8.0 or more with a working driver; use --device cpu");
  return std::make_shared<lowrank::cuda::Use>(lowrank::cuda::open_gpu());
#else
  lowrank::fail<lowrank::Error>("device", "this program was built without CUDA; build it with nvcc and -DLOWRANK_CUDA=ON, or use ",
                                "--device cpu");
#endif
}

std::string gpu_name() { return lowrank::cuda::devices().front().name; }

}  // namespace cli
