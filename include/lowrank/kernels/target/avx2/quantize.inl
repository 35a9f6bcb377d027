// Quantizing and decoding with AVX2: 32 numbers at a time.

/// A CodeRule in registers. Signs are flipped as integers: with -fno-signed-zeros GCC takes a mask of -0 for one of 0.
struct Tree {
  __m256 root, low, high, kept;
  __m256i flip;
  __m128i codes;

  explicit Tree(const CodeRule& rule)
      : root(_mm256_set1_ps(rule.by_magnitude ? 0.0f : rule.nodes[1])),
        low(_mm256_loadu_ps(rule.nodes.data())),
        high(_mm256_loadu_ps(rule.nodes.data() + 8)),
        kept(_mm256_castsi256_ps(_mm256_set1_epi32(rule.by_magnitude ? 0x7fffffff : -1))),
        flip(_mm256_set1_epi32(rule.by_magnitude ? static_cast<int>(0x80000000u) : 0)),
        codes(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rule.codes.data()))) {}

  /// 16 + the rank of each t. A comparison is -1 where it holds.
  __m256i leaf(__m256 t) const {
    const __m256 flipped = _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(t), flip)), compared = _mm256_and_ps(t, kept);
    const __m256i is_upper = _mm256_castps_si256(_mm256_cmp_ps(flipped, root, _CMP_GT_OQ));
    __m256i node = _mm256_sub_epi32(_mm256_set1_epi32(2), is_upper);
    node = descend(node, compared, low);
    node = descend(node, compared, low);
    return descend(node, compared, high);
  }

 private:
  static __m256i descend(__m256i node, __m256 compared, __m256 thresholds) {
    const __m256 above = _mm256_cmp_ps(compared, _mm256_permutevar8x32_ps(thresholds, node), _CMP_GT_OQ);
    return _mm256_sub_epi32(_mm256_add_epi32(node, node), _mm256_castps_si256(above));
  }
};

inline float largest_magnitude(const float* x, Index count) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (Index i = 0; i < count; i += 16) {
    LOWRANK_UNROLL
    for (int k = 0; k < 2; ++k) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i + 8 * k));
      largest[k] = _mm256_max_epi32(largest[k], _mm256_and_si256(bits, magnitude));
    }
  }
  const __m256i eight = _mm256_max_epi32(largest[0], largest[1]);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 1));
  return std::bit_cast<float>(_mm_cvtsi128_si32(four));
}

/// Codes of 32 ranks (16 bits of no interest above the fourth), packed to 16 bytes, the even one high.
inline void store_pairs(__m256i ranks, __m128i codes, std::uint8_t* to) {
  const __m256i found = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(codes), ranks);
  const __m256i pairs = _mm256_maddubs_epi16(found, _mm256_set1_epi16(0x0110));
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
}

inline void encode_numbers(const Tree& tree, const float* x, Index count, float inverse, std::uint8_t* codes) {
  const __m256 factor = _mm256_set1_ps(inverse);
  for (Index i = 0; i < count; i += 32) {
    __m256i leaf[4];
    LOWRANK_UNROLL
    for (int k = 0; k < 4; ++k) leaf[k] = tree.leaf(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * k), factor));
    const __m256i first = _mm256_packs_epi32(leaf[0], leaf[1]), second = _mm256_packs_epi32(leaf[2], leaf[3]);
    const __m256i mixed = _mm256_packus_epi16(first, second);  // fours of each vector, by halves
    store_pairs(_mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)), tree.codes, codes + i / 2);
  }
}

