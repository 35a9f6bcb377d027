#include <lowrank/cuda/kernels/product_few.hpp>
#include <lowrank/cuda/kernels/product_many.hpp>
#include <lowrank/cuda/kernels/product_wgmma.hpp>
#include <lowrank/cuda/launch.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/quant.hpp>

#include <type_traits>

#include <support/model_gpu.hpp>
#include <unit/kernels/fixtures.hpp>

#include "cuda_support.hpp"

using namespace lowrank;
using namespace cuda_test;
using simt_test::Machine;

namespace {

/// A matrix of each way to store one.
struct Base {
  const char* name;
  fixtures::Blocks blocks;
  cuda::ChunkedMatrix packed;
};
enum Format { nf4, nf4_doubled, q4_0, q4_1, q8_0, brain };
constexpr Format formats[] = {nf4, nf4_doubled, q4_0, q4_1, q8_0, brain};

Base make_base(Format format, Index rows, Index cols) {
  Base base{};
  if (format == nf4) base = {"nf4", fixtures::pairs(rows, cols, 64, false, 1), {}};
  if (format == nf4_doubled) base = {"nf4 with double quantization", fixtures::pairs(rows, cols, 64, true, 2), {}};
  if (format == q4_0) base = {"q4_0", fixtures::ggml(rows, cols, 4, false, 3), {}};
  if (format == q4_1) base = {"q4_1", fixtures::ggml(rows, cols, 4, true, 4), {}};
  if (format == q8_0) base = {"q8_0", fixtures::ggml(rows, cols, 8, false, 5), {}};
  if (format == brain) base = {"bf16", fixtures::ggml(rows, cols, 8, false, 6), {}};
  base.packed = format == brain ? cuda::to_bfloat16_chunks(base.blocks.source) : cuda::to_chunks(base.blocks.source);
  return base;
}

/// [W | adapter] or its transpose in double, W rounded to bfloat16 if asked, and the activations below each other.
struct Expected {
  std::vector<double> left;  // [rows, depth]
  std::vector<float> right;  // [tokens][depth]
  Index rows, depth, tokens;

  Expected(const Base& base, bool transposed, bool rounds, const Rows& x, const Rows& h, const Rows* adapter) : tokens(x.rows) {
    const auto& w = base.blocks.source;
    rows = transposed ? w.cols() : w.rows();
    const Index of_base = transposed ? w.rows() : w.cols(), rank = adapter ? h.cols : 0;
    depth = of_base + rank;
    std::vector<double> dense(static_cast<std::size_t>(w.rows() * w.cols()));
    w.decode(0, w.rows(), 0, w.cols(), dense.data(), w.cols());
    left.resize(static_cast<std::size_t>(rows * depth));
    right.resize(static_cast<std::size_t>(tokens * depth));
    for (Index i = 0; i < rows; ++i)
      for (Index k = 0; k < depth; ++k) {
        double value;
        if (k < of_base) {
          value = dense[static_cast<std::size_t>(transposed ? k * w.cols() + i : i * w.cols() + k)];
          if (rounds) value = static_cast<float>(BFloat16(static_cast<float>(value)));
        } else {
          value = static_cast<double>(transposed ? adapter->at(k - of_base, i) : adapter->at(i, k - of_base));
        }
        left[static_cast<std::size_t>(i * depth + k)] = value;
      }
    for (Index t = 0; t < tokens; ++t)
      for (Index k = 0; k < depth; ++k) right[static_cast<std::size_t>(t * depth + k)] = k < of_base ? x.at(t, k) : h.at(t, k - of_base);
  }

