#include <doctest/doctest.h>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/gemm.hpp>

#include "amx_model.hpp"
#include "fixtures.hpp"

using namespace fixtures;
using kernels::Columns;
using kernels::Options;

namespace {

/// Multiplies on every target and with every arithmetic, and compares with double.
template <class S>
void check_product(const S& source, Index tokens) {
  const Index rows = source.rows(), depth = source.cols(), ldx = depth + 3, ldy = rows + 5;
  const auto x = random_floats(ldx * tokens, 7);
  const Oracle oracle(source, x.data(), ldx, tokens);
  for_each_target_and_model([&](const kernels::Target&) {
    for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8}) {
      CAPTURE(kernels::target_name());
      CAPTURE(static_cast<int>(compute));
      CAPTURE(rows);
      CAPTURE(depth);
      CAPTURE(tokens);
      std::vector<float> y(static_cast<std::size_t>(ldy * tokens), std::numeric_limits<float>::quiet_NaN());
      kernels::multiply(source, x.data(), ldx, tokens, y.data(), ldy, Options{.compute = compute});
      CHECK(oracle.error(y.data(), ldy, rows, tokens) <= bound(compute, depth));
      for (Index t = 0; t < tokens; ++t) CHECK(!is_finite(y[static_cast<std::size_t>(t * ldy + rows)]));  // nothing written past the rows
    }
  });
}

}  // namespace

TEST_CASE("dense products at sizes around panel borders") {
  for (Index rows : {1, 7, 8, 9, 23, 24, 25, 47, 48, 49, 100})
    for (Index depth : {1, 2, 15, 16, 17, 63, 65})
      for (Index tokens : {1, 3, 4, 5, 8, 9, 17}) {
        const auto w = random_floats(rows * depth, 1);
        check_product(DenseSource<float>(w.data(), rows, depth), tokens);
      }
}

TEST_CASE("dense products over several blocks of depth and tokens") {
  for (auto [rows, depth, tokens] : {std::array<Index, 3>{50, 1023, 9}, {49, 1025, 16}, {97, 2049, 33}, {200, 130, 70}}) {
    const auto w = random_floats(rows * depth, 1);
    check_product(DenseSource<float>(w.data(), rows, depth), tokens);
    check_product(transposed(DenseSource<float>(w.data(), depth, rows)), tokens);
  }
}

TEST_CASE("a depth that is packed in several parts") {
  const Index rows = 19, depth = 20001, tokens = 17;
  const auto w = random_floats(rows * depth, 1);
  check_product(transposed(DenseSource<float>(w.data(), depth, rows)), tokens);
}

TEST_CASE("no rows, no tokens, no depth") {
  const auto w = random_floats(64, 1);
  const auto x = random_floats(64, 2);
  std::vector<float> y(64, 3.0f);
  kernels::multiply(DenseSource<float>(w.data(), 0, 8), x.data(), 8, 4, y.data(), 8);
  kernels::multiply(DenseSource<float>(w.data(), 8, 8), x.data(), 8, 0, y.data(), 8);
  CHECK(y[0] == 3.0f);
  for_each_target_and_model([&](const kernels::Target&) {
    std::fill(y.begin(), y.end(), 3.0f);
    kernels::multiply(DenseSource<float>(w.data(), 8, 0), x.data(), 8, 4, y.data(), 8);
    CHECK(y[0] == 0.0f);
    CHECK(y[31] == 0.0f);
    CHECK(y[32] == 3.0f);
  });
}

TEST_CASE("16-bit dense sources, straight and transposed") {
  for (auto [rows, depth, tokens] : {std::array<Index, 3>{50, 77, 9}, {17, 130, 11}}) {
    const auto w = random_floats(rows * depth, 1);
    std::vector<BFloat16> brain(w.size());
    std::vector<Half> small(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) brain[i] = BFloat16(w[i]), small[i] = Half(w[i]);
    check_product(DenseSource<BFloat16>(brain.data(), rows, depth), tokens);
    check_product(DenseSource<Half>(small.data(), rows, depth), tokens);
    check_product(transposed(DenseSource<BFloat16>(brain.data(), rows, depth)), tokens);
    check_product(transposed(DenseSource<Half>(small.data(), rows, depth)), tokens);
  }
}