/// The sum of 16 lanes, in the order of LaneSums.
inline float total(__m256 first, __m256 second) {
  const __m256 eight = _mm256_add_ps(first, second);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

/// The functions that the search for a scale needs.
struct Search {
  static Moments moments(const CodeRule& rule, const float* x, Index count, float inverse) {
    const Tree tree(rule);
    const Table values(rule.values.data());
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256 tv[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, vv[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (Index i = 0; i < count; i += 16) {
      LOWRANK_UNROLL
      for (int k = 0; k < 2; ++k) {
        const __m256 t = _mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * k), factor), v = values[tree.leaf(t)];
        tv[k] = _mm256_fmadd_ps(t, v, tv[k]);
        vv[k] = _mm256_fmadd_ps(v, v, vv[k]);
      }
    }
    return {total(tv[0], tv[1]), total(vv[0], vv[1])};
  }

  static float squared_error(const CodeRule& rule, const float* x, Index count, float inverse) {
    const Tree tree(rule);
    const Table values(rule.values.data());
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (Index i = 0; i < count; i += 16) {
      LOWRANK_UNROLL
      for (int k = 0; k < 2; ++k) {
        const __m256 numbers = _mm256_loadu_ps(x + i + 8 * k), v = values[tree.leaf(_mm256_mul_ps(numbers, factor))];
        const __m256 rest = _mm256_fmsub_ps(numbers, factor, v);
        sum[k] = _mm256_fmadd_ps(rest, rest, sum[k]);
      }
    }
    return total(sum[0], sum[1]);
  }
};

inline Index encode_table(const TableEncoder& encoder, const float* x, Index blocks, std::uint8_t* codes, float* scales) {
  const Tree tree(encoder.rule);
  for (Index b = 0; b < blocks; ++b, x += encoder.block, codes += encoder.block / 2) {
    const float largest = largest_magnitude(x, encoder.block);
    if (!is_finite(largest)) return b;
    if (!is_normal(largest)) {
      std::fill_n(codes, encoder.block / 2, std::uint8_t{0});
      scales[b] = 0;
      continue;
    }
    scales[b] = encoder.fractions.empty() ? largest : scalar::searched_scale<Search>(encoder, x, encoder.block, largest);
    encode_numbers(tree, x, encoder.block, 1.0f / scales[b], codes);
  }
  return blocks;
}

/// Scales and offsets of up to 64 groups that follow each other.
struct GroupScales {
  static constexpr Index capacity = 64;
  alignas(64) float scale[capacity], offset[capacity];

  void read(const BlockSource& s, Index first, Index count) {
    if (s.read_scales != HalfScales::read || s.group != s.block) return s.read_scales(s, first, count, scale, offset);
    alignas(16) std::uint16_t bits[2][capacity] = {};
    const std::byte* block = s.data + first * s.block_bytes;
    for (Index i = 0; i < count; ++i, block += s.block_bytes) {
      std::memcpy(&bits[0][i], block + s.scale_at, 2);
      bits[1][i] = 0x8000;  // -0, the neutral offset
      if (s.offset_at >= 0) std::memcpy(&bits[1][i], block + s.offset_at, 2);
    }
    for (Index i = 0; i < count; i += 8) {
      _mm256_store_ps(scale + i, _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits[0] + i))));
      _mm256_store_ps(offset + i, _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits[1] + i))));
    }
  }
};

/// 32 codes, one a byte, in the low nibble.
inline __m256i codes_32(const BlockSource& s, const GroupCodes& group, Index i) {
  if (s.order == CodeOrder::nibble_halves && s.run != 16) {
    const Index inside = group.inside + i, position = inside % (2 * s.run);
    const std::byte* codes = group.codes + inside / (2 * s.run) * s.run + position % s.run;
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    return position < s.run ? bytes : _mm256_srli_epi16(bytes, 4);
  }
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(group.codes + (group.inside + i) / 2));
  const __m128i high = _mm_srli_epi16(bytes, 4);
  if (s.order == CodeOrder::nibble_halves) return _mm256_set_m128i(high, bytes);
  return _mm256_set_m128i(_mm_unpackhi_epi8(high, bytes), _mm_unpacklo_epi8(high, bytes));
}

/// Writes a vector; past the caches in sixteens of bytes, the alignment of fresh memory (whole lines are put together on the way).
inline void store(__m256 value, float* out, bool streams) {
  if (!streams) return _mm256_storeu_ps(out, value);
  _mm_stream_ps(out, _mm256_castps256_ps128(value));
  _mm_stream_ps(out + 4, _mm256_extractf128_ps(value, 1));
}

/// Numbers k … k + 7 of a group of signed bytes.
inline __m256 scaled_bytes(const GroupCodes& group, Index i, __m256 slope, __m256 shift) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(group.codes + group.inside + i));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), slope, shift);
}

