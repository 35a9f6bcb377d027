#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Element types of ggml by their number in a GGUF file. Those with a block store that many neighbours of a row together.
// clang-format off
enum class GgmlType : std::uint32_t {
  f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q8_1 = 9, q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14,
  q8_k = 15, iq2_xxs = 16, iq2_xs = 17, iq3_xxs = 18, iq1_s = 19, iq4_nl = 20, iq3_s = 21, iq2_s = 22, iq4_xs = 23, i8 = 24, i16 = 25,
  i32 = 26, i64 = 27, f64 = 28, iq1_m = 29, bf16 = 30, tq1_0 = 34, tq2_0 = 35, mxfp4 = 39, nvfp4 = 40, q1_0 = 41
};

/// Name, elements a block and bytes a block; zero bytes marks a type that ggml has withdrawn.
struct GgmlTraits {
  std::string_view name;
  Index block_size, block_bytes;
};

namespace detail {
inline constexpr std::array<GgmlTraits, 42> ggml_traits{{
    {"F32", 1, 4}, {"F16", 1, 2}, {"Q4_0", 32, 18}, {"Q4_1", 32, 20}, {"Q4_2", 32, 0}, {"Q4_3", 32, 0}, {"Q5_0", 32, 22},
    {"Q5_1", 32, 24}, {"Q8_0", 32, 34}, {"Q8_1", 32, 40}, {"Q2_K", 256, 84}, {"Q3_K", 256, 110}, {"Q4_K", 256, 144},
    {"Q5_K", 256, 176}, {"Q6_K", 256, 210}, {"Q8_K", 256, 292}, {"IQ2_XXS", 256, 66}, {"IQ2_XS", 256, 74}, {"IQ3_XXS", 256, 98},
    {"IQ1_S", 256, 50}, {"IQ4_NL", 32, 18}, {"IQ3_S", 256, 110}, {"IQ2_S", 256, 82}, {"IQ4_XS", 256, 136}, {"I8", 1, 1},
    {"I16", 1, 2}, {"I32", 1, 4}, {"I64", 1, 8}, {"F64", 1, 8}, {"IQ1_M", 256, 56}, {"BF16", 1, 2}, {"Q4_0_4_4", 32, 0},
    {"Q4_0_4_8", 32, 0}, {"Q4_0_8_8", 32, 0}, {"TQ1_0", 256, 54}, {"TQ2_0", 256, 66}, {"IQ4_NL_4_4", 32, 0}, {"IQ4_NL_4_8", 32, 0},
    {"IQ4_NL_8_8", 32, 0}, {"MXFP4", 32, 17}, {"NVFP4", 64, 36}, {"Q1_0", 128, 18}
}};
}  // namespace detail
// clang-format on

/// Name, block and bytes of a type.
constexpr const GgmlTraits& ggml_traits(GgmlType type) { return detail::ggml_traits[static_cast<std::size_t>(type)]; }

/// The type with that number. Throws FormatError beginning with `where` for numbers that ggml does not use, or no longer.
inline GgmlType ggml_type(std::uint32_t number, std::string_view operation, std::string_view where) {
  check<FormatError>(number < detail::ggml_traits.size(), operation, where, " has the unknown ggml type ", number,
                     "; convert the file to a type up to ", detail::ggml_traits.size() - 1, " (", detail::ggml_traits.back().name, ")");
  const GgmlTraits& traits = detail::ggml_traits[number];
  check<FormatError>(traits.block_bytes != 0, operation, where, " has the type ", traits.name, " (", number,
                     "), which ggml has withdrawn; convert the file anew");
  return static_cast<GgmlType>(number);
}

}  // namespace lowrank::inline LOWRANK_ABI
