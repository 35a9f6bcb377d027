#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include <lowrank/kernels/driver/gemm.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Rows of depth that a word holds: parts of packed activations begin at multiples of it.
inline Index packed_unit(Compute compute) { return panel_kernels(current_table(), compute).unit; }

/// Activations in the panels of the current target: packed once, multiplied with several factors.
///
/// Parts lie below each other, each from a multiple of packed_unit() on; a row that is left out between two counts as zero. [X ; H] with
/// H = A X is packed in two steps, and X once.
class Packed {
 public:
  /// Room for `depth` rows of so many tokens.
  Packed(Index depth, Index tokens, Compute compute)
      : table_(current_table()),
        compute_(compute),
        kernels_(panel_kernels(table_, compute)),
        tokens_(tokens),
        token_words_(ceil_div(depth, kernels_.unit) * table_.columns) {
    const Index count = ceil_div(tokens, table_.columns) * token_words_ + 16;
    uses_scratch_ = !std::exchange(scratch_in_use(), true);
    if (!uses_scratch_)
      own_.reset(static_cast<Word*>(::operator new (static_cast<std::size_t>(count) * sizeof(Word), std::align_val_t{64})));
    words_ = uses_scratch_ ? Scratch<Packed>::get<Word>(count) : own_.get();
  }
  ~Packed() {
    if (uses_scratch_) scratch_in_use() = false;
  }
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  /// Packs a part as rows [depth, depth + part.depth).
  void put(Index depth, const Columns& part) {
    const bool parallel = thread_count() > 1 && part.depth * tokens_ > (Index{1} << 14);
    detail::pack_panels(table_, kernels_, std::span(&part, 1), 0, tokens_, words_ + depth / kernels_.unit * table_.columns, token_words_,
                        parallel);
  }

  /// Y = factor · rows [first, first + factor.depth()). Y [factor.rows(), tokens], columns `ldy` apart. Cost: as multiply.
  void multiply(const Pieces& factor, Index first, float* y, Index ldy, Options options = {}) const {
    if (factor.rows() == 0 || tokens_ == 0) return;
    options.compute = compute_;
    detail::Blocking blocking(table_, kernels_, factor.rows(), factor.depth(), tokens_, tokens_);
    detail::Product{table_,   kernels_, factor,        words_ + first / kernels_.unit * table_.columns, token_words_, y, ldy, options,
                    blocking, 0,        factor.depth()}
        .run(tokens_);
  }

 private:
  struct Release {
    void operator()(Word* words) const { ::operator delete (words, std::align_val_t{64}); }
  };

  /// A thread keeps memory for one; a second one at the same time brings its own.
  static bool& scratch_in_use() {
    thread_local bool value = false;
    return value;
  }

  const KernelTable& table_;
  Compute compute_;
  const PanelKernels& kernels_;
  Index tokens_, token_words_;
  bool uses_scratch_;
  std::unique_ptr<Word, Release> own_;
  Word* words_;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels
