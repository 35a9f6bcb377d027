// Block-quantized weights with Advanced SIMD: codes to floats, along a row or across four.

/// The 16 entries of a code table, one byte of each a register: four byte look-ups find 16 codes.
struct Table {
  uint8x16x4_t byte;

  explicit Table(const float* entries) : byte(vld4q_u8(reinterpret_cast<const std::uint8_t*>(entries))) {}
  /// Entries of 16 codes below 16.
  [[gnu::always_inline]] void look_up(uint8x16_t codes, float32x4_t* out) const {
    const uint8x16_t b0 = vqtbl1q_u8(byte.val[0], codes), b1 = vqtbl1q_u8(byte.val[1], codes);
    const uint8x16_t b2 = vqtbl1q_u8(byte.val[2], codes), b3 = vqtbl1q_u8(byte.val[3], codes);
    const uint16x8_t low_0 = vreinterpretq_u16_u8(vzip1q_u8(b0, b1)), low_1 = vreinterpretq_u16_u8(vzip2q_u8(b0, b1));
    const uint16x8_t high_0 = vreinterpretq_u16_u8(vzip1q_u8(b2, b3)), high_1 = vreinterpretq_u16_u8(vzip2q_u8(b2, b3));
    out[0] = vreinterpretq_f32_u16(vzip1q_u16(low_0, high_0));
    out[1] = vreinterpretq_f32_u16(vzip2q_u16(low_0, high_0));
    out[2] = vreinterpretq_f32_u16(vzip1q_u16(low_1, high_1));
    out[3] = vreinterpretq_f32_u16(vzip2q_u16(low_1, high_1));
  }
};

