#pragma once

#include <filesystem>
#include <string>

/// Whether the bytes of a data file are text, and what they are where they are not.

namespace transformer {

/// A data file's text in UTF-8, without a byte order mark, by what its bytes are, whatever its name.
///
/// Throws IoError, and FormatError for a packed file, a table of columns in binary, UTF-16, UTF-32, zero bytes and bytes that are not
/// UTF-8: says what it is, where, and how to make text of it.
std::string read_data_text(const std::filesystem::path& path);

}  // namespace transformer
