#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// What Python does with a str, over UTF-8: positions count code points, blanks are Unicode's.

namespace transformer::jinja {

/// How often a text that is not empty occurs, without overlaps; at most `most` where that is not negative.
std::int64_t occurrences(std::string_view text, std::string_view part, std::int64_t most = -1);

/// Code points of a text.
std::size_t character_count(std::string_view text);
/// The code points one by one.
std::vector<std::string> characters(std::string_view text);

/// Whether str.isspace() holds for the code point.
bool is_blank(char32_t c);

enum class Side { left, right, both };
/// str.strip, lstrip, rstrip; `set`: the characters to take away, null: blanks.
std::string_view strip(std::string_view text, Side side, const std::string_view* set = nullptr);

/// str.split and rsplit at a separator that is not empty; `most`: cuts, negative: all.
std::vector<std::string> split(std::string_view text, std::string_view separator, std::int64_t most, Side from);
/// str.split() and rsplit() at blanks.
std::vector<std::string> split_blanks(std::string_view text, std::int64_t most, Side from);
/// str.splitlines().
std::vector<std::string> split_lines(std::string_view text, bool keep_ends = false);

/// str.replace; `most` negative: all.
std::string replace(std::string_view text, std::string_view old, std::string_view fresh, std::int64_t most = -1);

bool is_ascii(std::string_view text);
/// Of ASCII texts alone.
std::string upper(std::string text);
std::string lower(std::string text);
/// The first character upper case, the others lower.
std::string capitalize(std::string text);
/// str.title(): upper case after what is no letter.
std::string title(std::string text);

}  // namespace transformer::jinja