TEST_CASE("quantized sources, straight and transposed, aligned and not") {
  for (auto [rows, depth, tokens] : {std::array<Index, 3>{50, 128, 9}, {17, 192, 11}, {100, 1088, 10}, {49, 64, 1}, {3, 320, 2}}) {
    for (bool doubly : {false, true}) {
      const Blocks b = pairs(rows, depth, 64, doubly, 3);
      check_product(b.source, tokens);
      check_product(transposed(b.source), tokens);
    }
    for (int bits : {4, 8}) {
      const Blocks b = ggml(rows, depth, bits, false, 4);
      check_product(b.source, tokens);
      check_product(transposed(b.source), tokens);
    }
    const Blocks b = ggml(rows, depth, 4, true, 5);
    check_product(b.source, tokens);
    check_product(transposed(b.source), tokens);
  }
  for (auto [rows, depth] :
       {std::pair<Index, Index>{50, 77}, {33, 100}, {9, 33}, {5, 1}}) {  // blocks straddle rows; odd rows begin inside a byte
    const Blocks b = pairs(rows, depth, 64, false, 6);
    check_product(b.source, 10);
    check_product(transposed(b.source), 10);
  }
}

TEST_CASE("few tokens: every count, rows around the blocks of rows, dense parts and layers with an update") {
  for (Index tokens : {1, 2, 3, 4, 5, 7, 8, 9})
    for (Index rows : {1, 5, 8, 30}) {
      const Index depth = 160, rank = 5;
      const auto b = random_floats(rows * rank, 2), a = random_floats(rank * depth, 3);
      const DenseSource<float> low(b.data(), rows, rank), high(a.data(), rank, depth);
      const Blocks w = ggml(rows, depth, 4, true, 1), v = pairs(rows, 2 * depth, 64, true, 1), u = ggml(rows, depth, 8, false, 1);
      check_product(concat_depth(w.source, scaled(low, 0.5f)), tokens);
      check_product(concat_rows(scaled(u.source, 0.25f), high), tokens);
      check_product(concat_depth(v.source, low), tokens);
    }
}

TEST_CASE("super-blocks with scales of the format's own, for few tokens and many, straight and transposed") {
  for (auto [rows, depth] : {std::pair<Index, Index>{5, 256}, {13, 768}, {9, 4352}})
    for (Index tokens : {1, 3, 8, 14}) {
      const Blocks b = super_blocks(rows, depth, 1);
      check_product(b.source, tokens);
      check_product(transposed(b.source), tokens);
      check_product(concat_rows(scaled(b.source, -2.0f), b.source), tokens);
    }
}

TEST_CASE("composed sources") {
  const Index rows = 70, depth = 192, rank = 5, tokens = 19;
  const Blocks w = pairs(rows, depth, 64, false, 1);
  const auto b = random_floats(rows * rank, 2), a = random_floats(rank * depth, 3), v = random_floats(31 * depth, 4);
  const DenseSource<float> low(b.data(), rows, rank), high(a.data(), rank, depth), other(v.data(), 31, depth);
  check_product(concat_depth(w.source, scaled(low, 0.5f)), tokens);
  check_product(concat_depth(scaled(low, 2.0f), w.source), tokens);  // the quantized part begins at odd depth
  check_product(concat_rows(w.source, high), tokens);
  check_product(concat_rows(high, concat_rows(w.source, other)), tokens);
  check_product(transposed(concat_depth(w.source, scaled(low, 0.5f))), tokens);
  check_product(concat_depth(transposed(w.source), transposed(scaled(high, 3.0f))), tokens);
  check_product(transposed(transposed(w.source)), tokens);
}

namespace {
/// A source that can do nothing but decode.
struct Ramp {
  Index rows() const { return 37; }
  Index cols() const { return 91; }
  template <class Scalar>
  void decode(Index row, Index count, Index col, Index length, Scalar* out, Index stride) const {
    for (Index i = 0; i < count; ++i)
      for (Index j = 0; j < length; ++j) out[i * stride + j] = static_cast<Scalar>((row + i) * 7 + (col + j) * 5) / Scalar(256) - Scalar(1);
  }
};
}  // namespace

