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

/// 16 bytes of each of 16 rows: z[i] has those of rows i, 4 + i, 8 + i, 12 + i, one a 128-bit lane; missing rows repeat row 0.
[[gnu::always_inline]] inline void load_quarters(const std::byte* from, Index stride, Index count, __m512i (&z)[4]) {
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
}

/// Writes 16 bytes of 16 rows column by column: out[z] lane l holds byte 4 z + l of rows 0 … 15; missing rows repeat row 0.
///
/// Two rounds of byte and word unpacking bring the four rows of a lane together, then one permutation of the 16 double words brings the
/// four lanes together: 28 instructions for 256 bytes.
inline void transpose_bytes(const std::byte* from, Index stride, Index count, __m512i* out) {
  __m512i z[4];
  load_quarters(from, stride, count, z);
  const __m512i t0 = _mm512_unpacklo_epi8(z[0], z[1]), t1 = _mm512_unpackhi_epi8(z[0], z[1]);
  const __m512i t2 = _mm512_unpacklo_epi8(z[2], z[3]), t3 = _mm512_unpackhi_epi8(z[2], z[3]);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  out[0] = _mm512_permutexvar_epi32(order, _mm512_unpacklo_epi16(t0, t2));
  out[1] = _mm512_permutexvar_epi32(order, _mm512_unpackhi_epi16(t0, t2));
  out[2] = _mm512_permutexvar_epi32(order, _mm512_unpacklo_epi16(t1, t3));
  out[3] = _mm512_permutexvar_epi32(order, _mm512_unpackhi_epi16(t1, t3));
}

/// 4 bytes of each of 16 rows; missing rows repeat the first. Insertions take a third of a gather's time, and no way through memory.
inline __m512i words_of(const std::byte* from, Index row_bytes, Index count) {
  __m128i part[4];
  LOWRANK_UNROLL
  for (Index l = 0; l < 4; ++l) {
    std::int32_t word[4];
    LOWRANK_UNROLL
    for (Index i = 0; i < 4; ++i) __builtin_memcpy(word + i, from + (4 * l + i < count ? 4 * l + i : 0) * row_bytes, 4);
    part[l] = _mm_setr_epi32(word[0], word[1], word[2], word[3]);
  }
  const __m512i low = _mm512_inserti32x4(_mm512_castsi128_si512(part[0]), part[1], 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(low, part[2], 2), part[3], 3);
}
/// 16 bytes of each of 16 rows, 4 a register: out[j] has the j-th 4 bytes.
inline void load_words(const std::byte* from, Index row_bytes, Index count, __m512i (&out)[4]) {
  __m512i z[4];
  load_quarters(from, row_bytes, count, z);
  const __m512i t0 = _mm512_unpacklo_epi32(z[0], z[1]), t1 = _mm512_unpackhi_epi32(z[0], z[1]);
  const __m512i t2 = _mm512_unpacklo_epi32(z[2], z[3]), t3 = _mm512_unpackhi_epi32(z[2], z[3]);
  out[0] = _mm512_unpacklo_epi64(t0, t2), out[1] = _mm512_unpackhi_epi64(t0, t2);
  out[2] = _mm512_unpacklo_epi64(t1, t3), out[3] = _mm512_unpackhi_epi64(t1, t3);
}

/// Half-precision numbers in the lower and in the upper half of each word.
inline __m512 lower_halves(__m512i words) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)); }
inline __m512 upper_halves(__m512i words) { return lower_halves(_mm512_srli_epi32(words, 16)); }

/// Scales and offsets of one group each of 16 rows.
struct Scales {
  __m512 scale, offset;

  /// Of the group that holds column col in rows row … row + count - 1; missing rows repeat the first. Where they are half precision, 4
  /// bytes are read at each: codes follow a block's numbers.
  void load(const BlockSource& s, Index row, Index count, Index col) {
    offset = _mm512_setzero_ps();
    if (s.read_scales == HalfScales::read) {
      const Index row_bytes = s.row_bytes();
      const std::byte* at = s.data + row * row_bytes + col / s.block * s.block_bytes;
      const __m512i words = words_of(at + s.scale_at, row_bytes, count);
      scale = lower_halves(words);
      if (s.offset_at == s.scale_at + 2)
        offset = upper_halves(words);
      else if (s.offset_at >= 0)
        offset = lower_halves(words_of(at + s.offset_at, row_bytes, count));
      return;
    }
    const Index groups = s.pitch / s.group, first = row * groups + col / s.group;
    if (s.read_scales == ArrayScales::read) {
      scale = _mm512_castsi512_ps(words_of(s.scales + 4 * first, 4 * groups, count));
      return;
    }
    alignas(64) float scales[16], offsets[16];
    for (Index i = 0; i < 16; ++i) s.read_scales(s, first + (i < count ? i : 0) * groups, 1, scales + i, offsets + i);
    scale = _mm512_load_ps(scales), offset = _mm512_load_ps(offsets);
  }
};

