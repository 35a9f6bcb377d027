#include <lowrank/cuda/linear.hpp>
#include <lowrank/ops/lora.hpp>
#include <lowrank/quant.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

/// Launches on the model; the more multiprocessors it claims, the more pieces the depth is cut into.
struct Launch {
  Machine& machine;
  int claimed;
  bool wgmma = false;
  int launches = 0;

  int multiprocessors() const { return claimed; }
  bool has_wgmma() const { return wgmma; }
  template <class Kernel>
  void operator()(const Kernel& kernel) {
    ++launches;
    launch(machine, kernel);
  }
};

/// Memory of a LoraArrays, as DeviceLora allocates it.
struct Layer {
  std::vector<float> a, b, da, db, h, u, scratch;
  std::vector<std::vector<cuda::Word4>> kept;
  cuda::LoraArrays arrays;

  Layer(const cuda::PackedMatrix& base, int rank, float scale, int tokens)
      : a(random_numbers(rank * base.facts.cols, 1)),
        b(random_numbers(base.facts.rows * rank, 2)),
        da(a.size(), 1.0f),
        db(b.size(), 1.0f),
        h(static_cast<std::size_t>(tokens * rank)),
        u(h),
        scratch(static_cast<std::size_t>(3 * tokens * std::max(base.facts.rows, base.facts.cols))) {
    arrays.base = base.view();
    arrays.rank = rank;
    arrays.scale = scale;
    arrays.a = a.data(), arrays.b = b.data(), arrays.da = da.data(), arrays.db = db.data();
    arrays.h = h.data(), arrays.u = u.data();
    arrays.scratch = {scratch.data(), static_cast<Index>(scratch.size())};
    const auto allocate = [&](cuda::BrainRows& rows, Index count, int cols) {
      rows.cols = cols;
      kept.emplace_back(static_cast<std::size_t>(count * rows.stride() / 8));
      rows.data = reinterpret_cast<bfloat16*>(kept.back().data());
    };
    allocate(arrays.a16, rank, base.facts.cols), allocate(arrays.b16, base.facts.rows, rank);
    allocate(arrays.x16, tokens, base.facts.cols), allocate(arrays.h16, tokens, rank);
    allocate(arrays.g16, tokens, base.facts.rows), allocate(arrays.u16, tokens, rank);
  }
};

double difference(const float* y, const auto& expected, double before = 0) {
  double worst = 0;
  for (Index i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(y[i]) - before - expected.data()[i]));
  return worst / expected.cwiseAbs().maxCoeff();
}

/// Against ops/lora.hpp in double: each number differs by the rounding of its factors to bfloat16 only.
template <class Matrix>
void check_layer(const Matrix& w, Index rank, Index tokens, int multiprocessors, bool wgmma = false) {
  CAPTURE(tokens);
  CAPTURE(multiprocessors);
  const Index in = w.cols(), out = w.rows();
  const auto packed = cuda::pack(w.source());
  const auto x = random_numbers(in * tokens, 3), g = random_numbers(out * tokens, 4);
  const auto n = static_cast<std::size_t>(out * tokens), m = static_cast<std::size_t>(in * tokens);
  const auto all = on_every_schedule([&](Machine& machine) {
    Layer layer(packed, static_cast<int>(rank), 0.5f, static_cast<int>(tokens));
    Launch launch{machine, multiprocessors, wgmma};
    std::vector<float> result(n + m);
    cuda::refresh_factors(launch, layer.arrays);
    cuda::lora_forward(launch, layer.arrays, x.data(), static_cast<int>(tokens), result.data());
    cuda::lora_backward(launch, layer.arrays, g.data(), static_cast<int>(tokens), result.data() + n);
    result.insert(result.end(), layer.da.begin(), layer.da.end());
    result.insert(result.end(), layer.db.begin(), layer.db.end());
    return result;
  });
  const Layer layer(packed, static_cast<int>(rank), 0.5f, 1);
  const Weight<double> a = ConstWeightMap<float>(layer.a.data(), rank, in).template cast<double>(),
                       b = ConstWeightMap<float>(layer.b.data(), out, rank).template cast<double>();
  const Activation<double> xd = ConstActivationMap<float>(x.data(), in, tokens).template cast<double>(),
                           gd = ConstActivationMap<float>(g.data(), out, tokens).template cast<double>();
  const LowRank<double> update{{a.data(), rank, in}, {b.data(), out, rank}, 0.5};
  const auto forward = lora_forward(w, update, xd);
  const auto backward = lora_backward(w, update, xd, forward.h, gd);
  CHECK(difference(all.data(), forward.y) < 0x1p-7);
  CHECK(difference(all.data() + n, backward.dx) < 0x1p-7);
  CHECK(difference(all.data() + n + m, backward.da, 1) < 0x1p-7);
  CHECK(difference(all.data() + n + m + layer.a.size(), backward.db, 1) < 0x1p-7);
}

}  // namespace

TEST_CASE("a low-rank layer, forward and backward, as ops/lora.hpp") {
  const auto numbers = random_numbers(96 * 288, 9);
  const DenseSource<float> dense(numbers.data(), 96, 288);
  const auto nf4 = quantize<Nf4<64, DoubleQuant>>(dense);
  check_layer(nf4, 8, 1, 1);
  check_layer(nf4, 8, 3, 4);
  check_layer(nf4, 20, 40, 1);
  check_layer(nf4, 8, 40, 64);       // the depth in pieces
  check_layer(nf4, 8, 40, 1, true);  // wgmma
  check_layer(quantize<Q4_1>(dense), 4, 17, 8);
  check_layer(quantize<Q8_0>(dense), 4, 2, 8);
}

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
  Machine machine;
  Launch launch{machine, 1};
  CHECK_THROWS_AS(cuda::multiply_by<true>(launch, Path::few, {}, {}), ValueError);
  CHECK_THROWS_AS(cuda::multiply_by<false>(launch, Path::wgmma_64, {}, {}), ValueError);
  CHECK_THROWS_AS(cuda::multiply_by<false>(launch, Path::slices, {}, {}), ValueError);
}
