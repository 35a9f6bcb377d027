#pragma once

/// A model of wgmma, the asynchronous products of a warpgroup: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions".

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <lowrank/core/types.hpp>

namespace simt_test {

/// A factor in shared memory, found through its descriptor alone: PTX ISA, "Matrix Descriptor Format" and "Canonical Layouts".
class SharedMatrix {
 public:
  explicit SharedMatrix(std::uint64_t descriptor)
      : start_(field(descriptor, 0)), leading_(field(descriptor, 16)), stride_(field(descriptor, 32)), descriptor_(descriptor) {
    constexpr std::uint32_t row_bytes[] = {16, 128, 64, 32};  // no swizzle, 128, 64, 32 bytes
    row_bytes_ = row_bytes[descriptor >> 62];
  }

  /// No bit outside the fields, and base offset 0: a pattern begins at a multiple of eight rows.
  bool is_known() const {
    constexpr std::uint64_t fields = 0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 3ull << 62;
    return (descriptor_ & ~fields) == 0;
  }

  /// Address of element (i, k), i a row of A or a column of B. K-major: neighbours k lie together; else neighbours i.
  std::uint32_t address(int i, int k, bool mn_major) const {
    const auto mn = static_cast<std::uint32_t>(i), depth = static_cast<std::uint32_t>(k), across = row_bytes_ / 2;
    std::uint32_t at = start_;
    if (row_bytes_ == 16)  // ((8, m), (T, 2k)) : ((T, SBO), (1, LBO)), and transposed ((T, 1, m), (8, k)) : ((1, T, SBO), (T, LBO))
      at += mn / 8 * stride_ + depth / 8 * leading_ + (mn_major ? mn % 8 * 2 + depth % 8 * 16 : mn % 8 * 16 + depth % 8 * 2);
    else if (mn_major)  // ((T, 8, m), (8, k)) : ((1, T, LBO), (8T, SBO)) for 128 bytes
      at += mn / across * leading_ + mn % across * 2 + depth / 8 * stride_ + depth % 8 * row_bytes_;
    else  // ((8, m), (T, 2k)) : ((8T, SBO), (1, T))
      at += mn / 8 * stride_ + mn % 8 * row_bytes_ + depth * 2;
    return at ^ ((at >> 7) & (row_bytes_ / 16 - 1)) << 4;  // Swizzle<3, 4, 3>, <2, 4, 3>, <1, 4, 3>
  }

 private:
  static std::uint32_t field(std::uint64_t descriptor, int bit) { return static_cast<std::uint32_t>(descriptor >> bit & 0x3fff) << 4; }

  std::uint32_t start_, leading_, stride_, row_bytes_ = 16;
  std::uint64_t descriptor_;
};

/// A warp's share of a product of its warpgroup, 16 rows of the sums.
struct ProductShare {
  std::array<float*, 32> sums;  ///< of each lane
  int columns;
  bool a_transposed;
  std::uint64_t a, b;
};

/// The products of a block that are under way. Failures are texts, or null.
class AsyncProducts {
 public:
  /// late: products happen at their wait, else when queued. No bytes: the block's kernel does not use wgmma.
  void begin(std::byte* shared, std::size_t bytes, std::size_t warps, bool late) {
    shared_ = shared;
    late_ = late;
    seen_.assign(shared, shared + bytes);
    unfenced_by_.assign(bytes / 16, nobody);
    warps_.assign(warps, Warp{});
  }

  std::uint32_t address_of(const void* shared) const {
    return first_address + static_cast<std::uint32_t>(static_cast<const std::byte*>(shared) - shared_);
  }

  /// What was stored since the last look is the thread's own until it fences.
  void note_stores(int thread) {
    if (seen_.empty() || std::memcmp(seen_.data(), shared_, seen_.size()) == 0) return;
    for (std::size_t word = 0; word < unfenced_by_.size(); ++word) {
      if (std::memcmp(&seen_[16 * word], shared_ + 16 * word, 16) == 0) continue;
      std::memcpy(&seen_[16 * word], shared_ + 16 * word, 16);
      unfenced_by_[word] = thread;
    }
  }
  void fence_async(int thread) {
    note_stores(thread);
    for (int& owner : unfenced_by_)
      if (owner == thread) owner = nobody;
  }

