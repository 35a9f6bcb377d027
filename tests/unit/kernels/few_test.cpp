#include <doctest/doctest.h>

#include <initializer_list>
#include <string>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/kernels/driver/gemm.hpp>
#include <lowrank/quant.hpp>

#include "fixtures.hpp"

using namespace fixtures;
using kernels::Options;

namespace {

/// A matrix in one of ggml's formats from random bytes; the halves at the given places of each block are set to sensible scales, a
/// place of -1 makes byte 0 an exponent near one.
template <class Format>
QuantizedMatrix<Format> random_blocks(Index rows, Index cols, std::initializer_list<Index> scales, std::uint64_t seed) {
  Random random(seed);
  const Index blocks = rows * ceil_div(cols, Format::block);
  Buffer buffer = Buffer::allocate(static_cast<std::size_t>(blocks * Format::block_bytes));
  auto* bytes = buffer.mutable_as<std::byte>();
  for (Index i = 0; i < blocks * Format::block_bytes; ++i) bytes[i] = static_cast<std::byte>(random.bits());
  for (Index b = 0; b < blocks; ++b)
    for (Index at : scales) {
      if (at < 0)
        bytes[b * Format::block_bytes] = static_cast<std::byte>(120 + random.bits() % 8);
      else
        quant::store(bytes + b * Format::block_bytes + at, Half(random.uniform(-1.0f, 1.0f)));
    }
  return QuantizedMatrix<Format>(rows, cols, std::move(buffer));
}

/// Multiplies the first rows of a source, 1 to as many as there are, with 1 to 8 tokens on every target and with every arithmetic;
/// gives the largest error in units of its bound.
template <class S>
double worst_error(const S& source, const std::vector<Index>& row_counts, std::string& where) {
  const Index depth = source.cols(), ldx = depth + 1;
  const auto x = random_floats(ldx * 8, 7);
  double worst = 0;
  for (Index rows : row_counts) {
    S part = source;
    part.row_count = rows;
    const Oracle oracle(part, x.data(), ldx, 8);
    for_each_target([&](const kernels::Target&) {
      for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
        for (Index tokens = 1; tokens <= 8; ++tokens) {
          std::vector<float> y(static_cast<std::size_t>(rows * tokens + 1), 1e30f);
          kernels::multiply(part, x.data(), ldx, tokens, y.data(), rows, Options{.compute = compute});
          const double error = oracle.error(y.data(), rows, rows, tokens) / bound(compute, depth);
          if (!(error <= worst)) {
            worst = error;
            where = std::string(kernels::target_name()) + " compute " + std::to_string(static_cast<int>(compute)) + " rows " +
                    std::to_string(rows) + " depth " + std::to_string(depth) + " tokens " + std::to_string(tokens);
          }
          if (y.back() != 1e30f) worst = std::numeric_limits<double>::infinity();  // wrote past the end
        }
    });
  }
  return worst;
}

void check_source(const BlockSource& source, const std::vector<Index>& row_counts) {
  std::string where;
  const double worst = worst_error(source, row_counts, where);
  CAPTURE(where);
  CHECK(worst <= 1.0);
}

template <class Format>
void check_format(std::initializer_list<Index> scales) {
  CAPTURE(std::string(Format::name));
  for (Index cols = 32; cols <= 300; cols += 19) {
    const auto q = random_blocks<Format>(9, cols, scales, 1);
    const std::vector<Index> rows = cols % 3 == 0 ? std::vector<Index>{1, 2, 3, 4, 9} : std::vector<Index>{5, 6, 7, 8};
    check_source(q.source(), rows);
  }
}

}  // namespace

TEST_CASE("few tokens: ggml's formats at awkward sizes") {
  check_format<Q4_0>({0});
  check_format<Q4_1>({0, 2});
  check_format<Q8_0>({0});
  check_format<Iq4Nl>({0});
  check_format<Iq4Xs>({0});
  check_format<Mxfp4>({-1});
  check_format<Q4K>({0, 2});
}

TEST_CASE("few tokens: more scales than are read ahead") {
  const auto q4_k = random_blocks<Q4K>(5, 8192 + 300, {0, 2}, 1);
  const auto mxfp4 = random_blocks<Mxfp4>(5, 4096 + 40, {-1}, 1);
  check_source(q4_k.source(), {5});
  check_source(mxfp4.source(), {5});
  check_source(pairs(5, 8192 + 64, 32, true, 1).source, {5});
  check_source(pairs(2, 64 * 131, 64, true, 1).source, {2});
}

TEST_CASE("few tokens: nibble pairs with groups of 32 to 512, scales plain and doubly quantized") {
  for (Index group : {32, 64, 128, 256, 512})
    for (Index groups : {1, 2, 3})
      for (bool doubly : {false, true}) {
        CAPTURE(group);
        CAPTURE(doubly);
        const Blocks b = pairs(9, group * groups, group, doubly, 1);
        check_source(b.source, {1, 2, 3, 4, 9});
      }
}

TEST_CASE("few tokens: rows of nibble pairs that begin inside groups, chunks and bytes") {
  for (Index group : {32, 64, 128, 4096})
    for (Index cols : {20, 31, 33, 63, 65, 90, 96, 100, 168, 301}) {
      CAPTURE(group);
      CAPTURE(cols);
      for (bool doubly : {false, true}) {
        const Index rows = cols % 2 == 1 ? 140 : 45;
        check_source(pairs(rows, cols, group, doubly, 1).source, doubly ? std::vector<Index>{3, rows} : std::vector<Index>{1, rows - 2});
      }
    }
  check_source(pairs(5, 64 * 131 + 3, 64, true, 1).source, {5});
  check_source(pairs(5, 32 * 131 + 16, 32, true, 1).source, {5});
}

TEST_CASE("few tokens: ragged rows beside other parts, the same bits for any number of threads") {
  const Index rows = 203, depth = 1003;
  const Blocks w = pairs(rows, depth, 64, false, 1), v = pairs(90, depth, 64, true, 2);
  const auto b = random_floats((rows + 90) * 5, 3), x = random_floats((depth + 5) * 4, 4);
  const auto source = concat_depth(concat_rows(w.source, v.source), scaled(DenseSource<float>(b.data(), rows + 90, 5), 0.5));
  const int threads = thread_count();
  for_each_target([&](const kernels::Target& target) {
    for (Compute compute : {Compute::fp32, Compute::int8})
      for (Index tokens : {1, 4}) {
        CAPTURE(target.name);
        std::vector<float> one(static_cast<std::size_t>((rows + 90) * tokens)), many = one;
        set_thread_count(1);
        kernels::multiply(source, x.data(), depth + 5, tokens, one.data(), rows + 90, {.compute = compute});
        set_thread_count(3);
        kernels::multiply(source, x.data(), depth + 5, tokens, many.data(), rows + 90, {.compute = compute});
        set_thread_count(threads);
        CHECK(one == many);
        CHECK(Oracle(source, x.data(), depth + 5, tokens).error(one.data(), rows + 90, rows + 90, tokens) <= bound(compute, depth + 5));
      }
  });
}

TEST_CASE("few tokens: formats that no kernel reads as they lie") {
  for (Index cols : {32, 77, 300}) {
    const auto q6 = random_blocks<Q6K>(7, cols, {208}, 1);
    const auto q5 = random_blocks<Q5K>(7, cols, {0, 2}, 1);
    const auto x = random_floats(cols * 8, 7);
    for_each_target([&](const kernels::Target&) {
      for (Index tokens : {1, 3, 8})
        for (Compute compute : {Compute::fp32, Compute::int8}) {
          std::vector<float> y(static_cast<std::size_t>(7 * tokens));
          kernels::multiply(q6, x.data(), cols, tokens, y.data(), 7, {.compute = compute});
          CHECK(Oracle(q6, x.data(), cols, tokens).error(y.data(), 7, 7, tokens) <= bound(compute, cols));
          kernels::multiply(q5, x.data(), cols, tokens, y.data(), 7, {.compute = compute});
          CHECK(Oracle(q5, x.data(), cols, tokens).error(y.data(), 7, 7, tokens) <= bound(compute, cols));
        }
    });
  }
}

