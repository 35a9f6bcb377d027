#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/quant/ggml_formats.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

namespace detail {
/// The types that matrix() reads, as "F32, F16, BF16, Q4_0, … and MXFP4".
LOWRANK_INLINE std::string readable_types() {
  std::string text = "F32, F16, BF16";
  const auto add = [&]<class... Formats>(const std::tuple<Formats...>*) {
    std::size_t left = sizeof...(Formats);
    ((text.append(--left == 0 ? " and " : ", ").append(Formats::name)), ...);
  };
  add(static_cast<const GgmlFormats*>(nullptr));
  return text;
}
}  // namespace detail

LOWRANK_INLINE AnyMatrix matrix(const Tensor& tensor, std::string_view operation) {
  const Index rows = tensor.rows(), cols = tensor.cols();
  if (tensor.type == GgmlType::f32) return AnyMatrix(StoredMatrix<float>(rows, cols, tensor.bytes));
  if (tensor.type == GgmlType::f16) return AnyMatrix(StoredMatrix<Half>(rows, cols, tensor.bytes));
  if (tensor.type == GgmlType::bf16) return AnyMatrix(StoredMatrix<BFloat16>(rows, cols, tensor.bytes));
  AnyMatrix result;
  const bool is_known = visit_ggml_format(
      ggml_traits(tensor.type).name, [&]<class Format>(Format) { result = AnyMatrix(QuantizedMatrix<Format>(rows, cols, tensor.bytes)); });
  check<FormatError>(is_known, operation, "tensor ", name_text(tensor.name), " is ", ggml_traits(tensor.type).name, "; readable are ",
                     is_known ? std::string() : detail::readable_types());
  return result;
}

LOWRANK_INLINE bool is_writable(GgmlType type) {
  bool writable = type == GgmlType::f32 || type == GgmlType::f16 || type == GgmlType::bf16;
  visit_ggml_format(ggml_traits(type).name, [&]<class Format>(Format) { writable = WritableFormat<Format>; });
  return writable;
}

LOWRANK_INLINE std::vector<std::string> writable_types() {
  std::vector<std::string> names{"f32", "f16", "bf16"};
  const auto add = [&]<class Format>(Format) {
    if constexpr (WritableFormat<Format>) {
      std::string& name = names.emplace_back(Format::name);
      std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    }
  };
  std::apply([&](auto... formats) { (add(formats), ...); }, GgmlFormats());
  return names;
}

LOWRANK_INLINE std::optional<GgmlType> writable_type(std::string_view name) {
  const std::vector<std::string> names = writable_types();
  if (std::find(names.begin(), names.end(), name) == names.end()) return std::nullopt;
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  for (std::uint32_t number = 0; number < lowrank::detail::ggml_traits.size(); ++number)
    if (lowrank::detail::ggml_traits[number].name == upper) return static_cast<GgmlType>(number);
  return std::nullopt;
}

LOWRANK_INLINE GgmlType type_for_columns(GgmlType type, Index cols) {
  constexpr std::array<std::pair<GgmlType, GgmlType>, 8> smaller_blocks{{{GgmlType::q2_k, GgmlType::q4_0},
                                                                         {GgmlType::q3_k, GgmlType::q4_0},
                                                                         {GgmlType::tq1_0, GgmlType::q4_0},
                                                                         {GgmlType::tq2_0, GgmlType::q4_0},
                                                                         {GgmlType::q4_k, GgmlType::q5_0},
                                                                         {GgmlType::q5_k, GgmlType::q5_1},
                                                                         {GgmlType::q6_k, GgmlType::q8_0},
                                                                         {GgmlType::iq4_xs, GgmlType::iq4_nl}}};
  const auto fits = [cols](GgmlType candidate) { return cols % ggml_traits(candidate).block_size == 0; };
  if (fits(type)) return type;
  for (const auto& [from, to] : smaller_blocks)
    if (from == type && fits(to)) return to;
  return GgmlType::f16;
}

LOWRANK_INLINE SavedMatrix save_matrix(const AnyMatrix& w, std::string name, GgmlType type, std::span<const float> importance) {
  check<ValueError>(is_writable(type), "gguf", "tensor ", name_text(name), " is to be ", ggml_traits(type).name,
                    ", which is only read here");
  SavedMatrix saved{{}, {std::move(name), type, {w.rows(), w.cols()}, {}}};
  const auto dense = [&]<class Element>(StoredMatrix<Element> matrix) {
    saved.tensor.bytes = matrix.buffer();
    saved.matrix = AnyMatrix(std::move(matrix));
  };
  if (type == GgmlType::f32) dense(round_to<float>(w));
  if (type == GgmlType::f16) dense(round_to<Half>(w));
  if (type == GgmlType::bf16) dense(round_to<BFloat16>(w));
  visit_ggml_format(ggml_traits(type).name, [&]<class Format>(Format) {
    if constexpr (WritableFormat<Format>) {
      auto matrix = importance.empty() ? quantize<Format>(w) : quantize<Format>(w, importance);
      saved.tensor.bytes = matrix.storage().blocks();
      saved.matrix = AnyMatrix(std::move(matrix));
    }
  });
  return saved;
}

}  // namespace lowrank::inline LOWRANK_ABI::gguf
