#pragma once

/// Convolutions as products, so that whatever a linear layer can be (quantized, adapted), a convolution can be.

#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/autograd/convolution.hpp>
#include <lowrank/nn/linear_layer.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Two-dimensional convolution: the columns of im2col through a linear layer [out, channels · kernel[0] · kernel[1]], whose bytes are
/// PyTorch's weight [out, channels, kernel[0], kernel[1]].
///
///   Conv2d conv{LoraLinear{Linear<float>(options.patch(), 16)}, options};
/// Images are columns: X [channels · height · width, N] gives [out · out_height · out_width, N]. LoRA of the layer is LoRA of the
/// convolution: A is a kernel of r outputs, B one of 1 × 1; its dropout acts on the columns. Keeps what the layer keeps; the columns are
/// cut again where they are needed. Cost: 2 out patch FLOPs a position.
template <LinearLayer Layer>
class Conv2d {
 public:
  using Scalar = typename Layer::Scalar;

  /// Throws ValueError for a geometry that is none, ShapeError for a layer of another width.
  Conv2d(Layer layer, const Conv2dOptions& options) : Conv2d(std::move(layer), options, {options.kernel[0], options.kernel[1]}) {}

  const Conv2dOptions& options() const { return options_; }
  /// Numbers of an image before and after.
  Index in_features() const { return options_.image(); }
  Index out_features() const { return out_channels() * options_.positions(); }
  Index out_channels() const { return layer_.out_features(); }

  /// The convolution without a tape. Throws ShapeError.
  template <MatrixLike X>
  Activation<Scalar> operator()(const X& x) const {
    return to_images_forward(layer_(im2col_forward(x, options_)), options_.positions());
  }
  /// The same, recorded.
  Var<Scalar> operator()(const Var<Scalar>& x) & { return to_images(layer_(im2col(x, options_)), options_.positions()); }
  Var<Scalar> operator()(const Var<Scalar>& x) && = delete;  // the recording refers to the layer: give the layer a name first

  /// The layer that its columns go through: what is merged, quantized, trained.
  Layer& layer() { return layer_; }
  const Layer& layer() const { return layer_; }
  void set_trainable(bool trainable) { layer_.set_trainable(trainable); }
  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    layer_.visit_parameters(visitor);
  }

 protected:
  /// With the kernel's sizes as files spell them out.
  Conv2d(Layer layer, const Conv2dOptions& options, const std::vector<Index>& kernel) : layer_(std::move(layer)), options_(options) {
    check_geometry("conv2d", options);
    check<ShapeError>(layer_.in_features() == options.patch(), "conv2d", "the layer expects in = ", layer_.in_features(),
                      " but a kernel of [", options.channels, ", ", options.kernel[0], ", ", options.kernel[1], "] covers ",
                      options.patch(), " numbers; its weight must be [out, ", options.patch(), "]");
    layer_.visit_parameters([&](auto& parameter) {
      const auto& name = parameter.name;
      if (name == "weight" || name == "lora_A.weight") parameter.kernel = kernel;
      if (name == "lora_B.weight" || name == "lora_magnitude_vector") parameter.kernel.assign(kernel.size(), 1);
    });
  }

 private:
  Layer layer_;
  Conv2dOptions options_;
};

/// One-dimensional convolution: X [channels · length, N] gives [out · out_length, N]; the weight's bytes are PyTorch's
/// [out, channels, kernel].
template <LinearLayer Layer>
class Conv1d : public Conv2d<Layer> {
 public:
  Conv1d(Layer layer, const Conv1dOptions& options) : Conv2d<Layer>(std::move(layer), options, {options.kernel}) {}
};

template <class Layer>
Conv2d(Layer, Conv2dOptions) -> Conv2d<Layer>;
template <class Layer>
Conv1d(Layer, Conv1dOptions) -> Conv1d<Layer>;

}  // namespace lowrank::inline LOWRANK_ABI
