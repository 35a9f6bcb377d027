#include <transformer/data.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>

#include <lowrank/error.hpp>

namespace transformer {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  lowrank::check<lowrank::IoError>(file.is_open() && !std::filesystem::is_directory(path), "read_text", "cannot open ", path,
                                   "; give the path of a readable file");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  lowrank::check<lowrank::IoError>(!file.bad(), "read_text", "reading ", path, " failed");
  return text;
}

std::vector<Example> windows(const std::vector<std::int32_t>& ids, Index length) {
  std::vector<Example> examples;
  for (std::size_t begin = 0; begin + 1 < ids.size(); begin += static_cast<std::size_t>(length)) {
    const std::size_t end = std::min(ids.size(), begin + static_cast<std::size_t>(length) + 1);
    examples.push_back({{ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end)}});
  }
  return examples;
}

Dataset split_stream(const std::vector<std::int32_t>& ids, Index length, const std::string& name) {
  const auto count = static_cast<Index>(ids.size());
  lowrank::check<lowrank::ValueError>(count > 1, "data", name, " holds ", count, " tokens; there is nothing to predict: give more text");
  Index train_count = std::max(count - count / 10, std::min(count, length + 1));
  if (count - train_count < 2) train_count = count;  // one token alone predicts nothing
  const auto border = ids.begin() + train_count;
  return {windows({ids.begin(), border}, length), windows({border, ids.end()}, length)};
}

}  // namespace transformer
