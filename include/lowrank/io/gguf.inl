#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>

namespace lowrank::inline LOWRANK_ABI::gguf {

LOWRANK_INLINE std::optional<Index> byte_count(GgmlType type, std::span<const Index> shape) {
  const auto [name, block_size, block_bytes] = ggml_traits(type);
  const auto count = checked_count(shape);
  if (!count || (shape.empty() ? 1 : shape.back()) % block_size != 0) return std::nullopt;
  return checked_product(*count / block_size, block_bytes);
}

LOWRANK_INLINE std::vector<float> to_floats(const Tensor& tensor) {
  const auto as = [&](DType dtype) { return lowrank::to_floats(StoredTensor{tensor.name, dtype, tensor.shape, tensor.bytes}); };
  switch (tensor.type) {
    case GgmlType::f32:
      return as(DType::f32);
    case GgmlType::f64:
      return as(DType::f64);
    case GgmlType::f16:
      return as(DType::f16);
    case GgmlType::bf16:
      return as(DType::bf16);
    default:
      fail<FormatError>("to_floats", name_text(tensor.name), " is ", ggml_traits(tensor.type).name, "; dequantize it");
  }
}

namespace detail {

LOWRANK_INLINE std::string describe(const Value& value) {
  const auto* array = std::get_if<Array>(&value);
  if (!array) return std::string(value_type_names[value.index()]);
  const auto size = std::visit([](const auto& items) { return items.size(); }, array->items);
  return concat("array of ", size, ' ', value_type_names[array->items.index()]);
}

}  // namespace detail

LOWRANK_INLINE const Value* File::find(const std::string& key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : &metadata_[found->second].second;
}

LOWRANK_INLINE const Tensor* File::find_tensor(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : &tensors_[found->second];
}

LOWRANK_INLINE const Tensor& File::tensor(const std::string& name) const {
  const Tensor* found = find_tensor(name);
  check<FormatError>(found != nullptr, "gguf", path_text(path_), ": no tensor ", name_text(name), " among its ", tensors_.size());
  return *found;
}

namespace detail {

LOWRANK_INLINE std::string read_string(ByteReader& in, std::string_view what) { return in.text(in.number<std::uint64_t>(what), what); }

LOWRANK_INLINE bool read_bool(ByteReader& in) {
  const auto byte = in.number<std::uint8_t>("a bool");
  if (byte > 1) in.error("a bool is ", static_cast<int>(byte), " but must be 0 or 1");
  return byte == 1;
}

template <class T>
T read_scalar(ByteReader& in) {
  if constexpr (std::is_same_v<T, std::string>)
    return read_string(in, "a string of the metadata");
  else if constexpr (std::is_same_v<T, bool>)
    return read_bool(in);
  else
    return in.number<T>("a number of the metadata");
}

/// Bytes that the shortest value of a type takes: a count beyond remaining / this is a lie, told before anything is allocated.
template <class T>
constexpr std::size_t least_bytes() {
  if constexpr (std::is_same_v<T, std::string>)
    return 8;
  else if constexpr (std::is_same_v<T, Array>)
    return 12;
  else
    return sizeof(T);
}

/// Calls `read` with a value-initialized T, the type with that number in the file.
template <std::size_t Number = 0, class Read>
void with_type(ByteReader& in, std::uint32_t number, const Read& read) {
  if constexpr (Number < std::variant_size_v<Value>) {
    if (number == Number)
      read(std::variant_alternative_t<Number, Value>{});
    else
      with_type<Number + 1>(in, number, read);
  } else {
    in.error("unknown metadata type ", number, "; types go from 0 to ", std::variant_size_v<Value> - 1);
  }
}

LOWRANK_INLINE Array read_array(ByteReader& in, int depth) {
  if (depth > max_array_depth) in.error("metadata arrays are nested more than ", max_array_depth, " deep");
  const auto type = in.number<std::uint32_t>("an array's type");
  const auto count = in.number<std::uint64_t>("an array's length");
  Array array;
  with_type(in, type, [&](auto tag) {
    using T = decltype(tag);
    if (count > in.remaining() / least_bytes<T>())
      in.error("an array claims ", count, " elements but ", in.remaining(), " bytes are left; the file is damaged or incomplete");
    auto& items = array.items.emplace<std::vector<T>>();
    items.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, Array>)
        items.push_back(read_array(in, depth + 1));
      else
        items.push_back(read_scalar<T>(in));
    }
  });
  return array;
}

LOWRANK_INLINE Value read_value(ByteReader& in) {
  Value value;
  with_type(in, in.number<std::uint32_t>("a metadata type"), [&](auto tag) {
    using T = decltype(tag);
    if constexpr (std::is_same_v<T, Array>)
      value.emplace<T>(read_array(in, 1));
    else
      value.emplace<T>(read_scalar<T>(in));
  });
  return value;
}

