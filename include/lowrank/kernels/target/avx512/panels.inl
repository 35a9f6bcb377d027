// AVX-512 (F, BW, VL, DQ): 16 floats a vector, panels of 48 rows and 8 tokens (24 sums, 3 rows, 1 token of 32 registers).

inline constexpr Index lanes = 16, vectors = 3, columns = 8;
inline constexpr int tile_columns[] = {2, 4, 8};

/// Two 8-lane transposes side by side.
template <bool Rounded>
void pack_rows(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  avx2::pack_rows<8, Rounded>(from, stride, count, depth, scale, panel, step);
  if (count > 8) avx2::pack_rows<8, Rounded>(from + 8 * stride, stride, count - 8, depth, scale, panel + 8, step);
}

template <bool Rounded>
void pack_columns(const float* from, Index stride, Index count, Index depth, float scale, Word* panel, Index step) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __mmask16 mask = first_lanes(count);
  for (Index k = 0; k < depth; ++k) {
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, from + k * stride), factor);
    _mm512_storeu_ps(panel + k * step, Rounded ? nearest_bfloat16({scaled}).v : scaled);
  }
}

/// sum[j][v] += row vector v of a word times its token j. The rows come from the second-level cache.
template <int Vectors, int Columns>
[[gnu::always_inline]] inline void add_word(const Word* a, const Word* b, Floats (&sum)[Columns][Vectors]) {
  __m512 row[Vectors];
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) row[v] = _mm512_loadu_ps(a + v * lanes);
  LOWRANK_UNROLL
  for (int v = 0; v < Vectors; ++v) _mm_prefetch(reinterpret_cast<const char*>(a + (8 * Vectors + v) * lanes), _MM_HINT_T0);
  LOWRANK_UNROLL
  for (int j = 0; j < Columns; ++j) {
    const __m512 token = _mm512_set1_ps(reinterpret_cast<const float*>(b)[j]);
    LOWRANK_UNROLL
    for (int v = 0; v < Vectors; ++v) sum[j][v].v = _mm512_fmadd_ps(row[v], token, sum[j][v].v);
  }
}

/// Writes 16 bytes of 16 rows column by column: out[z] lane l holds byte 4 z + l of rows 0 … 15; missing rows repeat row 0.
///
/// Register z holds rows z, 4 + z, 8 + z, 12 + z, one a 128-bit lane. Two rounds of byte and word unpacking bring the four rows of a lane
/// together, then one permutation of the 16 double words brings the four lanes together: 28 instructions for 256 bytes.
inline void transpose_bytes(const std::byte* from, Index stride, Index count, __m512i* out) {
  __m512i z[4];
  LOWRANK_UNROLL
  for (Index i = 0; i < 4; ++i) {
    __m128i part[4];
    LOWRANK_UNROLL
    for (Index l = 0; l < 4; ++l) {
      const Index row = 4 * l + i;
      part[l] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (row < count ? row : 0) * stride));
    }
    const __m512i low = _mm512_inserti32x4(_mm512_castsi128_si512(part[0]), part[1], 1);
    z[i] = _mm512_inserti32x4(_mm512_inserti32x4(low, part[2], 2), part[3], 3);
  }
  const __m512i t0 = _mm512_unpacklo_epi8(z[0], z[1]), t1 = _mm512_unpackhi_epi8(z[0], z[1]);
  const __m512i t2 = _mm512_unpacklo_epi8(z[2], z[3]), t3 = _mm512_unpackhi_epi8(z[2], z[3]);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  out[0] = _mm512_permutexvar_epi32(order, _mm512_unpacklo_epi16(t0, t2));
  out[1] = _mm512_permutexvar_epi32(order, _mm512_unpackhi_epi16(t0, t2));
  out[2] = _mm512_permutexvar_epi32(order, _mm512_unpacklo_epi16(t1, t3));
  out[3] = _mm512_permutexvar_epi32(order, _mm512_unpackhi_epi16(t1, t3));
}

/// Scales and offsets of one group each of 16 rows.
struct Scales {
  alignas(64) float scale[16], offset[16];

  /// 4 bytes of each of 16 rows; missing rows repeat the first. Loads and insertions take a third of a gather's time.
  static __m512i words(const std::byte* from, Index row_bytes, Index count) {
    alignas(64) std::uint32_t word[16];
    LOWRANK_UNROLL
    for (Index i = 0; i < 16; ++i) __builtin_memcpy(word + i, from + (i < count ? i : 0) * row_bytes, 4);
    return _mm512_load_si512(word);
  }
  /// A half-precision number of each of 16 rows. Reads 4 bytes at each: codes follow a block's numbers.
  static __m512 halves(const std::byte* from, Index row_bytes, Index count) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words(from, row_bytes, count)));
  }
  /// Of the group that holds column col in rows row … row + count - 1; missing rows repeat the first.
  void load(const BlockSource& s, Index row, Index count, Index col) {
    const Index groups = s.pitch / s.group, first = row * groups + col / s.group;
    if (s.read_scales == ArrayScales::read) {
      for (Index i = 0; i < 16; ++i) scale[i] = ArrayScales::float_at(s.scales, first + (i < count ? i : 0) * groups);
      _mm512_store_ps(offset, _mm512_setzero_ps());
    } else if (s.read_scales == HalfScales::read) {
      const Index row_bytes = s.row_bytes();
      const std::byte* at = s.data + row * row_bytes + col / s.block * s.block_bytes;
      _mm512_store_ps(scale, halves(at + s.scale_at, row_bytes, count));
      _mm512_store_ps(offset, s.offset_at < 0 ? _mm512_setzero_ps() : halves(at + s.offset_at, row_bytes, count));
    } else {
      for (Index i = 0; i < 16; ++i) s.read_scales(s, first + (i < count ? i : 0) * groups, 1, scale + i, offset + i);
    }
  }
};

