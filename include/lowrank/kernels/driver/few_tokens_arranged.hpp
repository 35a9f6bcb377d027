#pragma once

/// The activations of a product with few tokens in the order in which the codes of its weights unpack.

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include <lowrank/core/parallel.hpp>
#include <lowrank/kernels/driver/packing.hpp>
#include <lowrank/kernels/target/few.hpp>

LOWRANK_IEEE_BEGIN
namespace lowrank::inline LOWRANK_ABI::kernels {

namespace detail {

struct ArrangedTokens {};
struct ArrangedHidden {};

/// How the rows of a piece lie to the chunks of 32 elements that its codes are read in. Rows of nibble pairs run on without a gap, so that
/// a row may begin anywhere in a chunk; rows `count` apart begin at the same place. Every other row begins with a chunk.
struct Phases {
  Index pitch = 0, count = 1;

  explicit Phases(const Piece& piece) {
    if (piece.weight.kind() != WeightView::Kind::blocks || piece.weight.blocks().order != CodeOrder::nibble_pairs) return;
    pitch = piece.weight.blocks().pitch;
    count = 32 / std::gcd(pitch, Index{32});
  }
  /// Elements of a row's first chunk that belong to the row before.
  Index lead(Index row) const { return row * pitch % 32; }
};

/// Activations in float and in what the arithmetic needs, for each piece and each phase of its rows.
///
/// Memory belongs to the thread that makes this, one at a time for each Tag.
template <class Tag = ArrangedTokens>
class Arranged {
 public:
  Arranged(const Target& target, const Pieces& pieces, std::span<const Columns> x, Index tokens, Compute compute)
      : target_(target),
        x_(x),
        tokens_(tokens),
        padded_(tokens == 1   ? 1
                : tokens <= 4 ? 4
                              : 8) {
    is_brain_ = compute == Compute::bf16 && target.to_bfloat16 != nullptr && tokens > 4;
    is_bytes_ = compute == Compute::int8 && target.to_int8 != nullptr;
    Index floats = 16;
    for (const Piece& p : pieces) floats += room_of_all(p);
    auto* memory = Scratch<Tag>::template get<float>(floats);
    Index i = 0;
    for (const Piece& p : pieces) {
      Phase& phase = phases_[static_cast<std::size_t>(i)];
      if (const Phase* same = find(pieces, i, p)) {
        phase = *same;
      } else {
        phase = {memory, memory + split_room(p), room(p)};
        memory += room_of_all(p);
        arrange(p, phase);
      }
      ++i;
    }
  }

  /// What row `row`, row + Phases(piece).count, … of a piece are multiplied with.
  FewTokens tokens_of(const Piece& piece, Index index, Index row) const {
    const Phases phases(piece);
    const Phase& phase = phases_[static_cast<std::size_t>(index)];
    FewTokens f = layout(piece, phase.memory + row % phases.count * phase.room, phases.lead(row));
    if (is_split(piece)) std::tie(f.x, f.x_odd) = halves(piece, phase.split, phases.lead(row));
    f.weight = &piece.weight;
    f.factor = piece.scale;
    f.tokens = tokens_;
    return f;
  }

 private:
  static constexpr Index margin = 48;  ///< zeros on both sides of the even and of the odd elements of a token

  /// Where a piece's tokens lie split, where its first phase lies, and floats from one phase to the next.
  struct Phase {
    float *split, *memory;
    Index room;
  };

  static bool has_blocks(const Piece& p) { return p.weight.kind() == WeightView::Kind::blocks; }
  static bool has_pairs(const Piece& p) { return has_blocks(p) && p.weight.blocks().order == CodeOrder::nibble_pairs; }

  /// Floats of one phase: the numbers, the sums of a token's chunks, and at most as much again in another precision with two floats a
  /// chunk.
  Index room(const Piece& p) const {
    const Index chunks = ceil_div(p.length + 31, 32);
    return chunks * 32 * padded_ + round_up(chunks, 16) + round_up(chunks * 16 * padded_, 16);
  }

  /// Whether the kernel reads the token split, wherever rows begin: one copy, which stays in the first-level cache.
  bool is_split(const Piece& p) const { return tokens_ == 1 && has_pairs(p) && !is_bytes_; }
  /// Floats of the even, or of the odd, elements of a split token.
  static Index half(const Piece& p) { return round_up(p.length / 2 + 1, 16) + 2 * margin; }
  Index split_room(const Piece& p) const { return has_pairs(p) ? 2 * half(p) * tokens_ : 0; }
  Index room_of_all(const Piece& p) const { return split_room(p) + (is_split(p) ? 0 : Phases(p).count * room(p)); }

  /// Places of the arrays of one phase, whose rows begin after `lead` elements of a chunk.
  FewTokens layout(const Piece& p, float* memory, Index lead) const {
    FewTokens f{};
    f.chunks = ceil_div(lead + p.length, 32);
    const Index count = f.chunks * 32 * padded_;
    f.x = memory, f.x_sum = memory + count;
    float* rest = memory + count + round_up(f.chunks, 16);
    if (is_brain_) f.brain = reinterpret_cast<std::uint16_t*>(rest);
    if (is_bytes_ && has_blocks(p)) {
      f.q = reinterpret_cast<std::int8_t*>(rest);
      f.q_scale = rest + count / 4, f.q_sum = f.q_scale + count / 32;
    }
    return f;
  }