struct TableEntry {
  Tensor tensor;
  std::uint64_t offset, size;
};

LOWRANK_INLINE TableEntry read_table_entry(ByteReader& in, const std::string& file) {
  TableEntry entry{};
  Tensor& tensor = entry.tensor;
  tensor.name = read_string(in, "a tensor's name");
  const auto dimensions = in.number<std::uint32_t>("a tensor's dimensions");
  if (dimensions > 4) in.error("tensor ", name_text(tensor.name), " has ", dimensions, " dimensions but ggml has 4 at most");
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.number<std::uint64_t>("a tensor's sizes");
    if (size == 0 || size > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
      in.error("tensor ", name_text(tensor.name), " has a dimension of ", size, "; sizes go from 1 to 2^63 - 1");
    tensor.shape.insert(tensor.shape.begin(), static_cast<Index>(size));
  }
  tensor.type = ggml_type(in.number<std::uint32_t>("a tensor's type"), "gguf", concat(file, ": tensor ", name_text(tensor.name)));
  entry.offset = in.number<std::uint64_t>("a tensor's offset");
  const auto size = byte_count(tensor.type, tensor.shape);
  if (!size)
    in.error("tensor ", name_text(tensor.name), " is ", shape_text(tensor.shape), ' ', ggml_traits(tensor.type).name,
             ": a row must be a multiple of ", ggml_traits(tensor.type).block_size, " and the whole less than 2^63 bytes");
  entry.size = static_cast<std::uint64_t>(*size);
  return entry;
}

LOWRANK_INLINE std::uint32_t read_version(ByteReader& in) {
  if (in.remaining() < 4 || in.number<std::uint32_t>("the magic") != 0x46554747u)  // "GGUF", read as a little-endian number
    in.error("does not begin with GGUF; is this a GGUF file?");
  const auto version = in.number<std::uint32_t>("the version");
  if ((version & 0xffffu) == 0 && version != 0) in.error("is big-endian; convert it to little-endian (gguf_convert_endian.py)");
  if (version != 2 && version != 3) in.error("is GGUF version ", version, " but 2 and 3 are read; convert it with a current tool");
  return version;
}

LOWRANK_INLINE std::size_t alignment_of(const File& file) {
  const auto alignment = file.get_or<std::uint32_t>("general.alignment", default_alignment);
  check<FormatError>(std::has_single_bit(alignment), "gguf", path_text(file.path()), ": general.alignment is ", alignment,
                     " but must be a power of two");
  return alignment;
}

LOWRANK_INLINE std::uint64_t pad(std::uint64_t position, std::uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

/// Tensors lie in the order of the table, each padded to the alignment, as ggml itself demands; throws unless all are inside.
LOWRANK_INLINE std::vector<Tensor> place_tensors(std::vector<TableEntry> table, const Buffer& bytes, std::uint64_t start,
                                                 std::uint64_t alignment, const std::string& file) {
  const std::uint64_t size = start < bytes.size() ? bytes.size() - start : 0;
  std::uint64_t expected = 0;
  std::vector<Tensor> tensors;
  for (TableEntry& entry : table) {
    const std::string where = concat(file, ": tensor ", name_text(entry.tensor.name));
    check<FormatError>(entry.offset == expected, "gguf", where, " has offset ", entry.offset, " but ", expected,
                       " follows from those before it; tensors may not overlap or leave holes");
    check<FormatError>(entry.offset <= size && entry.size <= size - entry.offset, "gguf", where, " needs ", entry.size, " bytes at offset ",
                       entry.offset, " but the file has ", size, "; it is damaged or incomplete");
    expected = pad(entry.offset + entry.size, alignment);  // below 2^64: inside the file, and the alignment has 32 bits
    entry.tensor.bytes = bytes.slice(static_cast<std::size_t>(start + entry.offset), static_cast<std::size_t>(entry.size));
    if (reinterpret_cast<std::uintptr_t>(entry.tensor.bytes.data()) % 8 != 0) {  // the file chose a small alignment
      Buffer copy = Buffer::allocate(entry.tensor.bytes.size());
      std::memcpy(copy.mutable_as<std::byte>(), entry.tensor.bytes.data(), copy.size());
      entry.tensor.bytes = std::move(copy);
    }
    tensors.push_back(std::move(entry.tensor));
  }
  return tensors;
}

}  // namespace detail

