#include <transformer/data/format.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include <lowrank/error.hpp>
#include <lowrank/io/file.hpp>

#include <transformer/data.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

namespace {

using namespace std::string_view_literals;

/// How a file that is no text begins, what it is, and what makes text of it.
struct Magic {
  std::string_view bytes, what, remedy;
};

constexpr std::string_view pandas_remedy =
    "write it as JSON lines, in Python: pandas.read_parquet(IN).to_json(OUT, orient='records', lines=True)";

constexpr Magic magics[]{
    {"PAR1"sv, "a Parquet file", pandas_remedy},
    {"ARROW1"sv, "an Arrow file", "write it as JSON lines, in Python: pandas.read_feather(IN).to_json(OUT, orient='records', lines=True)"},
    {"\x1F\x8B"sv, "packed by gzip", "unpack it: gzip -dk FILE"},
    {"\x28\xB5\x2F\xFD"sv, "packed by zstd", "unpack it: zstd -d FILE"},
    {"\xFD\x37zXZ\0"sv, "packed by xz", "unpack it: xz -dk FILE"},
    {"BZh91AY&SY"sv, "packed by bzip2", "unpack it: bzip2 -dk FILE"},
    {"PK\x03\x04"sv, "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"},
    {"%PDF-"sv, "a PDF", "give its text"},
    {"GGUF"sv, "a GGUF model", "give the text to learn; the model goes with --model"},
    {"\xFF\xFE\0\0"sv, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8 IN > OUT"},
    {"\0\0\xFE\xFF"sv, "UTF-32", "convert it: iconv -f UTF-32 -t UTF-8 IN > OUT"},
    {"\xFF\xFE"sv, "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"},
    {"\xFE\xFF"sv, "UTF-16", "convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"},
};

/// What a text with a zero byte at `zero` looks like: ASCII in 16 or 32 bits has its zeros at regular places.
std::string_view wide_encoding(std::string_view bytes, std::size_t zero) {
  const auto fits = [&](std::size_t width, std::size_t digit) {
    for (std::size_t i = 0; i < std::min(bytes.size() / width * width, 64 * width); ++i)
      if ((bytes[i] == '\0') == (i % width == digit)) return false;
    return bytes.size() >= width;
  };
  if (zero > 3) return "";
  return fits(2, 0) ? "UTF-16LE" : fits(2, 1) ? "UTF-16BE" : fits(4, 0) ? "UTF-32LE" : fits(4, 3) ? "UTF-32BE" : "";
}

void refuse_zero_bytes(std::string_view bytes, const std::string& name) {
  const std::size_t zero = bytes.find('\0');
  if (zero == std::string_view::npos) return;
  const std::string_view encoding = wide_encoding(bytes, zero);
  lowrank::check<lowrank::FormatError>(encoding.empty(), "data", name, " is ", encoding, " and not UTF-8; convert it: iconv -f ", encoding,
                                       " -t UTF-8 IN > OUT");
  lowrank::fail<lowrank::FormatError>("data", name, " has a zero byte at byte ", zero, "; it is no text: give text in UTF-8");
}

void refuse_invalid(std::string_view bytes, const std::string& name) {
  const std::size_t valid = valid_utf8_length(bytes);
  if (valid == bytes.size()) return;
  const auto line = 1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(valid), '\n');
  lowrank::fail<lowrank::FormatError>("data", name, " is not UTF-8: byte ", valid, ", in line ", line, ", is ",
                                      static_cast<int>(static_cast<unsigned char>(bytes[valid])),
                                      "; convert it, if it is of Windows: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT");
}

}  // namespace

std::string read_data_text(const std::filesystem::path& path) {
  std::string bytes = read_text(path);
  const std::string name = lowrank::path_text(path);
  for (const Magic& magic : magics)
    lowrank::check<lowrank::FormatError>(!bytes.starts_with(magic.bytes), "data", name, " is ", magic.what, "; ", magic.remedy);
  refuse_zero_bytes(bytes, name);
  refuse_invalid(bytes, name);
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.erase(0, 3);
  return bytes;
}

}  // namespace transformer
