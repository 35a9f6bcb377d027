#pragma once

#include <memory>
#include <new>

#include <lowrank/kernels/driver/gemm.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI::kernels {

/// Parts of packed activations begin at multiples of so much depth.
Index packed_grain(Compute compute);

/// Activations in the panels of the current target: packed once, multiplied with several factors.
///
/// Parts lie below each other, each from a multiple of packed_grain() on; a row that is left out between two counts as zero. [X ; H] with
/// H = A X is packed in two steps, and X once.
class Packed {
 public:
  /// Room for `depth` rows of so many tokens.
  Packed(Index depth, Index tokens, Compute compute);
  ~Packed();
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  /// Packs a part as rows [depth, depth + part.depth).
  void put(Index depth, const Columns& part);

  /// Y = factor · rows [first, first + factor.depth()). Y [factor.rows(), tokens], columns `ldy` apart. Cost: as multiply.
  void multiply(const Pieces& factor, Index first, float* y, Index ldy, Options options = {}) const;

 private:
  struct Release {
    void operator()(Word* words) const { ::operator delete (words, std::align_val_t{64}); }
  };
  /// A thread keeps memory for one; a second one at the same time brings its own.
  static bool& scratch_in_use();

  const Target& target_;
  Compute compute_;
  const PanelKernels& kernels_;
  Index tokens_, token_words_;
  bool uses_scratch_;
  std::unique_ptr<Word, Release> own_;
  Word* words_;
};

}  // namespace lowrank::inline LOWRANK_ABI::kernels

#if !defined(LOWRANK_COMPILED)
#include <lowrank/kernels/driver/packed.inl>
#endif