TEST_CASE("few tokens: any table, offsets, blocks of two groups") {
  const auto entries = random_floats(16, 3);
  const BlockSource::ReadScales varied = [](const BlockSource&, Index first, Index count, float* scale, float* offset) {
    for (Index i = 0; i < count; ++i)
      scale[i] = 0.5f + 0.125f * static_cast<float>((first + i) % 7), offset[i] = 0.25f * static_cast<float>((first + i) % 5) - 0.5f;
  };
  Random random(1);
  std::vector<std::byte> bytes;
  fill(bytes, 9 * 5 * 70, random);
  BlockSource s{.data = bytes.data(), .row_count = 9, .col_count = 320, .pitch = 320, .order = CodeOrder::nibble_halves};
  s.block = 64, s.block_bytes = 34 + 2, s.codes_at = 3, s.read_scales = varied;
  std::copy_n(entries.begin(), 16, s.table.begin());
  for (Index group : {32, 64})
    for (Index run : {16, 32}) {
      CAPTURE(group);
      CAPTURE(run);
      s.group = group, s.run = run;
      check_source(s, {1, 6});
    }
  s.order = CodeOrder::bytes, s.block_bytes = 70, s.run = 16;
  check_source(s, {9});
  s.order = CodeOrder::nibble_pairs;
  check_source(s, {9});
}

TEST_CASE("few tokens: scales at odd addresses, as a mapped file may have them") {
  Blocks b = pairs(6, 192, 64, false, 1);
  std::vector<std::byte> moved(b.scales.size() * 4 + 1);
  std::memcpy(moved.data() + 1, b.scales.data(), b.scales.size() * 4);
  b.source.scales = moved.data() + 1;
  const auto x = random_floats(192 * 8, 7);
  const Oracle oracle(b.source, x.data(), 192, 8);
  for_each_target([&](const kernels::Target& target) {
    if (target.fp32.lanes > 8) return;  // the others load them as aligned floats, which only a sanitizer minds
    for (Compute compute : {Compute::fp32, Compute::int8})
      for (Index tokens : {1, 3, 8}) {
        std::vector<float> y(static_cast<std::size_t>(6 * tokens));
        kernels::multiply(b.source, x.data(), 192, tokens, y.data(), 6, {.compute = compute});
        CHECK(oracle.error(y.data(), 6, 6, tokens) <= bound(compute, 192));
      }
  });
}

TEST_CASE("few tokens: dense parts that end inside a chunk, rows far apart") {
  const Index rows = 7, stride = 301;
  const auto w = random_floats((rows - 1) * stride + 300, 1);  // ends with the last row
  std::vector<BFloat16> brain(w.begin(), w.end());
  std::vector<Half> small(w.begin(), w.end());
  for (Index depth : {1, 7, 8, 31, 32, 33, 48, 63, 65, 300}) {
    const auto x = random_floats(depth * 8, 7);
    const auto check_dense = [&](const auto& source) {
      const Oracle oracle(source, x.data(), depth, 8);
      for_each_target([&](const kernels::Target&) {
        for (Compute compute : {Compute::fp32, Compute::bf16})
          for (Index tokens : {1, 2, 4, 5, 8}) {
            CAPTURE(std::string(kernels::target_name()));
            CAPTURE(depth);
            CAPTURE(tokens);
            std::vector<float> y(static_cast<std::size_t>(rows * tokens));
            kernels::multiply(source, x.data(), depth, tokens, y.data(), rows, {.compute = compute});
            CHECK(oracle.error(y.data(), rows, rows, tokens) <= bound(compute, depth));
          }
      });
    };
    check_dense(DenseSource<float>(w.data(), rows, depth, stride));
    check_dense(DenseSource<BFloat16>(brain.data(), rows, depth, stride));
    check_dense(DenseSource<Half>(small.data(), rows, depth, stride));
  }
}