  double error(const std::vector<float>& y) const {
    const fixtures::Oracle oracle(DenseSource<double>(left.data(), rows, depth), right.data(), depth, tokens);
    return oracle.error(y.data(), rows, rows, tokens);
  }
  /// fp32 sums; that a weight is rounded to bfloat16 after rounding to fp32 moves it by an ulp in rare cases.
  double bound(bool rounds) const { return static_cast<double>(depth + 8) * 0x1p-24 + (rounds ? 0x1p-12 : 0); }
};

cuda::Product product_of(const Base& base, bool transposed, const Rows& x, const Rows& h, const Rows* adapter, std::vector<float>& y) {
  cuda::Product p;
  p.base = base.packed.view();
  p.x = x.operand();
  p.rows = transposed ? p.base.cols : p.base.rows;
  p.tokens = x.rows;
  if (adapter) p.h = h.operand(), p.update = adapter->update(transposed);
  y.assign(static_cast<std::size_t>(p.rows * p.tokens), -77.0f);
  p.y = y.data();
  p.ldy = p.rows;
  return p;
}

template <int Bits, bool Transposed, class Tile>
struct KernelOfTile : std::type_identity<cuda::ProductMany<Bits, Transposed, Tile>> {};
template <int Bits, bool Transposed, int Tokens>
struct KernelOfTile<Bits, Transposed, cuda::WgmmaTile<Tokens>>
    : std::type_identity<cuda::ProductWgmma<Bits, Transposed, cuda::WgmmaTile<Tokens>>> {};

/// Runs the product that a format needs: its number of bits is part of the kernel's type.
template <bool Transposed, class Tile>
void run_many(Machine& machine, const cuda::Product& p) {
  if (p.base.bits == 4) launch(machine, typename KernelOfTile<4, Transposed, Tile>::type{p});
  if (p.base.bits == 8) launch(machine, typename KernelOfTile<8, Transposed, Tile>::type{p});
  if (p.base.bits == 16) launch(machine, typename KernelOfTile<16, Transposed, Tile>::type{p});
  if (p.splits > 1) launch(machine, cuda::SumPartials{p});
}

template <bool Transposed, class Tile>
void check_many(Format format, Index rows, Index cols, Index tokens, Index rank, int splits = 1) {
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(tokens);
  CAPTURE(rank);
  const Base base = make_base(format, rows, cols);
  CAPTURE(base.name);
  const Index in = Transposed ? rows : cols, out = Transposed ? cols : rows;
  Machine setup;
  const Rows x(setup, random_numbers(tokens * in, 1), tokens, in), h(setup, random_numbers(tokens * rank, 2), tokens, rank);
  const Rows adapter =
      Transposed ? Rows(setup, random_numbers(rank * out, 3), rank, out) : Rows(setup, random_numbers(out * rank, 3), out, rank);
  const Rows* const update = rank > 0 ? &adapter : nullptr;
  const auto y = on_every_schedule([&](Machine& machine) {
    std::vector<float> result, partials(static_cast<std::size_t>(splits > 1 ? splits * out * tokens : 0));
    cuda::Product p = product_of(base, Transposed, x, h, update, result);
    p.splits = splits;
    p.partials = partials.data();
    run_many<Transposed, Tile>(machine, p);
    return result;
  });
  const Expected expected(base, Transposed, true, x, h, update);
  CHECK(expected.error(y) < expected.bound(true));
}

/// ProductFew rounds levels, not what scales make of them.
Base with_rounded_levels(Base base) {
  for (float& level : base.blocks.source.table) level = BFloat16(level);
  return base;
}

template <int Tokens>
void check_few(Format format, Index rows, Index cols, Index tokens, Index rank) {
  const Base base = make_base(format, rows, cols);
  CAPTURE(base.name);
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(tokens);
  Machine setup;
  const Rows x(setup, random_numbers(tokens * cols, 1), tokens, cols), h(setup, random_numbers(tokens * rank, 2), tokens, rank);
  const Rows b(setup, random_numbers(rows * rank, 3), rows, rank, 0.5f);
  const Rows* const update = rank > 0 ? &b : nullptr;
  const auto y = on_every_schedule([&](Machine& machine) {
    std::vector<float> result;
    const cuda::Product p = product_of(base, false, x, h, update, result);
    if (p.base.bits == 4) launch(machine, cuda::ProductFew<4, Tokens>{p, 2});
    if (p.base.bits == 8) launch(machine, cuda::ProductFew<8, Tokens>{p, 2});
    if (p.base.bits == 16) launch(machine, cuda::ProductFew<16, Tokens>{p, 2});
    return result;
  });
  const bool rounds = format == brain;
  const Expected expected(with_rounded_levels(base), false, rounds, x, h, update);
  CHECK(expected.error(y) < expected.bound(rounds));
}

/// What cuBLAS is asked for, from its definition.
void multiply_dense(const cuda::DenseProduct& d) {
  for (Index t = 0; t < d.tokens; ++t)
    for (Index i = 0; i < d.rows; ++i) {
      double sum = 0;
      for (Index k = 0; k < d.depth; ++k) {
        const float left = d.transposed ? d.left[k * d.left_stride + i] : d.left[i * d.left_stride + k];
        sum += static_cast<double>(left) * static_cast<double>(static_cast<float>(d.right[t * d.right_stride + k]));
      }
      float& y = d.y[t * d.ldy + i];
      y = static_cast<float>(d.accumulate ? static_cast<double>(y) + sum : sum);
    }
}

/// A machine with a slice of `room` numbers and a plain product.
class SlicingGpu : public simt_test::ModelGpu {
 public:
  SlicingGpu(simt_test::Schedule schedule, Index room, bool accumulates)
      : ModelGpu(schedule), memory_(static_cast<std::size_t>(room / 8)), room_(room), accumulates_(accumulates) {}

