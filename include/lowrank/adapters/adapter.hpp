#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/adapters/config.hpp>
#include <lowrank/core/matrix.hpp>
#include <lowrank/core/tensor.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The update of one module: W becomes W + scale · B A. Tensors keep the element type and the bytes of their file.
struct LoraTensors {
  StoredTensor a;                              // [r, in]; of an embedding [r, vocabulary]
  StoredTensor b;                              // [out, r]; of an embedding [dim, r]
  double scale = 1;                            // alpha / r, or alpha / sqrt(r)
  std::optional<StoredTensor> magnitude = {};  // DoRA's m [out]
  std::optional<StoredTensor> bias = {};       // of B [out]
  bool is_embedding = false;

  Index rank() const { return a.shape.at(0); }
  Index in() const { return a.shape.at(1); }
  Index out() const { return b.shape.at(0); }
};

/// A set of low-rank updates by module path, such as "model.layers.0.self_attn.q_proj", and what was trained beside them.
struct Adapter {
  LoraConfig config = {};
  std::map<std::string, LoraTensors> layers = {};
  std::vector<StoredTensor> saved = {};  // full tensors by path: modules_to_save, embeddings that were resized, trained biases
  std::vector<std::string> notes = {};   // what a reader should know, such as patterns that overlap

  /// Numbers that training may change.
  Index parameter_count() const;
  /// Bytes of all tensors.
  std::size_t bytes() const;
  /// Calls f with every tensor.
  template <class F>
  void visit(F&& f) const {
    for (const auto& [path, layer] : layers) {
      f(layer.a);
      f(layer.b);
      if (layer.magnitude) f(*layer.magnitude);
      if (layer.bias) f(*layer.bias);
    }
    for (const StoredTensor& tensor : saved) f(tensor);
  }
};

/// A matrix as a file holds it, converted to float; a vector becomes one row. Throws ShapeError for more dimensions than two.
Weight<float> to_weight(const StoredTensor& tensor);

/// A matrix as a tensor of that name.
StoredTensor from_weight(std::string name, const Weight<float>& w);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/adapter.inl>
#endif
