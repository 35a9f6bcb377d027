// The processor's tiles. Kernels take them as a parameter, so that tests can run them on a model of tiles on any processor.
//
// As assembly, since GCC's intrinsics take a tile's number as text only, and tell the compiler neither that a load reads memory nor that
// all 64 bytes of a configuration are read.

/// What `ldtilecfg` reads: rows and bytes a row of each tile.
struct TileConfiguration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

struct HardwareTiles {
  static void configure(const TileConfiguration& tiles) { __asm__ volatile("ldtilecfg %0" : : "m"(tiles)); }
  static void release() { __asm__ volatile("tilerelease"); }

  template <int Tile>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(Tile));
  }
  /// Rows from memory, `stride` bytes apart.
  template <int Tile>
  static void load(const void* from, Index stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile>
  static void store(void* to, Index stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
  }
  /// Sum += Left · Right: [16 × 32] · [32 × 16] bfloat16, the right one as [16][16] pairs.
  template <int Sum, int Left, int Right>
  static void add_bfloat16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(Left), "i"(Right));
  }
};
