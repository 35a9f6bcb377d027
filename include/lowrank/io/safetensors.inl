#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>

#include <lowrank/core/buffer.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/json.hpp>

namespace lowrank::inline LOWRANK_ABI::safetensors {

namespace detail {

inline constexpr std::size_t most_header_values = 1 << 16;  // of __metadata__; a tensor has a dozen

struct Placed {
  Tensor tensor;
  std::size_t begin, end;
};

LOWRANK_INLINE Metadata read_metadata(const json::Json& value, const std::vector<std::string>& keys, const std::string& file) {
  check<FormatError>(value.is_object(), "safetensors", file, ": __metadata__ must be an object of strings");
  Metadata metadata;
  for (const std::string& key : keys) {
    const auto& text = value.at(key);
    check<FormatError>(text.is_string(), "safetensors", file, ": __metadata__ ", name_text(key), " is ", json::excerpt(text),
                       " but must be a string");
    metadata.emplace_back(key, text.get<std::string>());
  }
  return metadata;
}

LOWRANK_INLINE std::vector<Index> read_sizes(const json::Json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  check<FormatError>(found != entry.end() && found->is_array(), "safetensors", where, ": ", key, " must be a list of whole numbers");
  std::vector<Index> sizes;
  for (const auto& item : *found) {
    const auto size = json::as_index(item);
    check<FormatError>(size.has_value(), "safetensors", where, ": ", key, " holds ", json::excerpt(item),
                       " but must hold whole numbers of at most 63 bits");
    sizes.push_back(*size);
  }
  return sizes;
}

/// Checks one header entry against itself: known type, whole numbers, and as many bytes as type and shape need.
LOWRANK_INLINE Placed read_entry(const std::string& name, const json::Json& entry, const std::string& file) {
  const std::string where = file + ": tensor " + name_text(name);
  check<FormatError>(entry.is_object() && entry.size() == 3, "safetensors", where, " is ", json::excerpt(entry),
                     " but must be an object of dtype, shape and data_offsets");
  const auto dtype_entry = entry.find("dtype");
  check<FormatError>(dtype_entry != entry.end() && dtype_entry->is_string(), "safetensors", where, ": dtype must be a string");
  const auto dtype = dtype_from_name(dtype_entry->get_ref<const std::string&>());
  check<FormatError>(dtype.has_value(), "safetensors", where, ": unknown dtype ", json::excerpt(*dtype_entry),
                     "; save it as F32, BF16 or F16");
  auto shape = read_sizes(entry, "shape", where);
  check<FormatError>(shape.size() <= max_dimensions, "safetensors", where, ": the shape has ", shape.size(), " dimensions but ",
                     max_dimensions, " at most are read");
  const auto offsets = read_sizes(entry, "data_offsets", where);
  check<FormatError>(offsets.size() == 2 && offsets[0] <= offsets[1], "safetensors", where, ": data_offsets are ", shape_text(offsets),
                     " but must be [begin, end] with begin <= end");
  const auto count = checked_count(shape);
  const auto bits = count ? checked_product(*count, dtype_bits(*dtype)) : std::nullopt;
  check<FormatError>(bits && *bits % 8 == 0, "safetensors", where, ": shape ", shape_text(shape), " of ", dtype_name(*dtype),
                     " is no whole number of bytes, or more than 63 bits can count");
  check<FormatError>(*bits / 8 == offsets[1] - offsets[0], "safetensors", where, ": shape ", shape_text(shape), " of ", dtype_name(*dtype),
                     " needs ", *bits / 8, " bytes but data_offsets ", shape_text(offsets), " hold ", offsets[1] - offsets[0]);
  return {{name, *dtype, std::move(shape), {}}, static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(offsets[1])};
}

/// The bytes themselves, or a copy where the file has them at an address that the element type cannot be read from.
LOWRANK_INLINE Buffer aligned_slice(const Buffer& file, std::size_t offset, std::size_t size, DType dtype) {
  Buffer bytes = file.slice(offset, size);
  const auto unit = static_cast<std::uintptr_t>(std::max(dtype_bits(dtype) / 8, 1));
  if (size == 0 || reinterpret_cast<std::uintptr_t>(bytes.data()) % unit == 0) return bytes;
  Buffer copy = Buffer::allocate(size);
  std::memcpy(copy.mutable_as<std::byte>(), bytes.data(), size);
  return copy;
}

/// Sorts by position and throws unless the tensors cover [0, size) without holes and overlaps.
LOWRANK_INLINE void check_cover(std::vector<Placed>& placed, std::size_t size, const std::string& file) {
  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::size_t covered = 0;
  for (const auto& [tensor, begin, end] : placed) {
    check<FormatError>(begin == covered, "safetensors", file, ": tensor ", name_text(tensor.name), " begins at byte ", begin, " but ",
                       covered, " bytes come before it; tensors may not overlap or leave holes");
    check<FormatError>(end <= size, "safetensors", file, ": tensor ", name_text(tensor.name), " ends at byte ", end, " of ", size,
                       "; the file is incomplete");
    covered = end;
  }
  check<FormatError>(covered == size, "safetensors", file, ": the tensors cover ", covered, " bytes but ", size,
                     " follow the header; the file is damaged");
}

LOWRANK_INLINE std::string_view header_text(const Buffer& bytes, const std::string& file) {
  check<FormatError>(bytes.size() >= 8, "safetensors", file, ": ", bytes.size(),
                     " bytes are too few; a safetensors file begins with 8 bytes that count its header");
  const auto size = load_number<std::uint64_t>(bytes.data());
  check<FormatError>(size <= max_header_size, "safetensors", file, ": a header of ", size, " bytes is more than the ", max_header_size,
                     " that the format allows; is this a safetensors file?");
  check<FormatError>(size <= bytes.size() - 8, "safetensors", file, ": the header has ", size, " bytes but only ", bytes.size() - 8,
                     " follow; the file is incomplete or no safetensors file");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(size));
  check<FormatError>(text.starts_with('{'), "safetensors", file, ": the header does not begin with '{'; is this a safetensors file?");
  return text;
}

}  // namespace detail

