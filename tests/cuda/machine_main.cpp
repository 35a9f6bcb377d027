// Runs the tests that are compiled in on a device; counted as skipped where there is none.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <doctest/doctest.h>

#include <lowrank/cuda/query.hpp>

int main(int argc, char** argv) {
  if (!lowrank::cuda::is_available()) {
    std::puts("skipped: no NVIDIA GPU that the kernels can run on");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