  cuda::SliceBuffer slice() const override { return {reinterpret_cast<BFloat16*>(const_cast<cuda::Word4*>(memory_.data())), room_}; }
  void multiply(const cuda::DenseProduct& dense) override {
    if (!accumulates_) CHECK(!dense.accumulate);  // no product of the update's own
    multiply_dense(dense);
  }

 private:
  std::vector<cuda::Word4> memory_;
  Index room_;
  bool accumulates_;
};

/// With a buffer of `room` numbers: several slices, the last one ragged.
template <bool Transposed>
void check_slices(Format format, Index rows, Index cols, Index tokens, Index rank, Index room, bool is_joined = false) {
  const Base base = make_base(format, rows, cols);
  CAPTURE(base.name);
  CAPTURE(Transposed);
  const Index in = Transposed ? rows : cols, out = Transposed ? cols : rows;
  Machine setup;
  const Rows x(setup, random_numbers(tokens * in, 1), tokens, in), h(setup, random_numbers(tokens * rank, 2), tokens, rank);
  const Rows adapter =
      Transposed ? Rows(setup, random_numbers(rank * out, 3), rank, out) : Rows(setup, random_numbers(out * rank, 3), out, rank);
  const Rows* const update = rank > 0 ? &adapter : nullptr;
  const JoinedRows joined(setup, x, h, 32);
  const std::vector<float> zeros(static_cast<std::size_t>(out));
  const auto y = on_every_schedule([&](Machine& machine) {
    std::vector<float> result;
    cuda::Product p = product_of(base, Transposed, x, h, update, result);
    p.bias = zeros.data();
    if (is_joined) p.x = joined.x, p.h = joined.h;
    SlicingGpu gpu(machine.schedule(), room, !is_joined);
    cuda::multiply_slices(gpu, p, Transposed);
    return result;
  });
  const Expected expected(base, Transposed, true, x, h, update);
  CHECK(expected.error(y) < expected.bound(true));
}

}  // namespace

