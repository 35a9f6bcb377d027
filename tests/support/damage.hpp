#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/random.hpp>
#include <lowrank/core/tensor.hpp>

namespace lowrank::test {

/// One to four changes: a bit, a byte, eight bytes of an extreme number, a stretch cut, doubled or overwritten by another one.
inline std::string damaged(std::string bytes, Random& random) {
  constexpr std::uint64_t extremes[] = {
      0, 1, 0x7f, 0xff, 0x7fffffff, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~std::uint64_t{0}};
  for (Index changes = 1 + random.below(4); changes > 0 && !bytes.empty(); --changes) {
    const auto size = static_cast<Index>(bytes.size());
    const auto at = static_cast<std::size_t>(random.below(size)), length = static_cast<std::size_t>(1 + random.below(40));
    switch (random.below(7)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random.below(256));
        break;
      case 2:
        std::memcpy(bytes.data() + at, &extremes[random.below(9)], std::min<std::size_t>(8, bytes.size() - at));
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.erase(at, length);
        break;
      case 5:
        bytes.insert(at, bytes.substr(static_cast<std::size_t>(random.below(size)), length));
        break;
      default:
        bytes[at] = "0123456789{}[]\",:.-eE"[random.below(21)];
        break;
    }
  }
  return bytes;
}

/// A JSON object with one member, or one member of a member, dropped, renamed or given another value.
inline nlohmann::json damaged(nlohmann::json object, Random& random) {
  static const nlohmann::json values[] = {nullptr,
                                          true,
                                          false,
                                          0,
                                          -1,
                                          1,
                                          3,
                                          8,
                                          1.5,
                                          1e300,
                                          "",
                                          "x",
                                          "lora",
                                          "dora",
                                          "q_proj",
                                          nlohmann::json::array(),
                                          {1},
                                          {"q_proj"},
                                          nlohmann::json::object(),
                                          {{"q_proj", 4}},
                                          {{"x", nlohmann::json::array({1})}},
                                          std::uint64_t{1} << 63,
                                          "\xc3\xa9"};
  if (object.empty()) return object;
  const auto pick = [&](nlohmann::json& of) {
    return std::next(of.begin(), static_cast<std::ptrdiff_t>(random.below(static_cast<Index>(of.size()))));
  };
  auto place = &object;
  if (auto inner = pick(object); inner->is_object() && !inner->empty() && random.below(2) == 0) place = &*inner;
  const auto member = pick(*place);
  const std::string key = member.key();
  const nlohmann::json value = *member;
  switch (random.below(4)) {
    case 0:
      place->erase(key);
      break;
    case 1: {
      std::string renamed = key;
      if (!renamed.empty()) renamed[static_cast<std::size_t>(random.below(static_cast<Index>(renamed.size())))] = 'q';
      place->erase(key);
      (*place)[renamed] = value;
      break;
    }
    default:
      (*place)[key] = values[random.below(std::size(values))];
  }
  return object;
}

namespace detail {
inline void damage_name(std::string& name, Random& random) {
  const auto at = static_cast<std::size_t>(random.below(static_cast<Index>(name.size())));
  switch (random.below(3)) {
    case 0:
      name[at] = "01.abAB_"[random.below(8)];
      break;
    case 1:
      name.erase(at, 1);
      break;
    default:
      name += "x";
  }
}
inline void damage_shape(StoredTensor& tensor, Random& random) {
  switch (random.below(4)) {
    case 0:
      std::reverse(tensor.shape.begin(), tensor.shape.end());
      break;
    case 1:
      tensor.shape = {tensor.size()};
      break;
    case 2:
      tensor.shape.push_back(1);
      break;
    default:  // one row less
      if (tensor.shape.empty() || tensor.shape[0] == 0) break;
      const auto row = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
      --tensor.shape[0];
      tensor.bytes = tensor.bytes.slice(0, tensor.bytes.size() - row);
  }
}
}  // namespace detail

/// Tensors with one of them dropped, renamed, of another shape or element type, or two with each other's content.
inline std::vector<StoredTensor> damaged(std::vector<StoredTensor> tensors, Random& random) {
  if (tensors.empty()) return tensors;
  const auto any = [&] { return static_cast<std::size_t>(random.below(static_cast<Index>(tensors.size()))); };
  const std::size_t i = any(), j = any();
  StoredTensor& tensor = tensors[i];
  switch (random.below(6)) {
    case 0:
      tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
      break;
    case 1:
      detail::damage_name(tensor.name, random);
      break;
    case 2:
      detail::damage_shape(tensor, random);
      break;
    case 3:
      if (tensor.dtype == DType::f32) tensor.dtype = random.below(2) == 0 ? DType::i32 : DType::u32;
      break;
    case 4:
      if (tensor.dtype != DType::f32 || tensor.shape.empty()) break;
      tensor.dtype = random.below(2) == 0 ? DType::f16 : DType::bf16;
      tensor.shape.back() *= 2;
      break;
    default:
      std::swap(tensors[i].name, tensors[j].name);
  }
  return tensors;
}

}  // namespace lowrank::test
