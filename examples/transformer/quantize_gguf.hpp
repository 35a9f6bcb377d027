#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <lowrank/io/ggml_type.hpp>
#include <lowrank/io/imatrix.hpp>

#include <transformer/mixture.hpp>

namespace transformer {

/// How the matrices of a GGUF file are stored in a copy of it.
struct QuantizeOptions {
  lowrank::GgmlType type = lowrank::GgmlType::q4_k;
  const Mixture* mixture = nullptr;  ///< in place of the type
  bool pure = false;                 ///< the head as well; else it becomes Q6_K, as with llama-quantize
  const lowrank::gguf::ImportanceMatrix* importance = nullptr;
};

/// What became of one matrix.
struct QuantizedTensor {
  std::string name;
  lowrank::GgmlType before, wanted, stored;  ///< stored is another than wanted where rows do not divide into its blocks
  bool weighed = false;                      ///< by the importance matrix
  lowrank::Index weights = 0;
  std::size_t bytes = 0;
};

/// Whether llama.cpp quantizes a tensor of that name: weights of linear maps and tables, no norms, no routers, nothing small.
bool is_quantizable(const std::string& name, const std::vector<lowrank::Index>& shape);

/// Writes a copy of a GGUF file, of any architecture, with its matrices in another type; everything else keeps its bytes.
///
/// The head, output.weight or the token table where there is none, becomes Q6_K for quantized types (Q8_0 stays). Rows that do not divide
/// into blocks get the type of gguf::type_for_columns. Throws FormatError for a matrix of a type that is not read, ValueError for one that
/// is not written; then nothing is written.
std::vector<QuantizedTensor> quantize_gguf(const std::filesystem::path& source, const std::filesystem::path& out,
                                           const QuantizeOptions& options);

}  // namespace transformer