  void fence(int warp) { at(warp).is_fenced = true; }
  const char* queue(int warp, const ProductShare& share) {
    if (seen_.empty()) return "a product of a warpgroup in a kernel that does not say needs_wgmma";
    if (!at(warp).is_fenced) return "a product of a warpgroup without wgmma_fence before it";
    auto& mine = at(warp).descriptors;
    mine.emplace_back(share.a, share.b);
    for (int other = warp / 4 * 4; other < warp / 4 * 4 + 4; ++other)
      if (const auto& theirs = at(other).descriptors; theirs.size() >= mine.size() && theirs[mine.size() - 1] != mine.back())
        return "warps of a warpgroup name different factors of one product";
    if (const char* const failure = failure_of(share, warp)) return failure;
    if (!late_) perform(share, warp);
    at(warp).open.push_back(share);
    return nullptr;
  }
  void commit(int warp) {
    Warp& mine = at(warp);
    mine.committed.insert(mine.committed.end(), mine.open.begin(), mine.open.end());
    mine.open.clear();
  }
  void wait(int warp) {
    if (late_)
      for (const ProductShare& share : at(warp).committed) perform(share, warp);
    at(warp).committed.clear();
    at(warp).is_fenced = false;  // the sums may be read and changed from here on
  }

  const char* failure_at_end() const {
    for (std::size_t warp = 0; warp < warps_.size(); ++warp) {
      if (!warps_[warp].open.empty() || !warps_[warp].committed.empty()) return "products that are never waited for";
      if (warps_[warp].descriptors.size() != warps_[warp / 4 * 4].descriptors.size()) return "warps of a warpgroup meet different products";
    }
    return nullptr;
  }

 private:
  struct Warp {
    bool is_fenced = false;
    std::vector<ProductShare> open, committed;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> descriptors;  // all so far: those of a warpgroup's four warps agree
  };
  Warp& at(int warp) { return warps_[static_cast<std::size_t>(warp)]; }

  /// Whether all that a share reads lies in shared memory and is no longer some thread's own.
  const char* failure_of(const ProductShare& share, int warp) const {
    const SharedMatrix a(share.a), b(share.b);
    if (!a.is_known() || !b.is_known()) return "a matrix descriptor with reserved bits, or of a pattern that begins at no boundary";
    for (int k = 0; k < 16; ++k)
      for (int i = 0; i < 16 + share.columns; ++i) {
        const std::uint32_t address = i < 16 ? a.address(warp % 4 * 16 + i, k, share.a_transposed) : b.address(i - 16, k, false);
        if (address < first_address || address - first_address + 2 > seen_.size()) return "a product reads beside shared memory";
        if (unfenced_by_[(address - first_address) / 16] != nobody) return "a product reads what its writer has not fenced";
      }
    return nullptr;
  }

  /// The sums of lane t: d[i] is row t / 4 + 8 (i / 2 mod 2), column 8 (i / 4) + 2 (t mod 4) + i mod 2.
  void perform(const ProductShare& share, int warp) const {
    const SharedMatrix a(share.a), b(share.b);
    float left[16][16];
    std::vector<std::array<float, 16>> right(static_cast<std::size_t>(share.columns));
    for (std::size_t k = 0; k < 16; ++k) {
      const int depth = static_cast<int>(k);
      for (std::size_t i = 0; i < 16; ++i) left[i][k] = read(a.address(warp % 4 * 16 + static_cast<int>(i), depth, share.a_transposed));
      for (std::size_t j = 0; j < right.size(); ++j) right[j][k] = read(b.address(static_cast<int>(j), depth, false));
    }
    for (std::size_t t = 0; t < 32; ++t)
      for (std::size_t i = 0; i < right.size() / 2; ++i) {
        const float* const row = left[t / 4 + i / 2 % 2 * 8];
        const auto& column = right[8 * (i / 4) + i % 2 + 2 * (t % 4)];
        for (std::size_t k = 0; k < 16; ++k) share.sums[t][i] += row[k] * column[k];
      }
  }
  float read(std::uint32_t address) const {
    lowrank::BFloat16 number;
    std::memcpy(&number, shared_ + (address - first_address), sizeof number);
    return number;
  }

  static constexpr std::uint32_t first_address = 0x410;  // of shared memory; a device promises no more than a multiple of 16
  static constexpr int nobody = -1;

  std::byte* shared_ = nullptr;
  bool late_ = true;
  std::vector<std::byte> seen_;   // shared memory at the last look
  std::vector<int> unfenced_by_;  // of each 16 bytes of it
  std::vector<Warp> warps_;
};

}  // namespace simt_test