/// codes[16 k + i] = code k of row i, k < 32, one a byte, of nibble pairs that begin at from + i * row_bytes.
inline void load_pairs(const std::byte* from, Index row_bytes, Index count, std::uint8_t* codes) {
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i transposed[4];
  transpose_bytes(from, row_bytes, count, transposed);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  LOWRANK_UNROLL
  for (int z = 0; z < 4; ++z) {
    const __m512i even = _mm512_and_si512(_mm512_srli_epi16(transposed[z], 4), nibble), odd = _mm512_and_si512(transposed[z], nibble);
    _mm512_store_si512(codes + 128 * z, _mm512_permutex2var_epi64(even, first, odd));
    _mm512_store_si512(codes + 128 * z + 64, _mm512_permutex2var_epi64(even, second, odd));
  }
}

/// Asks for the lines of rows that are read later: they are short, or strips of longer ones, and no stream that the processor foresees.
/// Into the second-level cache: what is asked for the first one is dropped where that waits for too much already.
template <Index Rows>
[[gnu::always_inline]] inline void ask_for_rows(const std::byte* from, Index row_bytes) {
  LOWRANK_UNROLL
  for (Index i = 0; i < Rows; ++i) _mm_prefetch(reinterpret_cast<const char*>(from + i * row_bytes), _MM_HINT_T1);
}

/// Where the codes of chunks of 32 elements lie in the first of 16 rows, chunk after chunk.
class ChunkPlace {
 public:
  ChunkPlace(const BlockSource& source, Index element)
      : order(source.order), is_one_run(order == CodeOrder::nibble_halves && source.run == 16), source_(source), element_(element) {
    if (order == CodeOrder::nibble_pairs)
      step_ = 16;
    else if (source.block == 32)
      step_ = source.block_bytes;
    lines_ = step_ > 0 && step_ < 64 ? 64 / step_ : 1;
    find();
  }
  void advance() {
    element_ += 32, bytes += step_;
    if (step_ == 0) find();
  }
  /// Whether chunk number n may be the first that touches a cache line.
  bool begins_line(Index n) const { return n % lines_ == 0; }

  const std::byte* bytes;
  const CodeOrder order;
  const bool is_one_run;  ///< 16 bytes hold the whole chunk, its second half in the high nibbles
  bool is_high;           ///< else: 32 bytes hold it, in the high nibbles

 private:
  void find() {
    const CodePlace place(source_, element_);
    bytes = place.bytes, is_high = place.shift != 0;
  }

  const BlockSource& source_;
  Index element_, step_ = 0, lines_;  ///< from chunk to chunk, 0 where that varies; chunks to a line
};

/// What 16 codes stand for, before scaling.
inline __m512 numbers_of(const std::uint8_t* codes, __m512 table) {
  return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(codes))), table);
}

/// Sixteen rows of nibble pairs that begin anywhere, 32 elements of each at a time; missing rows repeat the first.
class AnyRows {
 public:
  AnyRows(const BlockSource& s, Index row, Index count, Index col) : source_(s) {
    alignas(64) std::int32_t group[16], left[16];
    for (Index i = 0; i < 16; ++i) {
      const Index element = (row + (i < count ? i : 0)) * s.pitch + col;
      at_[i] = s.data + element / 2;
      is_odd_[i] = element % 2 == 1;
      group[i] = static_cast<std::int32_t>(element / s.group);
      left[i] = static_cast<std::int32_t>(s.group - element % s.group);
    }
    group_ = _mm512_load_si512(group);
    left_ = _mm512_load_si512(left);
  }