/// A group decoded to floats: its table is scaled once, then looked up.
struct FloatGroup {
  static void write(const BlockSource& s, const GroupCodes& group, float* out, bool streams) {
    const __m256 slope = _mm256_set1_ps(group.scale), shift = _mm256_set1_ps(group.offset);
    if (s.order == CodeOrder::bytes) {
      for (Index i = 0; i < group.count; i += 8) store(scaled_bytes(group, i, slope, shift), out + i, streams);
      return;
    }
    Table values(s.table.data());
    values.low = _mm256_fmadd_ps(values.low, slope, shift);
    values.high = _mm256_fmadd_ps(values.high, slope, shift);
    for (Index i = 0; i < group.count; i += 32) {
      const __m256i codes = codes_32(s, group, i);
      const __m128i half[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
      LOWRANK_UNROLL
      for (int k = 0; k < 2; ++k) {
        store(values[_mm256_cvtepu8_epi32(half[k])], out + i + 16 * k, streams);
        store(values[_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(half[k], half[k]))], out + i + 16 * k + 8, streams);
      }
    }
  }
};

/// 16 floats rounded to bfloat16.
inline __m256i to_bfloat16(__m256 first, __m256 second) {
  const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(nearest_bfloat16({first}).v), 16);
  const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(nearest_bfloat16({second}).v), 16);
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
}

inline void store(__m128i value, BFloat16* out, bool streams) {
  auto* const to = reinterpret_cast<__m128i*>(out);
  streams ? _mm_stream_si128(to, value) : _mm_storeu_si128(to, value);
}

/// A group decoded to bfloat16: the scaled table is rounded once, and looked up as two tables of bytes.
struct Bfloat16Group {
  static void write(const BlockSource& s, const GroupCodes& group, BFloat16* out, bool streams) {
    const __m256 slope = _mm256_set1_ps(group.scale), shift = _mm256_set1_ps(group.offset);
    if (s.order == CodeOrder::bytes) {
      for (Index i = 0; i < group.count; i += 16) {
        const __m256i rounded = to_bfloat16(scaled_bytes(group, i, slope, shift), scaled_bytes(group, i + 8, slope, shift));
        store(_mm256_castsi256_si128(rounded), out + i, streams);
        store(_mm256_extracti128_si256(rounded, 1), out + i + 8, streams);
      }
      return;
    }
    const Table values(s.table.data());
    const __m256i rounded = to_bfloat16(_mm256_fmadd_ps(values.low, slope, shift), _mm256_fmadd_ps(values.high, slope, shift));
    const __m256i split =
        _mm256_shuffle_epi8(rounded, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
    const __m128i first = _mm256_castsi256_si128(split), second = _mm256_extracti128_si256(split, 1);
    const __m128i low = _mm_unpacklo_epi64(first, second), high = _mm_unpackhi_epi64(first, second);
    for (Index i = 0; i < group.count; i += 32) {
      const __m256i codes = _mm256_and_si256(codes_32(s, group, i), _mm256_set1_epi8(15));
      const __m128i half[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
      LOWRANK_UNROLL
      for (int k = 0; k < 2; ++k) {
        const __m128i low_bytes = _mm_shuffle_epi8(low, half[k]), high_bytes = _mm_shuffle_epi8(high, half[k]);
        store(_mm_unpacklo_epi8(low_bytes, high_bytes), out + i + 16 * k, streams);
        store(_mm_unpackhi_epi8(low_bytes, high_bytes), out + i + 16 * k + 8, streams);
      }
    }
  }
};

/// Walks over the groups of a stretch; Group::write decodes each.
template <class Group, class Element>
void decode(const BlockSource& s, Index begin, Index count, Element* out, bool streams) {
  const bool has_blocks = s.order != CodeOrder::nibble_pairs;
  const std::byte* codes = has_blocks ? s.block_of(begin) + s.codes_at : s.data;
  Index inside = has_blocks ? begin % s.block : begin;
  GroupScales scales;
  for (Index done = 0; done < count;) {
    const Index first = (begin + done) / s.group, groups = std::min(GroupScales::capacity, ceil_div(begin + count, s.group) - first);
    scales.read(s, first, groups);
    for (Index g = 0; g < groups; ++g) {
      const Index length = std::min((first + g + 1) * s.group - begin, count) - done;
      Group::write(s, {codes, inside, length, scales.scale[g], scales.offset[g]}, out + done, streams);
      done += length;
      inside += length;
      if (has_blocks && inside == s.block) codes += s.block_bytes, inside = 0;
    }
  }
  if (streams) _mm_sfence();
}