TEST_CASE("few tokens: short dense rows have the bits of the same rows with zeros behind") {
  for (Index depth : {1, 8, 15, 16, 17, 31, 32, 40, 64, 128}) {
    const Index rows = 37, wide = 160, stride = depth + 3;
    const auto w = random_floats(rows * stride, 1), x = random_floats(depth, 2), before = random_floats(rows, 3);
    std::vector<float> longer(static_cast<std::size_t>(rows * wide)), x_longer(static_cast<std::size_t>(wide));
    for (Index i = 0; i < rows; ++i) std::copy_n(w.begin() + i * stride, depth, longer.begin() + i * wide);
    std::copy(x.begin(), x.end(), x_longer.begin());
    const auto check_kind = [&](auto zero) {
      using Element = decltype(zero);
      const std::vector<Element> near(w.begin(), w.end()), far(longer.begin(), longer.end());
      for (Index count : {1, 2, 15, 16, 17, 37})
        for (bool accumulate : {false, true})
          for_each_target([&](const kernels::Target& target) {
            CAPTURE(std::string(target.name));
            CAPTURE(depth);
            CAPTURE(count);
            const Options options{.accumulate = accumulate};
            std::vector<float> y = before, expected = before;
            kernels::multiply(scaled(DenseSource<Element>(near.data(), count, depth, stride), 0.3), x.data(), depth, 1, y.data(), count,
                              options);
            kernels::multiply(scaled(DenseSource<Element>(far.data(), count, wide), 0.3), x_longer.data(), wide, 1, expected.data(), count,
                              options);
            CHECK(y == expected);
          });
    };
    check_kind(0.0f);
    check_kind(BFloat16());
    check_kind(Half());
  }
}

TEST_CASE("with BatchInvariant a token has the same bits alone and among any others") {
  const BatchInvariant guard;
  const Index rows = 41, tokens = 41;
  const auto check_invariant = [&](const auto& source) {
    const Index depth = source.cols();
    const auto x = random_floats(depth * tokens, 7);
    const Oracle oracle(source, x.data(), depth, tokens);
    for_each_target([&](const kernels::Target& target) {
      for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8}) {
        CAPTURE(std::string(target.name));
        CAPTURE(static_cast<int>(compute));
        CAPTURE(depth);
        std::vector<float> all(static_cast<std::size_t>(rows * tokens));
        kernels::multiply(source, x.data(), depth, tokens, all.data(), rows, {.compute = compute});
        CHECK(oracle.error(all.data(), rows, rows, tokens) <= bound(compute == Compute::int8 ? Compute::bf16 : compute, depth));
        for (Index count : {1, 2, 4, 5, 8, 9, 17}) {
          const Index begin = (7 * count) % (tokens - count);
          std::vector<float> some(static_cast<std::size_t>(rows * count));
          kernels::multiply(source, x.data() + begin * depth, depth, count, some.data(), rows, {.compute = compute});
          CAPTURE(count);
          CHECK(std::equal(some.begin(), some.end(), all.begin() + begin * rows));
        }
      }
    });
  };
  check_invariant(ggml(rows, 576, 4, true, 1).source);
  check_invariant(ggml(rows, 1536, 8, false, 2).source);
  check_invariant(super_blocks(rows, 512, 3).source);
  check_invariant(pairs(rows, 300, 64, true, 4).source);
  check_invariant(pairs(rows, 8192, 64, false, 5).source);
  for (Index depth : {16, 40, 300}) {
    const auto w = random_floats(rows * depth, 6);
    const std::vector<BFloat16> brain(w.begin(), w.end());
    check_invariant(DenseSource<float>(w.data(), rows, depth));
    check_invariant(DenseSource<BFloat16>(brain.data(), rows, depth));
  }
  const Blocks top = ggml(20, 320, 4, true, 8), bottom = ggml(rows - 20, 320, 8, false, 9);
  const auto b = random_floats(rows * 8, 10);
  check_invariant(concat_depth(concat_rows(top.source, bottom.source), scaled(DenseSource<float>(b.data(), rows, 8), 0.5)));
  check_invariant(random_blocks<Q6K>(rows, 300, {208}, 1));  // which no kernel streams
}