TEST_CASE("any source with decode is multiplied") {
  check_product(Ramp{}, 12);
  check_product(transposed(Ramp{}), 12);
}

TEST_CASE("parts of an activation are stacked along the depth, a transposed part has its tokens side by side") {
  for (auto [top, bottom, tokens] : {std::array<Index, 3>{64, 6, 13}, {63, 6, 13}, {63, 5, 3}}) {
    const Index rows = 40;
    const auto w = random_floats(rows * (top + bottom), 1), x = random_floats((top + bottom) * tokens, 2);
    std::vector<float> side_by_side(static_cast<std::size_t>(bottom * tokens));
    for (Index t = 0; t < tokens; ++t)
      for (Index k = 0; k < bottom; ++k)
        side_by_side[static_cast<std::size_t>(k * tokens + t)] = x[static_cast<std::size_t>(t * (top + bottom) + top + k)];
    const DenseSource<float> source(w.data(), rows, top + bottom);
    for_each_target_and_model([&](const kernels::Target&) {
      for (Compute compute : {Compute::fp32, Compute::bf16}) {
        std::vector<float> whole(static_cast<std::size_t>(rows * tokens)), stacked = whole;
        kernels::multiply(source, x.data(), top + bottom, tokens, whole.data(), rows, {.compute = compute});
        const Columns parts[] = {{x.data(), top + bottom, top}, {side_by_side.data(), tokens, bottom, true}};
        kernels::multiply(source, parts, tokens, stacked.data(), rows, {.compute = compute});
        CHECK(whole == stacked);
      }
    });
  }
}

TEST_CASE("epilogue: row_scale times (product plus what was there) plus bias") {
  const Index rows = 53, depth = 40, tokens = 11;
  const auto w = random_floats(rows * depth, 1), x = random_floats(depth * tokens, 2), d = random_floats(rows, 3),
             b = random_floats(rows, 4);
  const auto before = random_floats(rows * tokens, 5);
  const DenseSource<float> source(w.data(), rows, depth);
  const Oracle oracle(source, x.data(), depth, tokens);
  for_each_target_and_model([&](const kernels::Target&) {
    auto y = before;
    kernels::multiply(source, x.data(), depth, tokens, y.data(), rows, {.accumulate = true, .row_scale = d.data(), .bias = b.data()});
    for (std::size_t i = 0; i < y.size(); ++i) {
      const auto row = i % static_cast<std::size_t>(rows);
      const double expected =
          (oracle.value[i] + static_cast<double>(before[i])) * static_cast<double>(d[row]) + static_cast<double>(b[row]);
      CHECK(std::abs(static_cast<double>(y[i]) - expected) <= 0x1p-24 * 48 * (oracle.magnitude[i] + 2.0));
    }
  });
}

TEST_CASE("the same bits for any number of threads and any neighbours") {
  const Index rows = 300, depth = 1280, tokens = 90;
  const Blocks b = ggml(rows, depth, 4, true, 5);
  const auto x = random_floats(depth * tokens, 2);
  const int threads = thread_count();
  for_each_target_and_model([&](const kernels::Target&) {
    for (Compute compute : {Compute::fp32, Compute::bf16}) {
      std::vector<float> one(static_cast<std::size_t>(rows * tokens)), many = one, few(static_cast<std::size_t>(rows * 20));
      set_thread_count(1);
      kernels::multiply(b.source, x.data(), depth, tokens, one.data(), rows, {.compute = compute});
      set_thread_count(3);
      kernels::multiply(b.source, x.data(), depth, tokens, many.data(), rows, {.compute = compute});
      kernels::multiply(b.source, x.data() + 31 * depth, depth, 20, few.data(), rows, {.compute = compute});
      set_thread_count(threads);
      CHECK(one == many);
      CHECK(std::equal(few.begin(), few.end(), one.begin() + 31 * rows));
    }
  });
}

