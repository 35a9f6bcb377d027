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
  Index parameter_count() const {
    Index count = 0;
    visit([&](const StoredTensor& tensor) { count += tensor.size(); });
    return count;
  }
  /// Bytes of all tensors.
  std::size_t bytes() const {
    std::size_t size = 0;
    visit([&](const StoredTensor& tensor) { size += tensor.bytes.size(); });
    return size;
  }
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
inline Weight<float> to_weight(const StoredTensor& tensor) {
  check<ShapeError>(tensor.shape.size() == 1 || tensor.shape.size() == 2, "to_weight", tensor.name, " is ", shape_text(tensor.shape),
                    " but must be a matrix or a vector");
  const std::vector<float> values = to_floats(tensor);
  const Index cols = tensor.shape.back();
  return ConstWeightMap<float>(values.data(), cols == 0 ? 0 : tensor.size() / cols, cols);
}

/// A matrix as a tensor of that name.
inline StoredTensor from_weight(std::string name, const Weight<float>& w) {
  return make_tensor<float>(std::move(name), {w.rows(), w.cols()}, std::span(w.data(), static_cast<std::size_t>(w.size())));
}

}  // namespace lowrank::inline LOWRANK_ABI
