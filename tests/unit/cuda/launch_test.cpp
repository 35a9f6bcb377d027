#include <lowrank/cuda/launch.hpp>
#include <lowrank/error.hpp>

#include <support/model_gpu.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;

TEST_CASE("pieces of the depth: enough blocks for the device, never more than tiles or scratch allow") {
  const cuda::Scratch scratch{nullptr, 1000};
  CHECK(cuda::splits_of(1, 64, 100, 132, scratch) == 10);   // the scratch holds ten partial outputs
  CHECK(cuda::splits_of(1, 64, 10, 132, scratch) == 16);    // four tiles each
  CHECK(cuda::splits_of(100, 64, 10, 132, scratch) == 3);   // two blocks a multiprocessor
  CHECK(cuda::splits_of(1000, 64, 10, 132, scratch) == 1);  // already so
  CHECK(cuda::splits_of(1, 7, 10, 132, scratch) == 1);      // too few tiles
  CHECK(cuda::splits_of(1, 64, 10, 132, cuda::Scratch{}) == 1);
}

TEST_CASE("the path of a product by its size and the device") {
  using cuda::choose_product;
  using Path = cuda::ProductPath;
  const cuda::DeviceTraits a100{108, 8}, h100{132, 9, true}, with_blas{132, 9, true, true}, b200{148, 10, false, true};
  CHECK(choose_product(4096, 4, false, h100) == Path::few);
  CHECK(choose_product(4096, 4, true, h100) == Path::small);
  CHECK(choose_product(4096, 8, false, h100) == Path::few);
  CHECK(choose_product(16, 4096, false, h100) == Path::small);
  CHECK(choose_product(16, 4096, false, with_blas) == Path::slices);
  CHECK(choose_product(4096, 512, false, a100) == Path::medium);
  CHECK(choose_product(4096, 513, false, a100) == Path::large);
  CHECK(choose_product(4096, 64, false, h100) == Path::wgmma_64);
  CHECK(choose_product(14336, 65, false, h100) == Path::wgmma_128);
  CHECK(choose_product(14336, 4096, true, with_blas) == Path::slices);
  CHECK(choose_product(14336, 64, true, with_blas) == Path::wgmma_64);
  CHECK(choose_product(14336, 256, true, b200) == Path::slices);
  simt_test::ModelGpu gpu;
  CHECK_THROWS_AS(cuda::multiply_by(gpu, Path::few, {}, true, {}), ValueError);
  CHECK_THROWS_AS(cuda::multiply_by(gpu, Path::wgmma_64, {}, false, {}), ValueError);
  CHECK_THROWS_AS(cuda::multiply_by(gpu, Path::slices, {}, false, {}), ValueError);
}