TEST_CASE("few tokens: the same bits for any number of threads") {
  const Index rows = 301, depth = 1280;
  const Blocks b = ggml(rows, depth, 4, true, 5), w = pairs(rows, depth, 64, true, 6);
  const auto low = random_floats(rows * 3, 1), x = random_floats((2 * depth + 3) * 8, 2);
  const auto source = concat_depth(b.source, concat_depth(w.source, DenseSource<float>(low.data(), rows, 3)));
  const int threads = thread_count();
  for_each_target_and_model([&](const kernels::Target&) {
    for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
      for (Index tokens : {1, 4, 7}) {
        std::vector<float> one(static_cast<std::size_t>(rows * tokens)), many = one;
        set_thread_count(1);
        kernels::multiply(source, x.data(), 2 * depth + 3, tokens, one.data(), rows, {.compute = compute});
        set_thread_count(3);
        kernels::multiply(source, x.data(), 2 * depth + 3, tokens, many.data(), rows, {.compute = compute});
        set_thread_count(threads);
        CHECK(one == many);
      }
  });
}

TEST_CASE("an element is one chain of fused multiply-adds in the order of depth") {
  const Index rows = 27, tokens = 14;
  for (Index depth : {1, 63, 1100}) {
    const auto w = random_floats(rows * depth, 1), x = random_floats(tokens * depth, 2);
    std::vector<float> chain(static_cast<std::size_t>(rows * tokens));
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < rows; ++i)
        for (Index k = 0; k < depth; ++k) {
          float& sum = chain[static_cast<std::size_t>(t * rows + i)];
          sum = std::fma(w[static_cast<std::size_t>(i * depth + k)], x[static_cast<std::size_t>(t * depth + k)], sum);
        }
    for_each_target_and_model([&](const kernels::Target& target) {
      if (std::string_view(target.name) == "scalar") return;  // fused or not as the compiler likes
      std::vector<float> y(chain.size());
      kernels::multiply(DenseSource<float>(w.data(), rows, depth), x.data(), depth, tokens, y.data(), rows);
      CHECK(y == chain);
    });
  }
}

TEST_CASE("a wrong depth is an error that names the shapes") {
  const auto w = random_floats(64, 1);
  float y[8];
  const Columns part{w.data(), 7, 7};
  CHECK_THROWS_WITH_AS(kernels::multiply(DenseSource<float>(w.data(), 8, 8), std::span(&part, 1), 1, y, 8),
                       "[multiply] the source is [8, 8] but x is [7, 1]; the depth of x must be the columns of the source", ShapeError);
}

namespace {

/// A product with blocks has the bits of the same product with their numbers.
void check_bits_of_numbers(const BlockSource& source, const std::string& target) {
  const Index rows = source.rows(), cols = source.cols();
  std::vector<float> numbers(static_cast<std::size_t>(rows * cols));
  kernels::current_target().decode_blocks(source, 0, rows, 0, cols, numbers.data(), cols);
  std::vector<float> expected(numbers.size());
  source.decode(0, rows, 0, cols, expected.data(), cols);
  const DenseSource<float> dense(numbers.data(), rows, cols);
  CAPTURE(target);
  CAPTURE(source.group);
  CAPTURE(cols);
  CHECK(numbers == expected);
  for (const Compute compute : {Compute::fp32, Compute::bf16})
    for (const Index tokens : {9, 33}) {
      CAPTURE(tokens);
      const auto x = random_floats(std::max(rows, cols) * tokens, 5);
      std::vector<float> y(static_cast<std::size_t>(rows * tokens)), z = y;
      kernels::multiply(source, x.data(), cols, tokens, y.data(), rows, {.compute = compute});
      kernels::multiply(dense, x.data(), cols, tokens, z.data(), rows, {.compute = compute});
      CHECK(y == z);
      std::vector<float> dy(static_cast<std::size_t>(cols * tokens)), dz = dy;
      kernels::multiply(transposed(source), x.data(), rows, tokens, dy.data(), cols, {.compute = compute});
      kernels::multiply(transposed(dense), x.data(), rows, tokens, dz.data(), cols, {.compute = compute});
      CHECK(dy == dz);
    }
}

}  // namespace

TEST_CASE("rows of nibble pairs that begin inside groups and bytes: the bits of their numbers") {
  for_each_target([](const kernels::Target& target) {
    for (const bool doubly : {false, true})
      for (const Index group : {32, 64, 256})
        for (const Index cols : {17, 33, 63, 64, 65, 90, 96, 100, 168, 301})
          check_bits_of_numbers(pairs(cols % 2 == 1 ? 67 : 35, cols, group, doubly, 1).source, target.name);
  });
}
