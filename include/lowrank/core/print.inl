#pragma once

#include <array>
#include <cstdio>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::string bytes_text(std::size_t bytes) {
  if (bytes < 1000) return concat(bytes, " B");
  constexpr std::array<const char*, 4> units{"kB", "MB", "GB", "TB"};
  double size = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  for (; size >= 999.5 && unit + 1 < units.size(); ++unit) size /= 1000;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), size < 9.95 ? "%.1f %s" : "%.0f %s", size, units[unit]);
  return text.data();
}

}  // namespace lowrank::inline LOWRANK_ABI
