// Blocks decoded along a row, in terms of the including target's Table and decode_stretch.

inline void decode_row(const BlockSource& s, Index row, Index col, Index length, const Table& table, float* out) {
  const Index begin = row * s.pitch + col;
  for (Index j = 0; j < length;) {
    const Index at = begin + j, g = at / s.group;
    Index stretch = (g + 1) * s.group - at;
    if (s.order == CodeOrder::nibble_halves && stretch > s.run - at % s.run) stretch = s.run - at % s.run;
    if (stretch > length - j) stretch = length - j;
    float scale, offset;
    s.read_scales(s, g, 1, &scale, &offset);
    decode_stretch(s, at, stretch, table, scale, offset, out + j);
    j += stretch;
  }
}