LOWRANK_INLINE File File::open(const std::filesystem::path& path) {
  const std::string name = path_text(path);
  const Buffer bytes = Buffer::map(path);
  const std::string_view text = detail::header_text(bytes, name);
  json::MemberKeys metadata_keys{"__metadata__", {}};
  File file;
  file.path_ = path;
  std::vector<detail::Placed> placed;
  const auto read_member = [&](const std::string& key, const json::Json& entry) {
    if (key == "__metadata__")
      file.metadata_ = detail::read_metadata(entry, metadata_keys.keys, name);
    else
      placed.push_back(detail::read_entry(key, entry, name));
  };
  json::parse_members(text, "safetensors", name, detail::most_header_values, read_member, std::ref(metadata_keys));
  const std::size_t start = 8 + text.size();
  detail::check_cover(placed, bytes.size() - start, name);
  for (auto& [tensor, begin, end] : placed) {
    tensor.bytes = detail::aligned_slice(bytes, start + begin, end - begin, tensor.dtype);
    file.index_.emplace(tensor.name, file.tensors_.size());
    file.tensors_.push_back(std::move(tensor));
  }
  return file;
}

LOWRANK_INLINE const Tensor* File::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

LOWRANK_INLINE const Tensor& File::at(const std::string& name) const {
  const Tensor* tensor = find(name);
  check<FormatError>(tensor != nullptr, "safetensors", path_text(path_), ": no tensor ", name_text(name), " among its ", tensors_.size());
  return *tensor;
}

namespace detail {

/// Order of the reference implementation: larger element types first (so that everything is aligned), then by name.
LOWRANK_INLINE std::vector<const Tensor*> writing_order(std::span<const Tensor> tensors) {
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](const Tensor* a, const Tensor* b) { return a->dtype != b->dtype ? a->dtype > b->dtype : a->name < b->name; });
  return order;
}

LOWRANK_INLINE void check_writable(const std::vector<const Tensor*>& order, const std::string& file) {
  for (const Tensor* entry : order) {
    const Tensor& tensor = *entry;
    const auto count = checked_count(tensor.shape);
    const auto bits = count ? checked_product(*count, dtype_bits(tensor.dtype)) : std::nullopt;
    check<ShapeError>(bits && *bits % 8 == 0 && static_cast<std::size_t>(*bits / 8) == tensor.bytes.size(), "safetensors::write", file,
                      ": tensor ", name_text(tensor.name), " has ", tensor.bytes.size(), " bytes, not those of ", shape_text(tensor.shape),
                      " ", dtype_name(tensor.dtype));
    check<ShapeError>(tensor.shape.size() <= max_dimensions, "safetensors::write", file, ": tensor ", name_text(tensor.name), " has ",
                      tensor.shape.size(), " dimensions; ", max_dimensions, " at most can be read back");
    check<ValueError>(tensor.name != "__metadata__", "safetensors::write", file, ": no tensor may be named __metadata__");
  }
  std::set<std::string_view> names;
  for (const Tensor* tensor : order)
    check<ValueError>(names.insert(tensor->name).second, "safetensors::write", file, ": two tensors are named ", name_text(tensor->name));
}

LOWRANK_INLINE std::string json_string(const std::string& text, const std::string& file) {
  try {
    return json::text_of(text);
  } catch (const json::Json::exception&) {
    fail<ValueError>("safetensors::write", file, ": ", name_text(text), " is not UTF-8");
  }
}

LOWRANK_INLINE std::string header(const std::vector<const Tensor*>& order, const Metadata& metadata, const std::string& file) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) text += json_string(key, file) + ':' + json_string(value, file) + ',';
    text.back() = '}';
    text += ',';
  }
  std::size_t offset = 0;
  for (const Tensor* tensor : order) {
    text += concat(json_string(tensor->name, file), ":{\"dtype\":\"", dtype_name(tensor->dtype), "\",\"shape\":[");
    for (std::size_t i = 0; i < tensor->shape.size(); ++i) text += concat(i ? "," : "", tensor->shape[i]);
    text += concat("],\"data_offsets\":[", offset, ',', offset + tensor->bytes.size(), "]},");
    offset += tensor->bytes.size();
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize(static_cast<std::size_t>(round_up(static_cast<Index>(text.size()), 8)), ' ');
  return text;
}

}  // namespace detail

LOWRANK_INLINE void write(AtomicFile& out, const std::string& name, std::span<const Tensor> tensors, const Metadata& metadata) {
  const auto order = detail::writing_order(tensors);
  detail::check_writable(order, name);
  const std::string header = detail::header(order, metadata, name);
  const std::uint64_t size = header.size();
  out.write(std::as_bytes(std::span(&size, 1)));
  out.write(header);
  for (const Tensor* tensor : order) out.write(tensor->bytes.bytes());
}

LOWRANK_INLINE void write(const std::filesystem::path& path, std::span<const Tensor> tensors, const Metadata& metadata) {
  AtomicFile out(path, "safetensors::write");
  write(out, path_text(path), tensors, metadata);
  out.commit();
}

}  // namespace lowrank::inline LOWRANK_ABI::safetensors
