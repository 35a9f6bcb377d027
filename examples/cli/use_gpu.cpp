#include <cli/common.hpp>

namespace cli {

std::unique_ptr<lowrank::cuda::Use> use_gpu() {
#if defined(LOWRANK_CLI_HAS_CUDA)
  lowrank::check<lowrank::Error>(lowrank::cuda::is_available(), "device",
                                 "there is no NVIDIA GPU of compute capability 8.0 or more with a working driver; use --device cpu");
  return std::make_unique<lowrank::cuda::Use>(lowrank::cuda::open_gpu());
#else
  lowrank::fail<lowrank::Error>("device", "this program was built without CUDA; build it with nvcc and -DLOWRANK_CUDA=ON, or use ",
                                "--device cpu");
#endif
}

}  // namespace cli
