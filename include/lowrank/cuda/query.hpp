#pragma once

/// Which NVIDIA GPUs there are, for any program: needs no nvcc, no CUDA header and no CUDA library; the driver is opened at run time.

#include <cstddef>
#include <string>
#include <vector>

#include <lowrank/config.hpp>

namespace lowrank::inline LOWRANK_ABI::cuda {

struct DeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  ///< compute capability: 8.0, 9.0, 10.0
  std::size_t bytes = 0;     ///< of memory
  int multiprocessors = 0;
};

/// The GPUs of this machine, asked for once; empty where there is no driver. Never throws for want of a GPU.
const std::vector<DeviceInfo>& devices();

/// Whether the kernels can run: a GPU of compute capability 8.0 or more.
bool is_available();

/// Bytes of a device's memory, of all programs on it.
struct MemoryUse {
  std::size_t free = 0, total = 0;
};

/// The memory of the GPU that this thread uses (open_gpu); zeros where it uses none.
MemoryUse memory_use();

}  // namespace lowrank::inline LOWRANK_ABI::cuda

#if !defined(LOWRANK_COMPILED)
#include <lowrank/cuda/query.inl>
#endif
