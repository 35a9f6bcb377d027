#pragma once

#include <initializer_list>
#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/io/bytes.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/quant/int4_groups.hpp>

namespace lowrank::inline LOWRANK_ABI::gptq {

namespace detail {

/// Sizes of a weight, and its parts once their types and shapes are checked against each other.
struct Parts {
  Index out = 0, in = 0, groups = 0;
  std::string at;
  const StoredTensor *codes = nullptr, *zeros = nullptr, *scales = nullptr, *group_of = nullptr;

  std::uint32_t word(const StoredTensor& tensor, Index i) const { return load_number<std::uint32_t>(tensor.bytes.data() + 4 * i); }
};

LOWRANK_INLINE const StoredTensor& part(const Finder& find, const std::string& name, const std::string& where) {
  const StoredTensor* tensor = find(name);
  check<FormatError>(tensor != nullptr, "gptq", where, ": no tensor ", name_text(name), "; the model is not complete");
  return *tensor;
}

LOWRANK_INLINE const StoredTensor& words(const Finder& find, const std::string& name, std::size_t dimensions, const std::string& where) {
  const StoredTensor& tensor = part(find, name, where);
  const auto count = checked_count(tensor.shape);
  const bool is_whole = count && checked_product(*count, 4) == static_cast<Index>(tensor.bytes.size());
  check<FormatError>(tensor.dtype == DType::i32 && tensor.shape.size() == dimensions && is_whole, "gptq", where, ": ", name_text(name),
                     " is ", dtype_name(tensor.dtype), ' ', shape_text(tensor.shape), " but must be I32 with ", dimensions, " dimensions");
  return tensor;
}

LOWRANK_INLINE Parts parts(const Finder& find, const std::string& prefix, const Packing& packing, const std::string& where) {
  Parts p;
  p.at = concat(where, ": ", name_text(prefix));
  p.codes = &words(find, prefix + ".qweight", 2, where), p.zeros = &words(find, prefix + ".qzeros", 2, where);
  p.scales = &part(find, prefix + ".scales", where);
  const bool is_float = p.scales->dtype == DType::f16 || p.scales->dtype == DType::bf16 || p.scales->dtype == DType::f32;
  check<FormatError>(is_float && p.scales->shape.size() == 2, "gptq", p.at, ": scales are ", dtype_name(p.scales->dtype), ' ',
                     shape_text(p.scales->shape), " but must be F16, BF16 or F32 with 2 dimensions");
  const auto per_word = [&](Index size) { return checked_product(size, 8).value_or(0); };
  p.groups = p.scales->shape[0], p.out = p.scales->shape[1];
  p.in = packing.is_awq ? p.codes->shape[0] : per_word(p.codes->shape[0]);
  const Index codes_out = packing.is_awq ? per_word(p.codes->shape[1]) : p.codes->shape[1];
  const Index group = packing.group == -1 ? p.in : packing.group;
  check<FormatError>(p.in > 0 && p.in % 2 == 0 && p.out > 0 && p.out % 8 == 0 && codes_out == p.out && p.groups == ceil_div(p.in, group) &&
                         p.zeros->shape[0] == p.groups && per_word(p.zeros->shape[1]) == p.out,
                     "gptq", p.at, ": qweight ", shape_text(p.codes->shape), ", qzeros ", shape_text(p.zeros->shape), " and scales ",
                     shape_text(p.scales->shape), " are not those of one ", packing.is_awq ? "AWQ" : "GPTQ",
                     " weight with 4 bits and groups of ", packing.group, "; check quantization_config");
  if (packing.is_awq || !find(prefix + ".g_idx")) return p;
  p.group_of = &words(find, prefix + ".g_idx", 1, where);
  check<FormatError>(p.group_of->shape[0] == p.in, "gptq", p.at, ": g_idx has ", p.group_of->shape[0], " numbers for ", p.in, " inputs");
  return p;
}

/// Which nibble of a word holds output i of eight, in AWQ.
inline constexpr std::array<unsigned, 8> awq_nibble = {0, 4, 1, 5, 2, 6, 3, 7};

/// Codes [out, in], two a byte, the first of two inputs in the high nibble.
LOWRANK_INLINE Buffer repacked_codes(const Parts& p, bool is_awq) {
  Buffer codes = Buffer::allocate(static_cast<std::size_t>(p.out * p.in / 2));
  auto* const to = codes.mutable_as<std::uint8_t>();
  const auto code = [&](Index o, Index i) {
    if (is_awq) return p.word(*p.codes, i * (p.out / 8) + o / 8) >> 4 * awq_nibble[static_cast<std::size_t>(o % 8)] & 15u;
    return p.word(*p.codes, i / 8 * p.out + o) >> 4 * (i % 8) & 15u;
  };
  parallel_ranges(p.out / 8, std::max<Index>(1, (1 << 14) / p.in), [&](Index begin, Index end) {
    for (Index strip = begin; strip < end; ++strip)  // eight outputs lie side by side
      for (Index i = 0; i < p.in; i += 2)
        for (Index o = 8 * strip; o < 8 * strip + 8; ++o)
          to[(o * p.in + i) / 2] = static_cast<std::uint8_t>(code(o, i) << 4 | code(o, i + 1));
  });
  return codes;
}

/// Scale and offset = -scale · zero of each group, fp32 [out, groups, 2].
LOWRANK_INLINE Buffer scale_pairs(const Parts& p, const Packing& packing) {
  const std::vector<float> scales = to_floats(*p.scales);
  check<FormatError>(std::all_of(scales.begin(), scales.end(), [](float x) { return is_finite(x); }), "gptq", p.at,
                     ": scales hold numbers that are not finite; the file is damaged");
  Buffer pairs = Buffer::allocate(static_cast<std::size_t>(p.out * p.groups) * 8);
  float* to = pairs.mutable_as<float>();
  for (Index o = 0; o < p.out; ++o)
    for (Index g = 0; g < p.groups; ++g, to += 2) {
      const unsigned nibble = packing.is_awq ? awq_nibble[static_cast<std::size_t>(o % 8)] : static_cast<unsigned>(o % 8);
      const unsigned stored = p.word(*p.zeros, g * (p.out / 8) + o / 8) >> 4 * nibble & 15u;
      const unsigned zero = !packing.is_awq && packing.is_zero_less_one ? (stored + 1) & 15u : stored;
      to[0] = scales[static_cast<std::size_t>(g * p.out + o)];
      to[1] = -(to[0] * static_cast<float>(zero));
    }
  return pairs;
}

/// The group of each input, int32 [in].
LOWRANK_INLINE Buffer group_numbers(const Parts& p, Index group) {
  Buffer numbers = Buffer::allocate(static_cast<std::size_t>(p.in) * 4);
  auto* const to = numbers.mutable_as<std::int32_t>();
  for (Index i = 0; i < p.in; ++i) {
    to[i] = p.group_of ? static_cast<std::int32_t>(p.word(*p.group_of, i)) : static_cast<std::int32_t>(i / group);
    check<FormatError>(to[i] >= 0 && to[i] < p.groups, "gptq", p.at, ": g_idx says that input ", i, " is of group ", to[i],
                       " but there are ", p.groups, "; the file is damaged");
  }
  return numbers;
}

}  // namespace detail

LOWRANK_INLINE std::optional<Packing> packing(std::string_view text, const std::string& file) {
  const json::Json root = json::parse(text, "gptq", file);
  check<FormatError>(root.is_object(), "gptq", file, " is not a JSON object");
  const bool is_alone = root.contains("bits") && !root.contains("quantization_config");
  const json::Json config = is_alone ? root : json::member(root, "quantization_config");
  if (!config.is_object()) return std::nullopt;
  const json::Json method = is_alone && !root.contains("quant_method") ? json::Json("gptq") : json::member(config, "quant_method");
  if (!json::is_text(method, {"gptq", "awq"})) return std::nullopt;
  Packing result{.is_awq = json::is_text(method, {"awq"})};
  const auto require = [&](bool holds, const char* key, const char* expected) {
    check<FormatError>(holds, "gptq", file, ": ", key, " of quantization_config is ", json::excerpt(json::member(config, key)), " but ",
                       expected, " is read");
  };
  const auto absent_or = [&](const char* key, std::initializer_list<std::string_view> words) {
    return json::member(config, key).is_null() || json::is_text(json::member(config, key), words);
  };
  require(json::as_index(json::member(config, "bits")) == 4, "bits", "4");
  const json::Json group = json::member(config, "group_size");
  const auto size = json::as_index(group);
  const bool is_whole = group.is_number_integer() && group.get<Index>() == -1;
  require((size && *size > 0) || is_whole, "group_size", "a positive number or -1");
  result.group = size && *size > 0 ? *size : -1;
  if (result.is_awq) {
    require(absent_or("version", {"gemm", "GEMM"}), "version", "gemm");
    const json::Json zero_point = json::member(config, "zero_point");
    require(zero_point.is_null() || (zero_point.is_boolean() && zero_point.get<bool>()), "zero_point", "true");
  } else {
    require(absent_or("checkpoint_format", {"gptq", "gptq_v2"}), "checkpoint_format", "gptq or gptq_v2");
    result.is_zero_less_one = !json::is_text(json::member(config, "checkpoint_format"), {"gptq_v2"});
  }
  return result;
}

LOWRANK_INLINE AnyMatrix load_weight(const Finder& find, const std::string& prefix, const Packing& packing, const std::string& where) {
  const detail::Parts p = detail::parts(find, prefix, packing, where);
  const Index group = packing.group == -1 ? p.in : packing.group;
  const std::string_view name = packing.is_awq ? "awq" : "gptq";
  Buffer codes = detail::repacked_codes(p, packing.is_awq), pairs = detail::scale_pairs(p, packing);
  Buffer numbers = detail::group_numbers(p, group);
  bool in_order = group % 32 == 0 && p.in % group == 0;
  for (Index i = 0; i < p.in && in_order; ++i) in_order = numbers.as<std::int32_t>()[i] == i / group;
  if (in_order) return AnyMatrix(Int4Groups(name, p.out, p.in, group, std::move(codes), std::move(pairs)));
  return AnyMatrix(Int4Columns(name, p.out, p.in, p.groups, std::move(codes), std::move(pairs), std::move(numbers)));
}

}  // namespace lowrank::inline LOWRANK_ABI::gptq
