#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>

namespace lowrank::test {

/// A file of golden tensors (safetensors), read whole; for tests only, so it trusts the file.
///
/// `GoldenFile file(LOWRANK_GOLDEN_DIR "/quant4.safetensors"); file.floats("code.nf4");`
class GoldenFile {
 public:
  explicit GoldenFile(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error("cannot open " + path);
    content_.assign(std::istreambuf_iterator<char>(stream), {});
    std::uint64_t length = 0;
    std::memcpy(&length, content_.data(), 8);
    header_ = nlohmann::json::parse(content_.begin() + 8, content_.begin() + 8 + static_cast<std::ptrdiff_t>(length));
    data_ = 8 + static_cast<std::size_t>(length);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& [name, entry] : header_.items())
      if (name != "__metadata__") result.push_back(name);
    return result;
  }
  bool contains(const std::string& name) const { return header_.contains(name); }
  std::vector<Index> shape(const std::string& name) const { return entry(name).at("shape").get<std::vector<Index>>(); }
  std::string dtype(const std::string& name) const { return entry(name).at("dtype").get<std::string>(); }

  /// The numbers of an F32 or BF16 tensor.
  std::vector<float> floats(const std::string& name) const {
    if (dtype(name) != "BF16") return read<float>(name, "F32");
    std::vector<float> result;
    for (const std::uint16_t bits : read<std::uint16_t>(name, "BF16")) {
      BFloat16 value;
      value.bits = bits;
      result.push_back(value);
    }
    return result;
  }
  /// The numbers of an I32 or I64 tensor, in 32 bits.
  std::vector<std::int32_t> ints(const std::string& name) const {
    if (dtype(name) != "I64") return read<std::int32_t>(name, "I32");
    std::vector<std::int32_t> result;
    for (const std::int64_t value : read<std::int64_t>(name, "I64")) result.push_back(static_cast<std::int32_t>(value));
    return result;
  }
  /// The stored bytes of a tensor of any type.
  std::vector<std::uint8_t> bytes(const std::string& name) const { return read<std::uint8_t>(name, dtype(name)); }

 private:
  const nlohmann::json& entry(const std::string& name) const {
    if (!header_.contains(name)) throw std::runtime_error("the golden file has no tensor " + name);
    return header_.at(name);
  }
  template <class T>
  std::vector<T> read(const std::string& name, const std::string& expected) const {
    if (dtype(name) != expected) throw std::runtime_error(name + " is " + dtype(name) + ", not " + expected);
    const auto range = entry(name).at("data_offsets").get<std::vector<std::size_t>>();
    std::vector<T> result((range.at(1) - range.at(0)) / sizeof(T));
    if (!result.empty()) std::memcpy(result.data(), content_.data() + data_ + range[0], result.size() * sizeof(T));
    return result;
  }

  std::string content_;
  nlohmann::json header_;
  std::size_t data_ = 0;
};

}  // namespace lowrank::test