  /// An earlier piece with the same activations in the same order: pieces side by side along the rows share them.
  const Phase* find(const Pieces& pieces, Index count, const Piece& p) const {
    for (Index i = 0; i < count; ++i) {
      const Piece& q = pieces.begin()[i];
      if (q.depth == p.depth && q.length == p.length && has_pairs(q) == has_pairs(p) && has_blocks(q) == has_blocks(p) &&
          Phases(q).pitch % 32 == Phases(p).pitch % 32)
        return &phases_[static_cast<std::size_t>(i)];
    }
    return nullptr;
  }

  void arrange(const Piece& p, const Phase& phase) const {
    const Phases phases(p);
    for (Index t = 0; t < tokens_ && has_pairs(p); ++t) split(p, t, phase.split + 2 * half(p) * t);
    if (is_split(p)) return;
    const auto fill = [&](Index row) {
      const FewTokens f = layout(p, phase.memory + row * phase.room, phases.lead(row));
      for (Index t = 0; t < padded_; ++t) {
        float* const to = phase.memory + row * phase.room + t * f.chunks * 32;
        if (t >= tokens_)
          std::fill_n(to, f.chunks * 32, 0.0f);
        else if (has_pairs(p))
          interleave(halves(p, phase.split + 2 * half(p) * t, phases.lead(row)), f.chunks, to);
        else
          gather(p, t, to), std::fill(to + p.length, to + f.chunks * 32, 0.0f);
      }
      convert(p, f);
    };
    if (phases.count * p.length * tokens_ > 1 << 13 && thread_count() > 1) return parallel_for(phases.count, fill);
    for (Index row = 0; row < phases.count; ++row) fill(row);
  }

  /// The sums of chunks, which only offsets meet, and the same numbers as bfloat16 or in 8 bits.
  void convert(const Piece& p, const FewTokens& f) const {
    auto* sums = const_cast<float*>(f.x_sum);
    for (Index c = 0; c < f.chunks && has_blocks(p) && !has_pairs(p); ++c) sums[c] = target_.elementwise.sum(f.x + 32 * c, 32);
    if (f.brain != nullptr) target_.to_bfloat16(f.x, f.chunks * 32 * padded_, const_cast<std::uint16_t*>(f.brain));
    if (f.q != nullptr)
      target_.to_int8(f.x, f.chunks * padded_, const_cast<std::int8_t*>(f.q), const_cast<float*>(f.q_scale), const_cast<float*>(f.q_sum));
  }

  /// A token's part of the depth as it is.
  void gather(const Piece& p, Index token, float* to) const {
    Index begin = 0;
    for (const Columns& part : x_) {
      const Index from = std::max(p.depth, begin), end = std::min(p.depth + p.length, begin + part.depth);
      for (Index k = from; k < end && part.transposed; ++k) to[k - p.depth] = part.data[(k - begin) * part.stride + token];
      if (from < end && !part.transposed) std::copy_n(part.data + token * part.stride + from - begin, end - from, to + from - p.depth);
      begin += part.depth;
    }
  }

  /// Its even and then its odd elements, between zeros.
  void split(const Piece& p, Index token, float* halves) const {
    std::fill_n(halves, 2 * half(p), 0.0f);
    Index begin = 0;
    for (const Columns& part : x_) {
      const Index from = std::max(p.depth, begin), end = std::min(p.depth + p.length, begin + part.depth);
      const Index step = part.transposed ? part.stride : 1;
      const float* at = part.data + (part.transposed ? token : token * part.stride) - begin * step;
      for (const Index odd : {0, 1}) {
        float* const to = halves + odd * half(p) + margin;
        for (Index k = from + (from - p.depth + odd) % 2; k < end; k += 2) to[(k - p.depth) / 2] = at[k * step];
      }
      begin += part.depth;
    }
  }

  /// Where the first and the second 16 elements of chunks lie in a split token that is moved up by `lead`: the even ones and the odd ones,
  /// or, moved by an odd number, the other way round.
  static std::pair<const float*, const float*> halves(const Piece& p, const float* split, Index lead) {
    const float *const even = split + margin, *const odd = even + half(p);
    if (lead % 2 == 0) return {even - lead / 2, odd - lead / 2};
    return {odd - (lead + 1) / 2, even - lead / 2};
  }
  /// Chunks of 16 elements of either.
  static void interleave(std::pair<const float*, const float*> from, Index chunks, float* to) {
    for (Index c = 0; c < chunks; ++c, to += 32) {
      std::copy_n(from.first + 16 * c, 16, to);
      std::copy_n(from.second + 16 * c, 16, to + 16);
    }
  }

  const Target& target_;
  std::span<const Columns> x_;
  Index tokens_, padded_;
  bool is_brain_ = false, is_bytes_ = false;
  std::array<Phase, Pieces::capacity> phases_;
};

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI::kernels
LOWRANK_IEEE_END