TEST_CASE("few tokens: 8-bit sums are exact at the ends of their range") {
  // Scales of one and activations that are whole, at most 127, with a 127 in each chunk: nothing is rounded.
  const Index rows = 6, depth = 96;
  for (int kind : {0, 1, 2, 3}) {
    CAPTURE(kind);
    Blocks b = kind == 0 ? ggml(rows, depth, 8, false, 1) : kind == 1 ? ggml(rows, depth, 4, true, 1) : ggml(rows, depth, 4, false, 1);
    if (kind == 3) std::copy_n(quant::iq4_table.begin(), 16, b.source.table.begin());
    const Index size = b.source.block_bytes;
    for (Index i = 0; i < rows * depth / 32; ++i) {
      const Half one(1.0f), three(-3.0f);
      std::byte* block = b.data.data() + i * size;
      std::memcpy(block, &one.bits, 2);
      if (kind == 1) std::memcpy(block + 2, &three.bits, 2);
      const int extreme = kind != 0 ? 0xff : 0x80, other = kind != 0 ? 0x00 : 0x7f;
      for (Index j = b.source.codes_at; j < size && i % 3 != 0; ++j) block[j] = static_cast<std::byte>(i % 3 == 1 ? extreme : other);
    }
    std::vector<float> x(static_cast<std::size_t>(8 * depth));
    Random random(2);
    for (Index i = 0; i < 8 * depth; ++i)
      x[static_cast<std::size_t>(i)] = i % 32 == 0          ? -127.0f
                                       : i / depth % 2 == 0 ? (i / depth % 4 == 0 ? 127.0f : -127.0f)
                                                            : std::floor(random.uniform(-127.0f, 127.0f));
    const Oracle oracle(b.source, x.data(), depth, 8);
    for_each_target([&](const kernels::Target&) {
      if (kernels::current_target().few_tokens_int8 == nullptr) return;
      for (Index tokens : {1, 3, 8}) {
        CAPTURE(std::string(kernels::target_name()));
        CAPTURE(tokens);
        std::vector<float> y(static_cast<std::size_t>(rows * tokens));
        kernels::multiply(b.source, x.data(), depth, tokens, y.data(), rows, {.compute = Compute::int8});
        for (std::size_t i = 0; i < y.size(); ++i) CHECK(static_cast<double>(y[i]) == oracle.value[i]);
      }
    });
  }
}

namespace {
/// Its conversion to 8 bits overflows below 127 / FLT_MAX and turns NaN into a number.
bool loses_tiny_and_nan(const kernels::Target& target) {
  return std::string_view(target.name) == "avx512bf16" || std::string_view(target.name) == "amx";
}
}  // namespace

TEST_CASE("activations in 8 bits: tiny, zero and not finite") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for_each_target([&](const kernels::Target& target) {
    const auto to_int8 = kernels::current_target().to_int8;
    if (to_int8 == nullptr || loses_tiny_and_nan(target)) return;
    CAPTURE(std::string(kernels::target_name()));
    const auto rounded = [&](float first, float last) {
      std::vector<float> x(32);
      x[3] = first, x[29] = last;
      std::vector<std::int8_t> q(32);
      float scale, sum;
      to_int8(x.data(), 1, q.data(), &scale, &sum);
      const float half_step = std::max(std::abs(first), std::abs(last)) / 250;
      const float total = scale * static_cast<float>(q[3]) + scale * static_cast<float>(q[29]);
      return std::abs(scale * static_cast<float>(q[3]) - first) <= half_step + 1e-36f && std::abs(sum - total) <= half_step;
    };
    CHECK(rounded(0.0f, 0.0f));
    CHECK(rounded(1.0f, -0.3f));
    CHECK(rounded(3e38f, -3e38f));
    CHECK(rounded(1e-30f, -2e-30f));
    CHECK(rounded(1e-38f, -1e-37f));
    CHECK(rounded(-1e-40f, 3e-41f));
  });
  const Blocks b = ggml(3, 64, 4, true, 1), p = pairs(3, 64, 64, false, 1);
  for (float bad : {infinity, -infinity, nan})
    for (Index at : {0, 7, 17, 63}) {
      auto x = random_floats(64 * 4, 1);
      x[static_cast<std::size_t>(at)] = bad;
      for_each_target([&](const kernels::Target& target) {
        for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
          for (const BlockSource& source : {b.source, p.source}) {
            if (compute == Compute::int8 && loses_tiny_and_nan(target)) continue;
            CAPTURE(std::string(kernels::target_name()));
            CAPTURE(static_cast<int>(compute));
            CAPTURE(at);
            CAPTURE(bad);
            std::vector<float> y(12);
            kernels::multiply(source, x.data(), 64, 4, y.data(), 3, {.compute = compute});
            CHECK(!is_finite(y[0]));
            CHECK(is_finite(y[3]));
          }
      });
    }
}

