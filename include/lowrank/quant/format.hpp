#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include <lowrank/core/print.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/kernels/target/dispatch.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A way to store a matrix in few bits: a type with its facts and its storage.
///
/// `name` as files spell it, `block` weights share a scale, `bits_per_weight` counts the scales too (tails aside). `Storage` holds
/// the bytes, is built from them with checked sizes, and writes any window of the matrix as numbers.
///
/// | family | blocks run over | storage | formats |
/// |---|---|---|---|
/// | table, bitsandbytes | the flattened matrix, straddling rows | TableBlocks | Nf4, Fp4 |
/// | block, ggml | each row | RowBlocks | Q4_0, Q4_K, IQ4_XS, … and those that are only read (ggml_formats.hpp) |
template <class Candidate>
concept QuantFormat = requires(const typename Candidate::Storage& storage, Index i, float* out) {
  { Candidate::name } -> std::convertible_to<std::string_view>;
  { Candidate::block } -> std::convertible_to<Index>;
  { Candidate::bits_per_weight } -> std::convertible_to<double>;
  { storage.rows() } -> std::convertible_to<Index>;
  { storage.cols() } -> std::convertible_to<Index>;
  { storage.bytes() } -> std::convertible_to<std::size_t>;
  storage.decode(i, i, i, i, out, i);
};

/// A format with a table of 16 values and one fp32 scale a block: weight = table[code] · absmax.
template <class Candidate>
concept TableFormat = QuantFormat<Candidate> && requires(float t) {
  { Candidate::table } -> std::convertible_to<std::array<float, 16>>;
  { Candidate::encode(t) } -> std::convertible_to<std::uint8_t>;  // the rule for one number,
  { Candidate::rule } -> std::convertible_to<kernels::CodeRule>;  // and for the kernels
};

/// A format that quantize() can write; the others are read from files only.
template <class Candidate>
concept WritableFormat = TableFormat<Candidate> ||(QuantFormat<Candidate>&& requires(const float* x, Index count, std::byte* block) {
  { Candidate::encode(x, count, block) } -> std::same_as<bool>;
});

namespace quant {

/// Blocks that bitsandbytes reads: powers of two from 32 to 4096.
constexpr bool is_block_size(Index block) { return block >= 32 && block <= 4096 && std::has_single_bit(static_cast<std::size_t>(block)); }

/// The value at any address: fields of packed blocks and mapped files need not be aligned.
template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}
/// Writes one, wherever it lies.
template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

/// What all stored matrices are told as: `nf4 [48, 64], 4.5 bits a weight, 1.7 kB`.
inline std::string matrix_text(std::string_view format, Index rows, Index cols, std::size_t bytes) {
  std::string text = concat(format, " [", rows, ", ", cols, "], ");
  if (rows > 0 && cols > 0)
    text += concat(8 * static_cast<double>(bytes) / (static_cast<double>(rows) * static_cast<double>(cols)), " bits a weight, ");
  return text + bytes_text(bytes);
}

/// Throws ShapeError unless sizes are not negative and their product can be counted.
inline void check_sizes(std::string_view format, Index rows, Index cols) {
  check<ShapeError>(rows >= 0 && cols >= 0 && (cols == 0 || rows <= std::numeric_limits<Index>::max() / 1024 / cols), format,
                    "a matrix cannot be [", rows, ", ", cols, "]; sizes must not be negative and must fit in memory");
}

/// Throws ShapeError unless a stored part has exactly the bytes that the matrix needs.
inline void check_part(std::string_view format, std::string_view part, std::size_t given, std::size_t needed, Index rows, Index cols) {
  check<ShapeError>(given == needed, format, part, " hold ", given, " bytes but a [", rows, ", ", cols, "] matrix needs ", needed,
                    "; check the shape, the block size and that the file is whole");
}

}  // namespace quant
}  // namespace lowrank::inline LOWRANK_ABI
