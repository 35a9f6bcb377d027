// Blocks of 16 rows a group, one a lane, straight from their codes. A target includes this inside its namespace and region. `Sink` takes
// two neighbours of the depth of a group at a time, in the order of depth: put(group, k, even, odd); scale(group, slope, offset) says what
// they are scaled with. The target has a sink ProductSink<Columns, Groups>.

template <class Sink, int Groups>
struct BlockUnpacker {
  const BlockSource& source;
  const Index row_bytes;
  const __m512 table;
  Sink sink;

  /// 4 bytes of each row, of which nibbles are elements k … k + 3 (their lower ones), or k … k + 7 (all, the higher one of a byte first).
  [[gnu::always_inline]] void put_nibbles(int group, Index k, __m512i bytes) {
    LOWRANK_UNROLL
    for (int b = 0; b < 4; b += 2, bytes = _mm512_srli_epi32(bytes, 16))
      sink.put(group, k + b, _mm512_permutexvar_ps(bytes, table), _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 8), table));
  }
  [[gnu::always_inline]] void put_nibble_pairs(int group, Index k, __m512i bytes) {
    LOWRANK_UNROLL
    for (int b = 0; b < 4; ++b, bytes = _mm512_srli_epi32(bytes, 8))
      sink.put(group, k + 2 * b, _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), table), _mm512_permutexvar_ps(bytes, table));
  }
  /// 4 signed bytes of each row.
  [[gnu::always_inline]] void put_bytes(int group, Index k, __m512i bytes) {
    LOWRANK_UNROLL
    for (int b = 0; b < 4; b += 2, bytes = _mm512_srli_epi32(bytes, 16)) {
      const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24), 24), odd = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 16), 24);
      sink.put(group, k + b, _mm512_cvtepi32_ps(even), _mm512_cvtepi32_ps(odd));
    }
  }

  /// 16 bytes of each row.
  [[gnu::always_inline]] void load(const std::byte* from, Index count, __m512i (&words)[Groups][4]) const {
    LOWRANK_UNROLL
    for (int g = 0; g < Groups; ++g) avx512::load_words(from + 16 * g * row_bytes, row_bytes, count - 16 * g, words[g]);
  }

  /// A chunk of 32 elements of each row, of which element 0 is the k-th.
  [[gnu::always_inline]] void put_chunk(const avx512::ChunkPlace& place, Index count, Index k) {
    __m512i words[Groups][4];
    load(place.bytes, count, words);
    if (place.order == CodeOrder::nibble_pairs) {
      LOWRANK_UNROLL
      for (int j = 0; j < 4 * Groups; ++j) put_nibble_pairs(j % Groups, k + j / Groups * 8, words[j % Groups][j / Groups]);
      return;
    }
    for (Index part = 0; part < 2; ++part, k += 16) {
      if (part == 1 && !place.is_one_run) load(place.bytes + 16, count, words);
      const bool is_high = place.is_one_run ? part == 1 : place.is_high;
      LOWRANK_UNROLL
      for (int j = 0; j < 4 * Groups; ++j) {
        const __m512i bytes = words[j % Groups][j / Groups];
        if (place.order == CodeOrder::bytes)
          put_bytes(j % Groups, k + j / Groups * 4, bytes);
        else
          put_nibbles(j % Groups, k + j / Groups * 4, is_high ? _mm512_srli_epi32(bytes, 4) : bytes);
      }
    }
  }

  /// Rows [row, row + count), columns [col, col + depth) times a factor; each group has a row at least.
  [[gnu::always_inline]] void put(Index row, Index count, Index col, Index depth, float factor) {
    const __m512 factors = _mm512_set1_ps(factor);
    avx512::ChunkPlace place(source, row * source.pitch + col);
    avx512::Scales scales;
    Index left = 0;  // of the group that shares a scale
    for (Index k = 0; k < depth; k += 32, left -= 32, place.advance()) {
      if (left <= 0) {
        LOWRANK_UNROLL
        for (int g = 0; g < Groups; ++g) {
          scales.load(source, row + 16 * g, count - 16 * g, col + k);
          sink.scale(g, _mm512_mul_ps(scales.scale, factors), _mm512_mul_ps(scales.offset, factors));
        }
        left = k == 0 ? source.group - col % source.group : source.group;
      }
      if (place.begins_line(k / 32)) avx512::ask_for_rows<16 * Groups>(place.bytes + 16 * Groups * row_bytes, row_bytes);
      put_chunk(place, count, k);
    }
  }
};

/// Gives them to a sink, and gives that back.
template <int Groups, class Sink>
Sink unpack_blocks(const BlockSource& s, Index row, Index count, Index col, Index depth, float factor, Sink sink) {
  BlockUnpacker<Sink, Groups> unpacker{s, s.row_bytes(), _mm512_loadu_ps(s.table.data()), sink};
  unpacker.put(row, count, col, depth, factor);
  return unpacker.sink;
}

/// c = from + blocks · b for at most 16 Groups rows, decoded in registers: the sums that multiply() makes.
template <int Columns, int Groups>
void multiply_groups(const BlockSource& s, Index row, Index rows, Index col, Index depth, float factor, Index column_count, const Word* b,
                     const float* from, Index from_stride, float* c, Index ldc) {
  ProductSink<Columns, Groups> sink{b};
  LOWRANK_UNROLL
  for (int i = 0; i < Columns * Groups; ++i) {
    const int j = i / Groups, g = i % Groups;
    if (from == nullptr || j >= column_count) continue;
    sink.sum[g][j] = _mm512_maskz_loadu_ps(first_lanes(rows - 16 * g), from + j * from_stride + 16 * g);
  }
  sink = unpack_blocks<Groups>(s, row, rows, col, depth, factor, sink);
  LOWRANK_UNROLL
  for (int i = 0; i < Columns * Groups; ++i) {
    const int j = i / Groups, g = i % Groups;
    if (j < column_count) _mm512_mask_storeu_ps(c + j * ldc + 16 * g, first_lanes(rows - 16 * g), sink.sum[g][j]);
  }
}
/// The same for rows of a panel. Groups go together where tokens give too few chains of sums to hide their latency.
inline void multiply_blocks(const BlockSource& s, Index row, Index rows, Index col, Index depth, float factor, Index column_count,
                            const Word* b, const float* from, Index from_stride, float* c, Index ldc) {
  const bool are_together = column_count <= 2 && rows > 2 * lanes;
  const auto run = are_together        ? (column_count == 1 ? multiply_groups<1, 3> : multiply_groups<2, 3>)
                   : column_count == 1 ? multiply_groups<1, 1>
                   : column_count <= 4 ? multiply_groups<4, 1>
                                       : multiply_groups<8, 1>;
  const Index height = are_together ? 3 * lanes : lanes;
  for (Index r = 0; r < rows; r += height) {
    const Index count = rows - r < height ? rows - r : height;
    run(s, row + r, count, col, depth, factor, column_count, b, from != nullptr ? from + r : nullptr, from_stride, c + r, ldc);
  }
}