TEST_CASE("few tokens: epilogue, and the same bits for any number of threads") {
  const Index rows = 301, depth = 544;
  const Blocks b = ggml(rows, depth, 4, true, 5), p = pairs(rows, 1024, 64, true, 5), e = ggml(rows, depth, 8, false, 5);
  const auto x = random_floats(1024 * 8, 2), factor = random_floats(rows, 3), bias = random_floats(rows, 4),
             before = random_floats(rows * 8, 5);
  const int threads = thread_count();
  for_each_target([&](const kernels::Target&) {
    for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
      for (const BlockSource& source : {b.source, p.source, e.source})
        for (Index tokens : {1, 4, 7}) {
          const Options options{.compute = compute, .accumulate = true, .row_scale = factor.data(), .bias = bias.data()};
          auto one = before, many = before;
          set_thread_count(1);
          kernels::multiply(source, x.data(), source.cols(), tokens, one.data(), rows, options);
          set_thread_count(3);
          kernels::multiply(source, x.data(), source.cols(), tokens, many.data(), rows, options);
          set_thread_count(threads);
          CHECK(one == many);
          const Oracle oracle(source, x.data(), source.cols(), tokens);
          double worst = 0;
          for (Index i = 0; i < rows * tokens; ++i) {
            const auto at = static_cast<std::size_t>(i), row = static_cast<std::size_t>(i % rows);
            const double expected =
                (oracle.value[at] + static_cast<double>(before[at])) * static_cast<double>(factor[row]) + static_cast<double>(bias[row]);
            const double allowed = bound(compute, source.cols()) * (oracle.magnitude[at] + 2.0);
            worst = std::max(worst, std::abs(static_cast<double>(one[at]) - expected) / allowed);
          }
          CHECK(worst <= 1.0);
        }
  });
}

TEST_CASE("a low-rank update beside its product is the product and then the update, to the bits") {
  constexpr Index rows = 130, in = 200, most = 9;
  const Blocks w = pairs(rows, in, 64, false, 21);
  const auto x = random_floats(in * most, 22), a = random_floats(40 * in, 23), b = random_floats(rows * 40, 24);
  for_each_target([&](const kernels::Target&) {
    for (Compute compute : {Compute::fp32, Compute::bf16, Compute::int8})
      for (Index rank : {0, 1, 16, 37})
        for (Index tokens : {1, 5, 8, 9}) {
          CAPTURE(rank);
          CAPTURE(tokens);
          kernels::Pieces down(rank + rows, in), up(rows, rank);
          if (rank > 0) down.add(DenseSource<float>(a.data(), rank, in), 0, 0);
          down.add(w.source, rank, 0);
          if (rank > 0) up.add(DenseSource<float>(b.data(), rows, rank), 0, 0, 0.5f);
          const Index ldy = rank + rows;
          std::vector<float> together(static_cast<std::size_t>(ldy * tokens)), apart(together.size());
          const kernels::Columns input{x.data(), in, in}, hidden{apart.data(), ldy, rank};
          kernels::multiply_through(down, up, std::span(&input, 1), tokens, together.data(), ldy, compute);
          kernels::multiply(down, std::span(&input, 1), tokens, apart.data(), ldy, {.compute = compute});
          if (rank > 0)
            kernels::multiply(up, std::span(&hidden, 1), tokens, apart.data() + rank, ldy, {.compute = compute, .accumulate = true});
          CHECK(together == apart);
        }
  });
}
