#pragma once

/// Few tokens, where memory is the bound: each row of weights is read once, in its stored form, and multiplied with all tokens.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <optional>
#include <span>

#include <lowrank/core/batch_invariant.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/profile.hpp>
#include <lowrank/core/workers.hpp>
#include <lowrank/kernels/driver/few_tokens_arranged.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

/// Whether the kernels for few tokens can read a piece as it lies.
inline bool is_streamable(const Piece& piece) {
  using Kind = WeightView::Kind;
  const Kind kind = piece.weight.kind();
  if (piece.transposed || kind == Kind::fp64 || kind == Kind::other) return false;
  return kind != Kind::blocks || few::can_stream(piece.weight.blocks());
}

struct LastRow {};

/// A row of nibble pairs that ends in the last chunk, where the matrix ends inside it: the kernel reads it from a copy that ends with the
/// chunk, with a scale a chunk.
inline void multiply_last_row(Target::Multiply kernel, FewTokens product) {
  const BlockSource& whole = product.weight->blocks();
  const Index begin = product.row * whole.pitch / 32 * 32, end = (product.row + 1) * whole.pitch;
  auto* scales = Scratch<LastRow>::get<float>(product.chunks * (1 + 4));
  auto* codes = reinterpret_cast<std::byte*>(scales + product.chunks);
  for (Index c = 0; c < product.chunks; ++c) {
    float no_offset;
    whole.read_scales(whole, (begin + 32 * c) / whole.group, 1, scales + c, &no_offset);
  }
  const Index bytes = ceil_div(end - begin, 2);
  std::copy_n(whole.data + begin / 2, bytes, codes);
  std::fill(codes + bytes, codes + product.chunks * 16, std::byte{0});
  BlockSource row = whole;
  row.data = codes, row.row_count = 1, row.pitch = product.chunks * 32, row.group = 32;
  row.read_scales = ArrayScales::read, row.scales = reinterpret_cast<const std::byte*>(scales);
  const WeightView view(row);
  product.weight = &view;
  product.row = 0, product.rows = 1;
  kernel(product);
}

/// The first of those rows.
inline Index rows_of_whole_chunks(const WeightView& weight) {
  if (weight.kind() != WeightView::Kind::blocks || weight.blocks().order != CodeOrder::nibble_pairs) return weight.rows();
  const Index pitch = weight.blocks().pitch, elements = weight.rows() * pitch;
  return elements % 32 == 0 ? weight.rows() : elements / 32 * 32 / pitch;
}

/// Rows [top, bottom) of a piece; y is where row `top` goes.
template <class Tag>
void multiply_rows(Target::Multiply kernel, const Arranged<Tag>& arranged, const Piece& piece, Index index, Index top, Index bottom,
                   float* y, Index ldy, bool accumulate) {
  const Index phases = Phases(piece).count, whole = std::max(top, std::min(bottom, rows_of_whole_chunks(piece.weight)));
  const auto product_of = [&](Index row, Index begin, Index rows) {
    FewTokens product = arranged.tokens_of(piece, index, row);
    product.row = begin, product.rows = rows;
    product.y = y + (begin - top), product.ldy = ldy;
    product.accumulate = accumulate;
    return product;
  };
  if (whole > top) {
    FewTokens product = product_of(top, top, whole - top), each[32];
    if (phases > 1) {
      for (Index i = 0; i < phases; ++i) each[i] = product_of(top + i, top, whole - top), each[i].phases = phases;
      product.phases = phases, product.phase = each;
    }
    kernel(product);
  }
  for (Index row = whole; row < bottom; ++row) multiply_last_row(kernel, product_of(row, row, 1));
}

/// Rows [row, row + rows) of a source, of which y is the first.
template <class Tag>
void multiply_block(Target::Multiply kernel, const Arranged<Tag>& arranged, const Pieces& source, Index row, Index rows, float* y,
                    Index ldy, bool accumulate) {
  for (const bool is_first : {true, false}) {  // each row has one piece at depth 0, which begins the sum
    Index index = -1;
    for (const Piece& piece : source) {
      ++index;
      const Index top = std::max(row, piece.row), bottom = std::min(row + rows, piece.row + piece.rows);
      if ((piece.depth == 0) != is_first || top >= bottom || piece.length == 0) continue;
      multiply_rows(kernel, arranged, piece, index, top - piece.row, bottom - piece.row, y + top - row, ldy, !is_first || accumulate);
    }
  }
}

/// Asks for rows [row, row + rows) of a source's dense parts, into the second-level cache: a product comes to them soon, in pieces too
/// short for the processor to foresee them.
inline void ask_for_rows(const Pieces& source, Index row, Index rows) {
  using Kind = WeightView::Kind;
  for (const Piece& piece : source) {
    const Kind kind = piece.weight.kind();
    const Index element = kind == Kind::fp32 ? 4 : kind == Kind::bf16 || kind == Kind::half ? 2 : 0;
    const Index top = std::max(row, piece.row) - piece.row, bottom = std::min(row + rows, piece.row + piece.rows) - piece.row;
    if (piece.weight.stride() != piece.length) continue;
    const auto* const data = static_cast<const std::byte*>(piece.weight.data());
    for (Index at = top * piece.length * element; at < bottom * piece.length * element; at += 64) __builtin_prefetch(data + at, 0, 2);
  }
}

