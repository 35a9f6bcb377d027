#pragma once

#include <string>
#include <string_view>

namespace transformer {

/// A text in normalization form C: characters taken apart, marks put in canonical order, then composed again. Bytes that are not UTF-8 stay
/// as they are, and nothing composes across them. Unicode Standard Annex 15.
std::string to_nfc(std::string_view text);

}  // namespace transformer
