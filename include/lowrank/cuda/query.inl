#pragma once

#include <array>
#include <utility>

#include <dlfcn.h>

namespace lowrank::inline LOWRANK_ABI::cuda {

namespace detail {

/// The few functions of libcuda.so.1 that a list of devices takes (CUDA Driver API, sections "Initialization" and "Device Management").
struct Driver {
  using Init = int (*)(unsigned flags);
  using Count = int (*)(int* count);
  using Get = int (*)(int* device, int index);
  using Name = int (*)(char* name, int length, int device);
  using Attribute = int (*)(int* value, int attribute, int device);
  using Memory = int (*)(std::size_t* bytes, int device);
  using MemoryInfo = int (*)(std::size_t* free, std::size_t* total);

  Init init = nullptr;
  Count count = nullptr;
  Get get = nullptr;
  Name name = nullptr;
  Attribute attribute = nullptr;
  Memory memory = nullptr;
  MemoryInfo memory_info = nullptr;

  Driver() {
    void* const library = ::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);  // stays open: a driver is not meant to be unloaded
    if (library == nullptr) return;
    find(library, "cuInit", init);
    find(library, "cuDeviceGetCount", count);
    find(library, "cuDeviceGet", get);
    find(library, "cuDeviceGetName", name);
    find(library, "cuDeviceGetAttribute", attribute);
    find(library, "cuDeviceTotalMem_v2", memory);
    find(library, "cuMemGetInfo_v2", memory_info);
  }

  bool works() const { return init && count && get && name && attribute && memory && init(0) == 0; }

 private:
  template <class Function>
  static void find(void* library, const char* symbol, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library, symbol));
  }
};

LOWRANK_INLINE std::vector<DeviceInfo> list_devices() {
  constexpr int capability_major = 75, capability_minor = 76, multiprocessor_count = 16;  // CUdevice_attribute
  std::vector<DeviceInfo> devices;
  const Driver driver;
  int count = 0;
  if (!driver.works() || driver.count(&count) != 0) return devices;
  for (int index = 0, handle = 0; index < count; ++index) {
    DeviceInfo device;
    device.index = index;
    std::array<char, 256> name{};
    const bool known =
        driver.get(&handle, index) == 0 && driver.name(name.data(), static_cast<int>(name.size()) - 1, handle) == 0 &&
        driver.attribute(&device.major, capability_major, handle) == 0 && driver.attribute(&device.minor, capability_minor, handle) == 0 &&
        driver.attribute(&device.multiprocessors, multiprocessor_count, handle) == 0 && driver.memory(&device.bytes, handle) == 0;
    if (!known) continue;
    device.name = name.data();
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace detail

LOWRANK_INLINE const std::vector<DeviceInfo>& devices() {
  static const std::vector<DeviceInfo> list = detail::list_devices();
  return list;
}

LOWRANK_INLINE bool is_available() {
  for (const DeviceInfo& device : devices())
    if (device.major >= 8) return true;
  return false;
}

LOWRANK_INLINE MemoryUse memory_use() {
  static const detail::Driver driver;
  MemoryUse use;
  if (driver.memory_info == nullptr || driver.memory_info(&use.free, &use.total) != 0) return {};
  return use;
}

}  // namespace lowrank::inline LOWRANK_ABI::cuda