TEST_CASE("packing moves codes and scales and changes no number") {
  for (const Format format : formats) {
    const Base base = make_base(format, 5, 96);
    CAPTURE(base.name);
    const auto& w = base.blocks.source;
    const cuda::ChunkedView view = base.packed.view();
    CHECK(view.bits == (format == brain ? 16 : format == q8_0 ? 8 : 4));
    std::vector<float> expected(96);
    for (Index row = 0; row < 5; ++row) {
      w.decode(row, 1, 0, 96, expected.data(), 96);
      for (int chunk = 0; chunk < view.chunks; ++chunk)
        for (int part = 0; part < 4; ++part) {
          const Index at = row * view.chunks + chunk;
          float out[8];
          const auto* codes = view.codes + at * view.words();
          if (view.bits == 4) cuda::decode_part<4>(codes, part, view.table, cuda::scale_of(view, at), out);
          if (view.bits == 8) cuda::decode_part<8>(codes, part, view.table, cuda::scale_of(view, at), out);
          if (view.bits == 16) cuda::decode_part<16>(codes, part, view.table, cuda::scale_of(view, at), out);
          for (int j = 0; j < 8; ++j) {
            const float number = expected[static_cast<std::size_t>(chunk * 32 + part * 8 + j)];
            CHECK(out[j] == doctest::Approx(format == brain ? static_cast<float>(BFloat16(number)) : number).epsilon(2e-7));
          }
        }
    }
  }
}

TEST_CASE("packing the library's own formats; what has no whole chunks becomes bfloat16") {
  const auto w = random_numbers(8 * 80, 9);
  const DenseSource<float> dense(w.data(), 8, 80);
  const auto chunks = [](const auto& q) { return cuda::to_chunks(q.source()); };
  const auto padded = chunks(quantize<Q4_1>(dense));  // rows end inside a block
  CHECK(padded.facts.bits == 4);
  CHECK(padded.facts.chunks == 3);
  CHECK(padded.facts.scaling == cuda::Scaling::halves);
  CHECK(padded.half_offsets.size() == 24);
  CHECK(chunks(quantize<Q4_0>(dense)).half_offsets.empty());
  CHECK(chunks(quantize<Nf4<64>>(dense)).facts.bits == 16);
  const DenseSource<float> whole(w.data(), 10, 64);
  CHECK(chunks(quantize<Nf4<64>>(whole)).facts.scaling == cuda::Scaling::floats);
  const auto doubled = chunks(quantize<Nf4<64, DoubleQuant>>(whole));
  CHECK(doubled.facts.scaling == cuda::Scaling::doubled);
  CHECK(doubled.bytes() == 10 * 32 + 10 + 4 + 1024);  // codes, codes of scales, a scale for 256 of them, the map
}

TEST_CASE("few tokens: the product of every format, with and without an adapter") {
  for (const Format format : formats) {
    check_few<2>(format, 5, 64, 1, 0);
    check_few<2>(format, 6, 2144, 2, 8);
    check_few<4>(format, 19, 96, 3, 20);
    check_few<8>(format, 33, 160, 7, 40);
  }
  check_few<4>(nf4, 4, 2080, 4, 260);  // more than one round of a warp, in the base and in the adapter
}

TEST_CASE("many tokens: the product of every format, ragged, with and without an adapter") {
  for (const Format format : formats) {
    check_many<false, cuda::SmallTile>(format, 70, 96, 19, 0);
    check_many<false, cuda::SmallTile>(format, 33, 448, 9, 8);  // more tiles of the depth than stages
  }
  check_many<false, cuda::SmallTile>(nf4, 1, 32, 1, 1);
  check_many<false, cuda::SmallTile>(q4_1, 65, 160, 17, 100);  // an adapter of two tiles
}

TEST_CASE("many tokens, transposed: the gradient of the input in every format") {
  for (const Format format : formats) {
    check_many<true, cuda::SmallTile>(format, 70, 96, 19, 0);
    check_many<true, cuda::SmallTile>(format, 330, 64, 9, 8);
  }
  check_many<true, cuda::SmallTile>(nf4, 1, 32, 1, 1);
  check_many<true, cuda::SmallTile>(q4_1, 65, 160, 17, 100);
}