/// codes[16 k + i] = code of element (row + i, col + k), k < 32, one a byte; col is a multiple of 32.
inline void load_codes(const BlockSource& s, Index row, Index count, Index col, std::uint8_t* codes) {
  const Index row_bytes = s.row_bytes();
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i transposed[4];
  if (s.order == CodeOrder::nibble_pairs) {
    transpose_bytes(CodePlace(s, row * s.pitch + col).bytes, row_bytes, count, transposed);
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    LOWRANK_UNROLL
    for (int z = 0; z < 4; ++z) {
      const __m512i even = _mm512_and_si512(_mm512_srli_epi16(transposed[z], 4), nibble), odd = _mm512_and_si512(transposed[z], nibble);
      _mm512_store_si512(codes + 128 * z, _mm512_permutex2var_epi64(even, first, odd));
      _mm512_store_si512(codes + 128 * z + 64, _mm512_permutex2var_epi64(even, second, odd));
    }
    return;
  }
  const CodePlace place(s, row * s.pitch + col);
  const bool is_one_run = s.order == CodeOrder::nibble_halves && s.run == 16;  // 16 bytes, which hold both parts
  for (Index part = 0; part < 2; ++part) {
    if (part == 0 || !is_one_run) transpose_bytes(place.bytes + 16 * part, row_bytes, count, transposed);
    const unsigned shift = is_one_run && part == 1 ? 4 : place.shift;
    LOWRANK_UNROLL
    for (int z = 0; z < 4; ++z) {
      __m512i part_codes = transposed[z];
      if (s.order == CodeOrder::nibble_halves)
        part_codes = _mm512_and_si512(shift == 0 ? part_codes : _mm512_srli_epi16(part_codes, 4), nibble);
      _mm512_store_si512(codes + 256 * part + 64 * z, part_codes);
    }
  }
}

/// What 16 codes stand for, before scaling: an entry of the table, or for Q8_0 the signed byte itself.
inline __m512 numbers_of(const std::uint8_t* codes, bool is_table, __m512 table) {
  const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(codes));
  return is_table ? _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(bytes), table) : _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

template <bool Rounded>
void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  const bool is_table = s.order != CodeOrder::bytes;
  alignas(64) std::uint8_t codes[512];
  Scales scales;
  for (Index k = 0; k < depth; k += 32) {
    if (k == 0 || (col + k) % s.group == 0) scales.load(s, row, count, col + k);
    load_codes(s, row, count, col + k, codes);
    const __m512 slope = _mm512_mul_ps(_mm512_load_ps(scales.scale), factor);
    const __m512 offset = _mm512_mul_ps(_mm512_load_ps(scales.offset), factor);
    for (Index q = 0; q < 32; ++q) {
      const __m512 value = _mm512_fmadd_ps(numbers_of(codes + 16 * q, is_table, table), slope, offset);
      _mm512_storeu_ps(panel + (k + q) * step, Rounded ? nearest_bfloat16({value}).v : value);
    }
  }
}

/// 16 elements of a row from column col on (a multiple of 16), before scaling.
[[gnu::always_inline]] inline __m512 unscaled_16(CodeOrder order, CodePlace place, __m512 table) {
  if (order == CodeOrder::nibble_pairs) {
    const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(place.bytes));
    const __m512i twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(pairs, pairs));
    const __m512i shift = _mm512_set1_epi64(4);  // even lanes by 4, odd lanes by 0
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(twice, shift), table);
  }
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(place.bytes));
  if (order == CodeOrder::bytes) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  return _mm512_permutexvar_ps(_mm512_srl_epi32(_mm512_cvtepu8_epi32(bytes), _mm_cvtsi32_si128(static_cast<int>(place.shift))), table);
}

inline void decode_blocks(const BlockSource& s, Index row, Index count, Index col, Index length, float* out, Index stride) {
  if (!s.rows_hold_whole_groups() || col % 16 != 0 || s.group % 16 != 0)
    return avx2::decode_blocks(s, row, count, col, length, out, stride);
  const __m512 table = _mm512_loadu_ps(s.table.data());
  const Index row_bytes = s.row_bytes();
  Scales scales;
  for (Index i = 0; i < count; i += 16) {
    const Index rows = count - i < 16 ? count - i : 16;
    for (Index j = 0; j + 16 <= length; j += 16) {
      if (j == 0 || (col + j) % s.group == 0) scales.load(s, row + i, rows, col + j);
      CodePlace place(s, (row + i) * s.pitch + col + j);
      for (Index r = 0; r < rows; ++r, place.bytes += row_bytes) {
        const __m512 value =
            _mm512_fmadd_ps(unscaled_16(s.order, place, table), _mm512_set1_ps(scales.scale[r]), _mm512_set1_ps(scales.offset[r]));
        _mm512_storeu_ps(out + (i + r) * stride + j, value);
      }
    }
  }
  const Index done = length / 16 * 16;
  if (done < length) avx2::decode_blocks(s, row, count, col + done, length - done, out + done, stride);
}
