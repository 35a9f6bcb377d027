#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace lowrank::inline LOWRANK_ABI::gguf {

namespace detail {

template <class T>
void append(std::string& out, T number) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &number, sizeof(T));
  out.append(bytes, sizeof(T));
}

LOWRANK_INLINE void append_string(std::string& out, std::string_view text) {
  append<std::uint64_t>(out, text.size());
  out += text;
}

LOWRANK_INLINE void append_array(std::string& out, const Array& array);

template <class T>
void append_item(std::string& out, const T& item) {
  if constexpr (std::is_same_v<T, std::string>)
    append_string(out, item);
  else if constexpr (std::is_same_v<T, Array>)
    append_array(out, item);
  else if constexpr (std::is_same_v<T, bool>)
    append<std::uint8_t>(out, item ? 1 : 0);
  else
    append(out, item);
}

LOWRANK_INLINE void append_array(std::string& out, const Array& array) {
  append(out, static_cast<std::uint32_t>(array.items.index()));
  std::visit(
      [&](const auto& items) {
        append<std::uint64_t>(out, items.size());
        for (auto&& item : items) append_item<typename std::decay_t<decltype(items)>::value_type>(out, item);
      },
      array.items);
}

LOWRANK_INLINE std::size_t writing_alignment(const Metadata& metadata, const std::string& file) {
  std::set<std::string_view> keys;
  std::size_t alignment = default_alignment;
  for (const auto& [key, value] : metadata) {
    check<ValueError>(keys.insert(key).second, "gguf::write", file, ": metadata key ", name_text(key), " occurs twice");
    if (key != "general.alignment") continue;
    const auto* number = std::get_if<std::uint32_t>(&value);
    check<ValueError>(number && *number >= 8 && std::has_single_bit(*number), "gguf::write", file,
                      ": general.alignment must be a uint32 power of two of at least 8");
    alignment = *number;
  }
  return alignment;
}

LOWRANK_INLINE void check_writable(const Tensor& tensor, std::set<std::string_view>& names, const std::string& file) {
  const std::string where = concat(file, ": tensor ", name_text(tensor.name));
  const auto size = byte_count(tensor.type, tensor.shape);
  check<ValueError>(names.insert(tensor.name).second, "gguf::write", where, " occurs twice");
  check<ShapeError>(tensor.shape.size() <= 4 && size && *size > 0 && static_cast<std::size_t>(*size) == tensor.bytes.size(), "gguf::write",
                    where, " has ", tensor.bytes.size(), " bytes, not those of ", shape_text(tensor.shape), ' ',
                    ggml_traits(tensor.type).name, " (4 dimensions at most, none 0, rows a multiple of ",
                    ggml_traits(tensor.type).block_size, ')');
}

}  // namespace detail

LOWRANK_INLINE void write(const std::filesystem::path& path, const Metadata& metadata, std::span<const Tensor> tensors) {
  const std::string name = path_text(path);
  const std::size_t alignment = detail::writing_alignment(metadata, name);
  std::string head = "GGUF";
  detail::append<std::uint32_t>(head, 3);
  detail::append<std::uint64_t>(head, tensors.size());
  detail::append<std::uint64_t>(head, metadata.size());
  for (const auto& [key, value] : metadata) {
    detail::append_string(head, key);
    detail::append(head, static_cast<std::uint32_t>(value.index()));
    std::visit([&](const auto& item) { detail::append_item(head, item); }, value);
  }
  std::uint64_t offset = 0;
  std::set<std::string_view> names;
  for (const Tensor& tensor : tensors) {
    detail::check_writable(tensor, names, name);
    detail::append_string(head, tensor.name);
    detail::append(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) detail::append(head, static_cast<std::uint64_t>(*size));
    detail::append(head, static_cast<std::uint32_t>(tensor.type));
    detail::append(head, offset);
    offset = detail::pad(offset + tensor.bytes.size(), alignment);
  }
  head.resize(static_cast<std::size_t>(detail::pad(head.size(), alignment)), '\0');
  AtomicFile out(path, "gguf::write");
  out.write(head);
  for (const Tensor& tensor : tensors) {
    out.write(tensor.bytes.bytes());
    out.write(std::string(static_cast<std::size_t>(detail::pad(tensor.bytes.size(), alignment)) - tensor.bytes.size(), '\0'));
  }
  out.commit();
}

}  // namespace lowrank::inline LOWRANK_ABI::gguf