TEST_CASE("many tokens: the larger tiles, and the depth in pieces") {
  check_many<false, cuda::MediumTile>(nf4, 130, 96, 70, 8);
  check_many<true, cuda::MediumTile>(q4_1, 70, 160, 70, 8);
  check_many<false, cuda::LargeTile>(nf4, 130, 96, 130, 8);
  check_many<true, cuda::LargeTile>(q8_0, 70, 160, 130, 8);
  check_many<false, cuda::SmallTile>(nf4, 20, 448, 9, 8, 3);
  check_many<true, cuda::SmallTile>(brain, 200, 64, 9, 8, 9);  // more pieces than tiles
}

TEST_CASE("many tokens on wgmma: codes of every width, ragged, both ways, with and without an adapter") {
  for (const Format format : {nf4_doubled, q8_0, brain}) {  // how formats are decoded is the other kernel's, tested above
    check_many<false, cuda::WgmmaTile<64>>(format, 70, 96, 19, 0);
    check_many<true, cuda::WgmmaTile<64>>(format, 70, 160, 19, 8);
  }
  check_many<false, cuda::WgmmaTile<64>>(nf4, 1, 32, 1, 1);
  check_many<true, cuda::WgmmaTile<64>>(nf4, 1, 32, 1, 1);
  check_many<false, cuda::WgmmaTile<64>>(q4_1, 130, 448, 70, 100);  // more tiles than stages, an adapter of two, two blocks each way
  check_many<true, cuda::WgmmaTile<64>>(q4_1, 330, 160, 70, 100);
}

TEST_CASE("many tokens on wgmma: the wider tiles, and the depth in pieces") {
  check_many<false, cuda::WgmmaTile<128>>(nf4, 130, 288, 130, 16);
  check_many<true, cuda::WgmmaTile<128>>(q8_0, 260, 160, 130, 16);
  check_many<true, cuda::WgmmaTile<128>>(brain, 330, 96, 130, 8);
  check_many<false, cuda::WgmmaTile<64>>(nf4, 20, 448, 9, 8, 3);
  check_many<true, cuda::WgmmaTile<64>>(brain, 200, 64, 9, 8, 9);  // more pieces than tiles
}

TEST_CASE("decoded slices and a plain product, both ways") {
  for (const Format format : formats) {
    check_slices<false>(format, 70, 96, 9, 8, 30 * 96);
    check_slices<true>(format, 70, 160, 9, 8, 70 * 64);
    check_slices<false>(format, 70, 96, 9, 8, 40 * 160, true);  // A x in the rows of x
    check_slices<true>(format, 70, 160, 9, 20, 160 * 64, true);
  }
  check_slices<false>(nf4, 5, 32, 2, 0, 1 << 12);
  CHECK_THROWS_WITH_AS(check_slices<true>(nf4, 70, 96, 2, 0, 64), doctest::Contains("takes at least 2240"), ShapeError);
}

TEST_CASE("outputs: bias, accumulation, and nothing written beside them") {
  const Base base = make_base(nf4, 37, 64);
  Machine setup;
  const Rows x(setup, random_numbers(5 * 64, 1), 5, 64);
  const auto bias = random_numbers(37, 4);
  const auto both = on_every_schedule([&](Machine& machine) {
    std::vector<float> plain, result(40 * 5, 100.0f), few = result;
    cuda::Product p = product_of(base, false, x, x, nullptr, plain);
    launch(machine, cuda::ProductMany<4, false, cuda::SmallTile>{p});
    p.bias = bias.data(), p.accumulate = true, p.ldy = 40, p.y = result.data();
    launch(machine, cuda::ProductMany<4, false, cuda::SmallTile>{p});
    p.tokens = 4, p.y = few.data();
    launch(machine, cuda::ProductFew<4, 4>{p});
    for (std::size_t t = 0; t < 5; ++t)
      for (std::size_t i = 0; i < 40; ++i) {
        const float expected = i < 37 ? 100 + (plain[t * 37 + i] + bias[i]) : 100;
        CHECK(result[t * 40 + i] == expected);
        CHECK(few[t * 40 + i] == doctest::Approx(t < 4 ? expected : 100).epsilon(1e-3));
      }
    return result;
  });
  CHECK(both.size() == 200);
}