namespace detail {

/// "NAME-00002-of-00003.gguf" for part 2 of 3 of a file whose name has that form, or nothing.
LOWRANK_INLINE std::optional<std::filesystem::path> part_path(const std::filesystem::path& path, Index number, Index parts) {
  const auto ending = [&](Index n) {
    const auto digits = [](Index value) {
      const std::string text = std::to_string(value);
      return std::string(text.size() < 5 ? 5 - text.size() : 0, '0') + text;
    };
    return concat('-', digits(n), "-of-", digits(parts), ".gguf");
  };
  const std::string name = path.filename().string();
  for (Index n = 1; n <= parts; ++n)
    if (name.ends_with(ending(n))) return path.parent_path() / (name.substr(0, name.size() - ending(n).size()) + ending(number));
  return std::nullopt;
}

inline constexpr Index most_parts = 10000;

}  // namespace detail

LOWRANK_INLINE File File::open(const std::filesystem::path& path) {
  File file = open_one(path);
  const Index parts = file.get_or<Index>("split.count", 1);
  if (parts <= 1) return file;
  const std::string name = path_text(path);
  check<FormatError>(parts <= detail::most_parts, "gguf", name, ": split.count is ", parts, "; at most ", detail::most_parts,
                     " files are supported");
  const auto first = detail::part_path(path, 1, parts);
  const Index number = file.get_or<Index>("split.no", 0);
  check<FormatError>(number == 0, "gguf", name, " is part ", number + 1, " of ", parts, " of a model; give the first one",
                     first ? ", " + path_text(*first) : "");
  check<FormatError>(first == path, "gguf", name, " is the first of ", parts,
                     " parts of a model, which are found by their names: it must be called NAME-00001-of-", parts,
                     ".gguf with five digits");
  file.join(parts);
  return file;
}

LOWRANK_INLINE void File::join(Index parts) {
  const auto promised = get_or<Index>("split.tensors.count", -1);
  for (Index number = 2; number <= parts; ++number) add(open_one(*detail::part_path(path_, number, parts)), number, parts);
  check<FormatError>(promised < 0 || promised == static_cast<Index>(tensors_.size()), "gguf", path_text(path_), ": the ", parts,
                     " parts hold ", tensors_.size(), " tensors but split.tensors.count is ", promised,
                     "; a part belongs to another model");
  std::erase_if(metadata_, [](const auto& entry) { return entry.first.starts_with("split."); });
  keys_.clear();
  for (std::size_t i = 0; i < metadata_.size(); ++i) keys_.emplace(metadata_[i].first, i);
}

LOWRANK_INLINE void File::add(File part, Index number, Index parts) {
  const std::string name = path_text(part.path_);
  const Index own = part.get_or<Index>("split.no", -1), count = part.get_or<Index>("split.count", 0);
  check<FormatError>(own == number - 1 && count == parts, "gguf", name, " says that it is part ", own + 1, " of ", count, ", not ", number,
                     " of ", parts, "; a part belongs to another model");
  for (const auto& [key, value] : part.metadata_) {
    const Value* const same = find(key);
    check<FormatError>(key.starts_with("split.") || key == "general.alignment" || (same && *same == value), "gguf", name, ": metadata ",
                       name_text(key), " is not that of the first part; a part belongs to another model");
  }
  for (Tensor& tensor : part.tensors_) {
    check<FormatError>(names_.emplace(tensor.name, tensors_.size()).second, "gguf", name, ": tensor ", name_text(tensor.name),
                       " is in an earlier part, too");
    tensors_.push_back(std::move(tensor));
  }
}

LOWRANK_INLINE File File::open_one(const std::filesystem::path& path) {
  const std::string name = path_text(path);
  const Buffer bytes = Buffer::map(path);
  ByteReader in(bytes.bytes(), "gguf", name);
  File file;
  file.path_ = path;
  file.version_ = detail::read_version(in);
  const auto tensor_count = in.number<std::uint64_t>("the number of tensors");
  const auto key_count = in.number<std::uint64_t>("the number of metadata entries");
  if (tensor_count > in.remaining() / 24 || key_count > in.remaining() / 13)  // the shortest possible entries
    in.error("claims ", tensor_count, " tensors and ", key_count, " metadata entries but ", in.remaining(), " bytes are left");
  for (std::uint64_t i = 0; i < key_count; ++i) {
    std::string key = detail::read_string(in, "a metadata key");
    if (!file.keys_.emplace(key, file.metadata_.size()).second) in.error("metadata key ", name_text(key), " occurs twice");
    Value value = detail::read_value(in);
    file.metadata_.emplace_back(std::move(key), std::move(value));
  }
  std::vector<detail::TableEntry> table;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    table.push_back(detail::read_table_entry(in, name));
    const std::string& tensor = table.back().tensor.name;
    if (!file.names_.emplace(tensor, i).second) in.error("tensor ", name_text(tensor), " occurs twice");
  }
  const std::size_t alignment = detail::alignment_of(file);
  file.tensors_ = detail::place_tensors(std::move(table), bytes, detail::pad(in.position(), alignment), alignment, name);
  return file;
}

}  // namespace lowrank::inline LOWRANK_ABI::gguf
