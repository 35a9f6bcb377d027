#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/adapters/config.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/core/tensor.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What an adapter holds for one module: tensors by the names that its method gives them in files, with the element type and the bytes of
/// their file. Updates that are a sum W + s B A have an A, a B and a scale.
struct ModuleTensors {
  std::map<std::string, StoredTensor, std::less<>> tensors = {};
  double scale = 1;  // s: alpha / r, or alpha / sqrt(r)
  bool is_embedding = false;

  /// A [r, in] and B [out, r]; of an embedding A [r, vocabulary], B [dim, r]; of a convolution A [r, channels, kernel…], B [out, r, 1…],
  /// with the kernel's sizes. Throw ValueError where there is none.
  const StoredTensor& a() const { return at(a_name()); }
  const StoredTensor& b() const { return at(b_name()); }
  StoredTensor& a() { return const_cast<StoredTensor&>(at(a_name())); }
  StoredTensor& b() { return const_cast<StoredTensor&>(at(b_name())); }
  std::string_view a_name() const { return is_embedding ? "lora_embedding_A" : "lora_A.weight"; }
  std::string_view b_name() const { return is_embedding ? "lora_embedding_B" : "lora_B.weight"; }
  /// The bias of B [out], or null; the scale multiplies it, too.
  const StoredTensor* bias() const { return find(bias_name); }
  static constexpr std::string_view bias_name = "lora_B.bias";

  /// The tensor of that name, or null.
  const StoredTensor* find(std::string_view name) const;
  /// The tensor of that name. Throws ValueError when there is none.
  const StoredTensor& at(std::string_view name) const;
  /// A name of a tensor that makes the update other than W + s B A with a bias, or nothing.
  std::optional<std::string_view> beyond_sum() const;

  Index rank() const { return a().shape.at(0); }
  /// Numbers that a row of A covers: channels · kernel of a convolution.
  Index in() const;
  Index out() const { return b().shape.at(0); }
  /// The sizes of a convolution's kernel; none of a linear layer.
  std::vector<Index> kernel() const;
};

/// The tensors of an update s B A.
ModuleTensors lora_tensors(StoredTensor a, StoredTensor b, double scale = 1, bool is_embedding = false);

/// The shape in a file of a tensor of LoRA or DoRA with that name, for a convolution with that kernel: A [r, channels, kernel…],
/// B [out, r, 1…], a magnitude [1, out, 1…]; unchanged for no kernel.
std::vector<Index> shape_in_file(std::string_view name, std::vector<Index> shape, const std::vector<Index>& kernel);

/// An update of a map [out, channels · kernel] in the shapes that files have for a convolution with that kernel; as it is for none.
ModuleTensors with_kernel(ModuleTensors lora, const std::vector<Index>& kernel);

/// A set of updates by module path, such as "model.layers.0.self_attn.q_proj", and what was trained beside them.
struct Adapter {
  LoraConfig config = {};
  std::map<std::string, ModuleTensors> layers = {};
  std::vector<StoredTensor> saved = {};   // full tensors by path: modules_to_save, embeddings that were resized, trained biases
  std::vector<StoredTensor> shared = {};  // that all modules use, by the name that the method gives them
  std::vector<std::string> notes = {};    // what a reader should know, such as patterns that overlap

  /// Numbers that training may change.
  Index parameter_count() const;
  /// Bytes of all tensors.
  std::size_t bytes() const;
  /// Calls f with every tensor.
  template <class F>
  void visit(F&& f) const {
    for (const auto& [path, module] : layers)
      for (const auto& [name, tensor] : module.tensors) f(tensor);
    for (const StoredTensor& tensor : shared) f(tensor);
    for (const StoredTensor& tensor : saved) f(tensor);
  }
};

/// `Adapter LORA rank 8, alpha 16, 12 layers, 36864 parameters, 147 kB`.
std::string describe(const Adapter& adapter);

/// A tensor's name behind that of its module: a dot between them, but for names that begin with "_".
std::string name_in_file(std::string_view path, std::string_view tensor);

/// A matrix as a file holds it, converted to float; a vector becomes one row, and the kernels of a convolution [out, channels, …] become
/// the rows of [out, channels · …]. Throws ShapeError for a number alone.
Weight<float> to_weight(const StoredTensor& tensor);

/// A matrix as a tensor of that name.
StoredTensor from_weight(std::string name, const Weight<float>& w);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/adapter.inl>
#endif