  /// codes[16 k + i] = code k of row i, from element 32 · step on; of an odd element the low nibble comes first.
  void load_codes(Index step, std::uint8_t* codes) const {
    alignas(64) std::byte bytes[256];
    const __m128i low = _mm_set1_epi8(15);
    for (Index i = 0; i < 16; ++i) {
      const auto* from = reinterpret_cast<const __m128i*>(at_[i] + 16 * step);
      __m128i pairs = _mm_loadu_si128(from);
      if (is_odd_[i]) {
        const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_[i] + 16 * step + 1));
        pairs = _mm_or_si128(_mm_andnot_si128(low, _mm_slli_epi16(pairs, 4)), _mm_and_si128(_mm_srli_epi16(next, 4), low));
      }
      _mm_store_si128(reinterpret_cast<__m128i*>(bytes + 16 * i), pairs);
    }
    load_pairs(bytes, 16, 16, codes);
  }

  /// Scales of each row's group and, where it ends within 32 elements, of the next, times a factor; then moves on by 32.
  void load_scales(__m512 factor) {
    const __mmask16 ends = _mm512_cmplt_epi32_mask(left_, _mm512_set1_epi32(32));
    const __m512i next = _mm512_mask_add_epi32(group_, ends, group_, _mm512_set1_epi32(1));
    first_ = _mm512_mul_ps(scales_of(group_), factor);
    second_ = ends == 0 ? first_ : _mm512_mul_ps(scales_of(next), factor);
    edge_ = left_;
    left_ = _mm512_sub_epi32(left_, _mm512_set1_epi32(32));
    const __mmask16 is_over = _mm512_cmple_epi32_mask(left_, _mm512_setzero_si512());
    group_ = _mm512_mask_add_epi32(group_, is_over, group_, _mm512_set1_epi32(1));
    left_ = _mm512_mask_add_epi32(left_, is_over, left_, _mm512_set1_epi32(static_cast<int>(source_.group)));
  }
  /// Of element k of the 32.
  [[gnu::always_inline]] __m512 scale(int k) const {
    return _mm512_mask_blend_ps(_mm512_cmpgt_epi32_mask(edge_, _mm512_set1_epi32(k)), second_, first_);
  }

 private:
  __m512 scales_of(__m512i groups) const {
    if (source_.read_scales == ArrayScales::read) return _mm512_i32gather_ps(groups, source_.scales, 4);
    alignas(64) std::int32_t group[16];
    alignas(64) float scale[16], offset[16];
    _mm512_store_si512(group, groups);
    for (Index i = 0; i < 16; ++i) source_.read_scales(source_, group[i], 1, scale + i, offset + i);
    return _mm512_load_ps(scale);
  }

  const BlockSource& source_;
  const std::byte* at_[16];
  bool is_odd_[16];
  __m512i group_, left_, edge_;  ///< left: elements from here to the group's end
  __m512 first_, second_;
};

template <bool Rounded>
void pack_any_rows(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  const __m512 table = _mm512_loadu_ps(s.table.data()), factor = _mm512_set1_ps(scale);
  alignas(64) std::uint8_t codes[512];
  AnyRows rows(s, row, count, col);
  for (Index k = 0; k < depth; k += 32) {
    rows.load_codes(k / 32, codes);
    rows.load_scales(factor);
    for (int q = 0; q < 32; ++q) {
      const __m512 value = _mm512_fmadd_ps(numbers_of(codes + 16 * q, table), rows.scale(q), _mm512_setzero_ps());
      _mm512_storeu_ps(panel + (k + q) * step, Rounded ? nearest_bfloat16({value}).v : value);
    }
  }
}

/// Rows times columns of words, each element one chain.
template <int Columns, int Groups>
struct ProductSink {
  const Word* b;
  __m512 sum[Groups][Columns] = {}, slope[Groups] = {}, offset[Groups] = {};

  [[gnu::always_inline]] void scale(int g, __m512 slopes, __m512 offsets) { slope[g] = slopes, offset[g] = offsets; }
  [[gnu::always_inline]] void put_one(int g, Index k, __m512 number) {
    const __m512 row = _mm512_fmadd_ps(number, slope[g], offset[g]);
    LOWRANK_UNROLL
    for (int j = 0; j < Columns; ++j)
      sum[g][j] = _mm512_fmadd_ps(row, _mm512_set1_ps(reinterpret_cast<const float*>(b)[k * columns + j]), sum[g][j]);
  }
  [[gnu::always_inline]] void put(int g, Index k, __m512 even, __m512 odd) { put_one(g, k, even), put_one(g, k + 1, odd); }
};

#include <lowrank/kernels/target/avx512/pack_blocks.inl>

/// Words of one float.
template <bool Rounded>
struct PanelSink {
  Word* panel;
  Index step;
  __m512 slope = {}, offset = {};