/// The kernel for few tokens; null where another way must be taken.
inline Target::Multiply few_kernel(const Target& target, Compute compute, Index tokens) {
  if (tokens > few_tokens || BatchInvariant::is_on()) return nullptr;
  return compute == Compute::fp32 ? target.few_tokens : compute == Compute::bf16 ? target.few_tokens_bf16 : target.few_tokens_int8;
}

/// Calls block(begin, end) for ranges of rows from `first` on, on all threads where that pays.
template <class Block>
void for_each_block(const Pieces& source, Index first, Index tokens, const Block& block) {
  const Index rows = source.rows() - first, work = source.rows() * source.depth() * (tokens + 1) / 2, threads = thread_count();
  if (threads == 1 || work < (Index{1} << 17)) return block(first, source.rows());
  Index together = 4;
  for (const Piece& piece : source) together = std::max(together, 4 * Phases(piece).count);
  const Index grain = std::clamp<Index>(rows / (8 * threads) / together * together, together, 256);
  parallel_shares(rows, grain, [&](Index begin, Index end) { block(first + begin, first + end); });
}

/// H = A X, the first rows of a product, which its other rows wait for: all threads begin with blocks of them, and whoever finishes the
/// last one arranges H for B.
class HiddenRows {
 public:
  HiddenRows(const Target& target, const Pieces& up, const float* h, Index ldh, Index tokens, Compute compute)
      : target_(target), up_(up), part_{h, ldh, up.depth()}, tokens_(tokens), compute_(compute), left_(up.depth()) {}

  /// Calls block(begin, end) for what nobody has begun.
  template <class Block>
  void help(const Block& block) {
    constexpr Index grain = 8;
    for (Index begin; next_.load(std::memory_order_relaxed) < up_.depth() && (begin = next_.fetch_add(grain)) < up_.depth();) {
      try {
        finish(begin, std::min(begin + grain, up_.depth()), block);
      } catch (...) {
        state_.store(State::lost, std::memory_order_release);
        throw;
      }
    }
  }
  /// Y += B H for rows [row, row + rows), of which y is the first.
  void add(Target::Multiply kernel, Index row, Index rows, float* y, Index ldy) const {
    State state;
    while ((state = state_.load(std::memory_order_acquire)) == State::waited_for) lowrank::detail::pause();
    if (state == State::ready) multiply_block(kernel, *arranged_, up_, row, rows, y, ldy, true);  // else an exception ends the loop
  }

 private:
  enum class State { waited_for, ready, lost };

  template <class Block>
  void finish(Index begin, Index end, const Block& block) {
    block(begin, end);
    if (left_.fetch_sub(end - begin, std::memory_order_acq_rel) > end - begin) return;
    arranged_.emplace(target_, up_, std::span(&part_, 1), tokens_, compute_);
    state_.store(State::ready, std::memory_order_release);
  }

  const Target& target_;
  const Pieces& up_;
  Columns part_;
  Index tokens_;
  Compute compute_;
  std::atomic<Index> next_{0}, left_;
  std::atomic<State> state_{State::waited_for};
  std::optional<Arranged<ArrangedHidden>> arranged_;
};

}  // namespace detail

/// Y = source · X for at most few_tokens tokens; false when the target or the source has no such path, and nothing was done.
inline bool multiply_few(const Pieces& source, std::span<const Columns> x, Index tokens, float* y, Index ldy, const Options& options) {
  const Target& target = current_target();
  const auto kernel = detail::few_kernel(target, options.compute, tokens);
  if (kernel == nullptr || source.depth() == 0 || options.batch_invariant) return false;
  if (!std::all_of(source.begin(), source.end(), detail::is_streamable)) return false;
  const PhaseScope scope(Phase::product);
  const detail::Arranged<> arranged(target, source, x, tokens, options.compute);
  detail::for_each_block(source, 0, tokens, [&](Index begin, Index end) {
    detail::multiply_block(kernel, arranged, source, begin, end - begin, y + begin, ldy, options.accumulate);
    detail::finish(options, begin, end - begin, tokens, y + begin, ldy);
  });
  return true;
}

/// [H ; Y] = down · X, and then Y += up · H, in one region: see multiply_through. False as multiply_few.
inline bool multiply_few_through(const Pieces& down, const Pieces& up, std::span<const Columns> x, Index tokens, float* hy, Index ldy,
                                 Compute compute) {
  const Target& target = current_target();
  const auto kernel = detail::few_kernel(target, compute, tokens);
  if (kernel == nullptr || down.depth() == 0 || !std::all_of(down.begin(), down.end(), detail::is_streamable)) return false;
  const auto is_dense = [](const Piece& piece) { return detail::is_streamable(piece) && piece.weight.kind() != WeightView::Kind::blocks; };
  if (!std::all_of(up.begin(), up.end(), is_dense)) return false;
  const PhaseScope scope(Phase::product);
  const detail::Arranged<> arranged(target, down, x, tokens, compute);
  const auto multiply_down = [&](Index begin, Index end) {
    detail::multiply_block(kernel, arranged, down, begin, end - begin, hy + begin, ldy, false);
  };
  detail::HiddenRows hidden(target, up, hy, ldy, tokens, compute);
  detail::for_each_block(down, up.depth(), tokens, [&](Index begin, Index end) {
    hidden.help(multiply_down);
    detail::ask_for_rows(up, begin - up.depth(), end - begin);
    multiply_down(begin, end);
    if (up.depth() > 0) hidden.add(kernel, begin - up.depth(), end - begin, hy + begin, ldy);
  });
  return true;
}

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
