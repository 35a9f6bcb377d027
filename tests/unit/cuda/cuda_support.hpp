#pragma once

/// Runs kernels of lowrank/cuda/ under every schedule of the model of a GPU, and makes their inputs.

#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/cuda/kernels/product.hpp>

#include <support/simt.hpp>

#include "random_numbers.hpp"

namespace cuda_test {

using namespace lowrank;

/// What run(machine) gives, a vector; it must have the same bits under every schedule.
template <class Run>
auto on_every_schedule(const Run& run) {
  simt_test::Machine first(simt_test::schedules[0]);
  const auto expected = run(first);
  for (std::size_t i = 1; i < std::size(simt_test::schedules); ++i) {
    simt_test::Machine machine(simt_test::schedules[i]);
    const auto result = run(machine);
    CAPTURE(i);
    const bool same =
        result.size() == expected.size() && std::memcmp(result.data(), expected.data(), expected.size() * sizeof(expected[0])) == 0;
    CHECK(same);
  }
  return expected;
}

template <class Kernel>
void launch(simt_test::Machine& machine, const Kernel& kernel) {
  machine.launch(kernel.shape(), kernel);
}

/// Rows of bfloat16 in aligned memory of its own, for an Operand or an UpdateFactor; made by the kernel that makes them on a device.
struct Rows {
  std::vector<cuda::Word4> memory;
  Index stride = 0;
  int rows = 0, cols = 0;

  Rows() = default;
  Rows(simt_test::Machine& machine, const std::vector<float>& x, Index row_count, Index col_count, float factor = 1)
      : memory(static_cast<std::size_t>(row_count * round_up(col_count, 32) / 8)),
        stride(round_up(col_count, 32)),
        rows(static_cast<int>(row_count)),
        cols(static_cast<int>(col_count)) {
    cuda::ToBfloat16 kernel{x.data(), col_count, rows, cols, factor, reinterpret_cast<BFloat16*>(memory.data()), stride};
    launch(machine, kernel);
  }

  const BFloat16* data() const { return reinterpret_cast<const BFloat16*>(memory.data()); }
  float at(Index row, Index col) const { return data()[row * stride + col]; }
  cuda::Operand operand() const { return {data(), stride, cols}; }
  /// Rows of s B: the depth runs along a row. Transposed, of A: it runs down the rows.
  cuda::UpdateFactor update(bool transposed = false) const { return {data(), stride, transposed ? rows : cols, transposed ? cols : rows}; }
};

/// x and h in the same rows, h `gap` numbers behind x, where other columns may lie.
struct JoinedRows {
  std::vector<cuda::Word4> memory;
  cuda::Operand x, h;

  JoinedRows(simt_test::Machine& machine, const Rows& front, const Rows& back, Index gap) {
    const Index at = round_up(front.cols, 32) + gap, stride = at + round_up(back.cols, 32);
    const std::vector<float> others = random_numbers(front.rows * stride, 9);
    memory.resize(static_cast<std::size_t>(front.rows * stride / 8));
    auto* const data = reinterpret_cast<BFloat16*>(memory.data());
    launch(machine, cuda::ToBfloat16{others.data(), stride, front.rows, static_cast<int>(stride), 1, data, stride});
    const auto put = [&](const Rows& rows, BFloat16* to) {
      std::vector<float> numbers;
      for (Index i = 0; i < rows.rows; ++i)
        for (Index k = 0; k < rows.cols; ++k) numbers.push_back(rows.at(i, k));
      launch(machine, cuda::ToBfloat16{numbers.data(), rows.cols, rows.rows, rows.cols, 1, to, stride});
    };
    put(front, data);
    put(back, data + at);
    x = {data, stride, front.cols};
    h = {data + at, stride, back.cols};
  }
};

}  // namespace cuda_test