/// 16 signed bytes as floats.
[[gnu::always_inline]] inline void widen_bytes(uint8x16_t bytes, float32x4_t* out) {
  const int16x8_t low = vmovl_s8(vreinterpret_s8_u8(vget_low_u8(bytes))), high = vmovl_s8(vreinterpret_s8_u8(vget_high_u8(bytes)));
  out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
  out[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
  out[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
  out[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
}

inline uint8x16_t load_bytes(const std::byte* from) { return vld1q_u8(reinterpret_cast<const std::uint8_t*>(from)); }
inline uint8x16_t low_nibbles(uint8x16_t bytes) { return vandq_u8(bytes, vdupq_n_u8(15)); }
inline uint8x16_t high_nibbles(uint8x16_t bytes) { return vshrq_n_u8(bytes, 4); }

/// 16 bytes of each of four rows, transposed: out[q] holds byte 4 q of rows 0 … 3, byte 4 q + 1 of rows 0 … 3 and so on.
[[gnu::always_inline]] inline void transpose_bytes(uint8x16_t r0, uint8x16_t r1, uint8x16_t r2, uint8x16_t r3, uint8x16_t* out) {
  const uint8x16_t a = vzip1q_u8(r0, r2), b = vzip1q_u8(r1, r3), c = vzip2q_u8(r0, r2), d = vzip2q_u8(r1, r3);
  out[0] = vzip1q_u8(a, b);
  out[1] = vzip2q_u8(a, b);
  out[2] = vzip1q_u8(c, d);
  out[3] = vzip2q_u8(c, d);
}

/// Scales and offsets of one group each of four rows.
struct Scales {
  float32x4_t scale, offset;

  /// Of the group that holds column col in rows row … row + count - 1; missing rows repeat the first.
  void load(const BlockSource& s, Index row, Index count, Index col) {
    const Index groups = s.pitch / s.group, first = row * groups + col / s.group;
    Index of[4];
    for (Index i = 0; i < 4; ++i) of[i] = first + (i < count ? i : 0) * groups;
    float scales[4], offsets[4];
    if (s.read_scales == HalfScales::read) {
      const std::byte* at[4];
      for (Index i = 0; i < 4; ++i) at[i] = s.block_of(of[i] * s.group);
      scale = load_halves(at, s.scale_at);
      offset = s.offset_at < 0 ? vdupq_n_f32(0) : load_halves(at, s.offset_at);
      return;
    }
    if (s.read_scales == ArrayScales::read)
      for (int i = 0; i < 4; ++i) ArrayScales::read(s, of[i], 1, scales + i, offsets + i);
    else
      for (int i = 0; i < 4; ++i) s.read_scales(s, of[i], 1, scales + i, offsets + i);
    scale = vld1q_f32(scales);
    offset = vld1q_f32(offsets);
  }

  /// The half-precision number at byte `offset` from four addresses.
  [[gnu::always_inline]] static float32x4_t load_halves(const std::byte* const* at, Index offset) {
    std::uint16_t bits[4];
    for (int i = 0; i < 4; ++i) std::memcpy(bits + i, at[i] + offset, 2);
    uint16x4_t four = vdup_n_u16(bits[0]);
    four = vset_lane_u16(bits[1], four, 1);
    four = vset_lane_u16(bits[2], four, 2);
    return vcvt_f32_f16(vreinterpret_f16_u16(vset_lane_u16(bits[3], four, 3)));
  }
};

/// Four rows of codes to four lanes of a panel.
template <bool Rounded>
struct BlockPacker {
  const BlockSource& source;
  Table table;
  float32x4_t slope, offset;
  Index row, count, step;

  /// 16 numbers: of four elements `stride` apart along the depth, four rows each.
  [[gnu::always_inline]] void put(const float32x4_t* numbers, Word* panel, Index stride) const {
    LOWRANK_UNROLL
    for (int i = 0; i < 4; ++i) store<Rounded>(panel + i * stride * step, vfmaq_f32(offset, numbers[i], slope));
  }

  /// 16 bytes of each row from `bytes` on, transposed.
  [[gnu::always_inline]] void transpose(const std::byte* bytes, uint8x16_t* transposed) const {
    const Index pitch = source.row_bytes();
    uint8x16_t r[4];
    for (Index i = 0; i < 4; ++i) r[i] = load_bytes(bytes + (i < count ? i : 0) * pitch);
    transpose_bytes(r[0], r[1], r[2], r[3], transposed);
  }

  /// 32 elements of the depth from column col on; a byte holds two neighbours.
  void pack_pairs(Index col, Word* panel) const {
    uint8x16_t transposed[4];
    transpose(CodePlace(source, row * source.pitch + col).bytes, transposed);
    for (int q = 0; q < 4; ++q) {
      float32x4_t numbers[4];
      table.look_up(high_nibbles(transposed[q]), numbers);
      put(numbers, panel + 8 * q * step, 2);
      table.look_up(low_nibbles(transposed[q]), numbers);
      put(numbers, panel + (8 * q + 1) * step, 2);
    }
  }

  /// 16 elements of the depth, a byte or one of its nibbles each.
  void pack_bytes(Index col, Word* panel) const {
    const CodePlace place(source, row * source.pitch + col);
    uint8x16_t transposed[4];
    transpose(place.bytes, transposed);
    for (int q = 0; q < 4; ++q) {
      float32x4_t numbers[4];
      if (source.order == CodeOrder::bytes)
        widen_bytes(transposed[q], numbers);
      else
        table.look_up(place.shift != 0 ? high_nibbles(transposed[q]) : low_nibbles(transposed[q]), numbers);
      put(numbers, panel + 4 * q * step, 1);
    }
  }
};

template <bool Rounded>
void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  BlockPacker<Rounded> packer{s, Table(s.table.data()), {}, {}, row, count, step};
  Scales scales;
  for (Index k = 0; k < depth; k += 32) {
    if (k == 0 || (col + k) % s.group == 0) {
      scales.load(s, row, count, col + k);
      packer.slope = vmulq_n_f32(scales.scale, scale);
      packer.offset = vmulq_n_f32(scales.offset, scale);
    }
    if (s.order == CodeOrder::nibble_pairs) {
      packer.pack_pairs(col + k, panel + k * step);
    } else {
      packer.pack_bytes(col + k, panel + k * step);
      packer.pack_bytes(col + k + 16, panel + (k + 16) * step);
    }
  }
}

/// 16 elements of a row whose codes follow each other from `place` on, unscaled.
[[gnu::always_inline]] inline void numbers_of_16(CodeOrder order, CodePlace place, const Table& table, float32x4_t* numbers) {
  if (order == CodeOrder::nibble_pairs) {
    const uint8x8_t bytes = vld1_u8(reinterpret_cast<const std::uint8_t*>(place.bytes));
    const uint8x8_t even = vshr_n_u8(bytes, 4), odd = vand_u8(bytes, vdup_n_u8(15));
    table.look_up(vcombine_u8(vzip1_u8(even, odd), vzip2_u8(even, odd)), numbers);
  } else if (order == CodeOrder::nibble_halves) {
    const uint8x16_t bytes = load_bytes(place.bytes);
    table.look_up(place.shift != 0 ? high_nibbles(bytes) : low_nibbles(bytes), numbers);
  } else {
    widen_bytes(load_bytes(place.bytes), numbers);
  }
}

/// The same scaled.
[[gnu::always_inline]] inline void decode_16(CodeOrder order, CodePlace place, const Table& table, float scale, float offset, float* out) {
  float32x4_t numbers[4];
  numbers_of_16(order, place, table, numbers);
  LOWRANK_UNROLL
  for (int i = 0; i < 4; ++i) vst1q_f32(out + 4 * i, vfmaq_n_f32(vdupq_n_f32(offset), numbers[i], scale));
}

/// Elements that share a scale and whose codes follow each other in memory.
inline void decode_stretch(const BlockSource& s, Index begin, Index length, const Table& table, float scale, float offset, float* out) {
  Index j = 0;
  const bool is_pairs = s.order == CodeOrder::nibble_pairs;
  if (is_pairs && begin % 2 == 1 && length > 0) out[j++] = s.unscaled(begin) * scale + offset;
  if (j == length) return;
  CodePlace place(s, begin + j);
  for (; j + 16 <= length; j += 16, place.bytes += is_pairs ? 8 : 16) decode_16(s.order, place, table, scale, offset, out + j);
  if (j == length) return;
  std::byte last[16] = {};  // nothing past the stretch is read
  std::memcpy(last, place.bytes, static_cast<std::size_t>(is_pairs ? (length - j + 1) / 2 : length - j));
  place.bytes = last;
  float numbers[16];
  decode_16(s.order, place, table, scale, offset, numbers);
  std::copy_n(numbers, length - j, out + j);
}

#include <lowrank/kernels/target/decode_row.inl>

/// Codes of 8 neighbours of each of four rows: the first two rows, then the other two.
[[gnu::always_inline]] inline void codes_of_eight(CodeOrder order, bool is_high, const std::byte* const* at, uint8x16_t* out) {
  if (order == CodeOrder::nibble_pairs) {
    std::uint32_t bits[4];
    for (int i = 0; i < 4; ++i) std::memcpy(bits + i, at[i], 4);
    uint32x4_t four = vdupq_n_u32(bits[0]);
    four = vsetq_lane_u32(bits[1], four, 1);
    four = vsetq_lane_u32(bits[2], four, 2);
    const uint8x16_t bytes = vreinterpretq_u8_u32(vsetq_lane_u32(bits[3], four, 3));
    out[0] = vzip1q_u8(high_nibbles(bytes), low_nibbles(bytes));
    out[1] = vzip2q_u8(high_nibbles(bytes), low_nibbles(bytes));
    return;
  }
  for (int i = 0; i < 2; ++i) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(at[2 * i]);
    const auto* second = reinterpret_cast<const std::uint8_t*>(at[2 * i + 1]);
    const uint8x16_t bytes = vcombine_u8(vld1_u8(first), vld1_u8(second));
    out[i] = order == CodeOrder::bytes ? bytes : is_high ? high_nibbles(bytes) : low_nibbles(bytes);
  }
}

/// Columns [col, col + 8) of four rows at a time, as a transposed panel wants them: scales and codes are gathered over the rows.
inline void decode_eight(const BlockSource& s, Index row, Index count, Index col, const Table& table, float* out, Index stride) {
  const CodePlace place(s, row * s.pitch + col);
  const Index row_bytes = s.row_bytes();
  for (Index i = 0; i < count; i += 4) {
    const Index rows = count - i < 4 ? count - i : 4;
    const std::byte* at[4];
    for (Index r = 0; r < 4; ++r) at[r] = place.bytes + (i + (r < rows ? r : 0)) * row_bytes;
    Scales scales;
    scales.load(s, row + i, rows, col);
    float scale[4], offset[4];
    vst1q_f32(scale, scales.scale);
    vst1q_f32(offset, scales.offset);
    uint8x16_t codes[2];
    codes_of_eight(s.order, place.shift != 0, at, codes);
    for (Index r = 0; r < rows; r += 2) {
      float32x4_t numbers[4];
      s.order == CodeOrder::bytes ? widen_bytes(codes[r / 2], numbers) : table.look_up(codes[r / 2], numbers);
      for (Index v = 0; v < 4 && r + v / 2 < rows; ++v) {
        const Index lane = r + v / 2;
        vst1q_f32(out + (i + lane) * stride + v % 2 * 4, vfmaq_n_f32(vdupq_n_f32(offset[lane]), numbers[v], scale[lane]));
      }
    }
  }
}

inline void decode_blocks(const BlockSource& s, Index row, Index count, Index col, Index length, float* out, Index stride) {
  const Table table(s.table.data());
  if (length == 8 && col % 8 == 0 && s.group % 8 == 0 && s.rows_hold_whole_groups())
    return decode_eight(s, row, count, col, table, out, stride);
  for (Index i = 0; i < count; ++i) decode_row(s, row + i, col, length, table, out + i * stride);
}
