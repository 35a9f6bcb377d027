#include <doctest/doctest.h>

#include <lowrank/cuda/query.hpp>

using namespace lowrank;

TEST_CASE("the list of GPUs, in a program compiled without nvcc") {
  const auto& devices = cuda::devices();
  bool usable = false;
  for (const auto& device : devices) {
    CHECK(!device.name.empty());
    CHECK(device.major > 0);
    CHECK(device.bytes > 0);
    CHECK(device.multiprocessors > 0);
    usable = usable || device.major >= 8;
  }
  CHECK(cuda::is_available() == usable);
  CHECK(&cuda::devices() == &devices);
  if (devices.empty()) MESSAGE("no NVIDIA GPU here");
}
