// Every kernel on the model of a GPU, compiled once for all tests.
#include <support/model_gpu.hpp>

#include <lowrank/cuda/kernels/list.hpp>

void simt_test::ModelGpu::launch(const lowrank::cuda::AnyKernel& kernel) {
  ++launches;
  run_or_record([this, kernel] {
    kernel.visit([this](const auto& k) {
      const auto shape = k.shape();
      if (shape.x > 0 && shape.y > 0 && shape.z > 0) model_.launch(shape, k);
    });
  });
}