  [[gnu::always_inline]] void scale(int, __m512 slopes, __m512 offsets) { slope = slopes, offset = offsets; }
  [[gnu::always_inline]] void put_one(Index k, __m512 number) const {
    const __m512 value = _mm512_fmadd_ps(number, slope, offset);
    _mm512_storeu_ps(panel + k * step, Rounded ? nearest_bfloat16({value}).v : value);
  }
  [[gnu::always_inline]] void put(int, Index k, __m512 even, __m512 odd) const { put_one(k, even), put_one(k + 1, odd); }
};

template <bool Rounded>
void pack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float scale, Word* panel, Index step) {
  if (!s.rows_hold_whole_groups()) return pack_any_rows<Rounded>(s, row, count, col, depth, scale, panel, step);
  unpack_blocks<1>(s, row, count, col, depth, scale, PanelSink<Rounded>{panel, step});
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

/// 16 elements of nibble pairs from any one on, before scaling; of an odd element the low nibble comes first.
[[gnu::always_inline]] inline __m512 pairs_16(const std::byte* bytes, bool is_odd, __m512 table) {
  const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
  const __m128i second = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + is_odd));
  const __m512i shift = _mm512_set1_epi64(is_odd ? std::int64_t{4} << 32 : 4);
  return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(first, second)), shift), table);
}

/// A number for the elements before a group's end, another for those after it.
[[gnu::always_inline]] inline __m512 of_groups(Index left, const float* numbers) {
  if (left >= 16) return _mm512_set1_ps(numbers[0]);
  return _mm512_mask_blend_ps(first_lanes(left), _mm512_set1_ps(numbers[1]), _mm512_set1_ps(numbers[0]));
}

/// Whole vectors of a row of nibble pairs in groups of 16 or more, from any element on.
inline void decode_pairs(const BlockSource& s, Index begin, Index length, __m512 table, float* out) {
  constexpr Index ahead = 64;  // scales read at a time
  float scale[ahead], offset[ahead];
  for (Index j = 0; j + 16 <= length;) {
    const Index group = (begin + j) / s.group, groups = std::min(ahead, (begin + length - 1) / s.group - group + 1);
    const Index known = std::min(length, (group + groups) * s.group - begin);
    s.read_scales(s, group, groups, scale, offset);
    Index left = (group + 1) * s.group - begin - j;
    for (Index g = 0; j + 16 <= known; j += 16, left -= 16) {
      if (left <= 0) left += s.group, ++g;
      const __m512 numbers = pairs_16(s.data + (begin + j) / 2, begin % 2 == 1, table);
      _mm512_storeu_ps(out + j, _mm512_fmadd_ps(numbers, of_groups(left, scale + g), of_groups(left, offset + g)));
    }
  }
}

inline void decode_blocks(const BlockSource& s, Index row, Index count, Index col, Index length, float* out, Index stride) {
  const Index whole = length / 16 * 16;
  if (!s.rows_hold_whole_groups() || col % 16 != 0 || s.group % 16 != 0) {
    if (s.order != CodeOrder::nibble_pairs || s.group < 16 || whole == 0)
      return avx2::decode_blocks(s, row, count, col, length, out, stride);
    for (Index i = 0; i < count; ++i) decode_pairs(s, (row + i) * s.pitch + col, whole, _mm512_loadu_ps(s.table.data()), out + i * stride);
    if (whole < length) avx2::decode_blocks(s, row, count, col + whole, length - whole, out + whole, stride);
    return;
  }
  const __m512 table = _mm512_loadu_ps(s.table.data());
  const Index row_bytes = s.row_bytes();
  Scales scales;
  alignas(64) float scale[16], offset[16];
  for (Index i = 0; i < count; i += 16) {
    const Index rows = count - i < 16 ? count - i : 16;
    for (Index j = 0; j + 16 <= length; j += 16) {
      if (j == 0 || (col + j) % s.group == 0) {
        scales.load(s, row + i, rows, col + j);
        _mm512_store_ps(scale, scales.scale);
        _mm512_store_ps(offset, scales.offset);
      }
      CodePlace place(s, (row + i) * s.pitch + col + j);
      for (Index r = 0; r < rows; ++r, place.bytes += row_bytes) {
        const __m512 value = _mm512_fmadd_ps(unscaled_16(s.order, place, table), _mm512_set1_ps(scale[r]), _mm512_set1_ps(offset[r]));
        _mm512_storeu_ps(out + (i + r) * stride + j, value);
      }
    }
  }
  if (whole < length) avx2::decode_blocks(s, row, count, col + whole, length - whole, out + whole, stride);
}
