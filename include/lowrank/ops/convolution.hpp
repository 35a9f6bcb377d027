#pragma once

/// A convolution as a product: the patches under the kernel become columns, and the product's columns become images again.

#include <array>

#include <lowrank/ops/view.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Geometry of a two-dimensional convolution; pairs are height and width. An image is a column [channels · height · width], channel by
/// channel and row by row: the bytes of PyTorch's [N, C, H, W] are [C · H · W, N].
struct Conv2dOptions {
  Index channels = 0, height = 0, width = 0;
  std::array<Index, 2> kernel = {1, 1}, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};
  Index groups = 1;  ///< 1 alone is supported

  /// Size of the result; that of the kernel with its gaps is dilation (kernel − 1) + 1, and padding is zeros on both sides.
  Index out_height() const { return out_size(height, 0); }
  Index out_width() const { return out_size(width, 1); }
  Index positions() const { return out_height() * out_width(); }
  /// Numbers of an image, and those under the kernel: the width of the weight [out, channels · kernel[0] · kernel[1]].
  Index image() const { return channels * height * width; }
  Index patch() const { return channels * kernel[0] * kernel[1]; }

 private:
  Index out_size(Index size, std::size_t i) const { return (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i] + 1; }
};

/// Geometry of a one-dimensional convolution, over columns [channels · length]: the bytes of PyTorch's [N, C, L].
struct Conv1dOptions {
  Index channels = 0, length = 0, kernel = 1, stride = 1, padding = 0, dilation = 1, groups = 1;

  /// The same as images of height 1.
  operator Conv2dOptions() const { return {channels, 1, length, {1, kernel}, {1, stride}, {0, padding}, {1, dilation}, groups}; }
};

/// Throws ValueError unless sizes are positive, the kernel fits into the padded image, and groups is 1.
inline void check_geometry(const char* operation, const Conv2dOptions& options) {
  const auto& [channels, height, width, kernel, stride, padding, dilation, groups] = options;
  check<ValueError>(groups == 1, operation, "groups = ", groups, " is not supported: every output channel must see every input channel");
  check<ValueError>(channels > 0 && height > 0 && width > 0, operation, "images are [", channels, ", ", height, ", ", width,
                    "]; channels, height and width must be positive");
  for (std::size_t i = 0; i < 2; ++i) {
    check<ValueError>(kernel[i] > 0 && stride[i] > 0 && padding[i] >= 0 && dilation[i] > 0, operation, "kernel ", kernel[i], ", stride ",
                      stride[i], ", padding ", padding[i], ", dilation ", dilation[i],
                      "; kernel, stride and dilation must be positive and padding not negative");
    const Index size = (i == 0 ? height : width) + 2 * padding[i], needed = dilation[i] * (kernel[i] - 1) + 1;
    check<ValueError>(needed <= size, operation, "a kernel of ", kernel[i], " with dilation ", dilation[i], " covers ", needed,
                      " numbers but the padded image has ", size, "; give more padding or a smaller kernel");
  }
}

namespace detail {

/// Calls f(row of the patch, place in the image) for each number under the kernel at an output position; the place of padding is −1.
template <class F>
void for_each_tap(const Conv2dOptions& o, Index position, const F& f) {
  const Index top = position / o.out_width() * o.stride[0] - o.padding[0], left = position % o.out_width() * o.stride[1] - o.padding[1];
  Index row = 0;
  for (Index channel = 0; channel < o.channels; ++channel)
    for (Index ky = 0; ky < o.kernel[0]; ++ky)
      for (Index kx = 0; kx < o.kernel[1]; ++kx, ++row) {
        const Index y = top + ky * o.dilation[0], x = left + kx * o.dilation[1];
        const bool is_inside = y >= 0 && y < o.height && x >= 0 && x < o.width;
        f(row, is_inside ? (channel * o.height + y) * o.width + x : Index{-1});
      }
}

}  // namespace detail

/// The patches of images X [channels · height · width, N] as columns [channels · kernel[0] · kernel[1], positions · N], those of an image
/// side by side, row by row. Throws ValueError, ShapeError.
template <MatrixLike X, class S = ScalarOf<X>>
Activation<S> im2col_forward(const X& input, const Conv2dOptions& options) {
  check_geometry("im2col", options);
  const ActivationView<S> x(input);
  check<ShapeError>(x.rows() == options.image(), "im2col", "x is [", x.rows(), ", ", x.cols(), "] but the images are [", options.channels,
                    ", ", options.height, ", ", options.width, "]; x must be [", options.image(), ", images]");
  const Index positions = options.positions();
  Activation<S> columns(options.patch(), positions * x.cols());
  detail::for_each_token(columns.rows(), columns.cols(), [&](Index t) {
    const S* image = x.col(t / positions).data();
    S* column = columns.col(t).data();
    detail::for_each_tap(options, t % positions, [=](Index row, Index place) { column[row] = place < 0 ? S(0) : image[place]; });
  });
  return columns;
}

/// dX [channels · height · width, N] of im2col_forward: each number's gradient is the sum over the patches that it lies in.
template <MatrixLike G, class S = ScalarOf<G>>
Activation<S> im2col_backward(const G& gradient, const Conv2dOptions& options) {
  check_geometry("im2col_backward", options);
  const ActivationView<S> g(gradient);
  const Index positions = options.positions();
  check<ShapeError>(g.rows() == options.patch() && g.cols() % positions == 0, "im2col_backward", "g is [", g.rows(), ", ", g.cols(),
                    "] but must be [", options.patch(), ", ", positions, " times the images]");
  Activation<S> dx = Activation<S>::Zero(options.image(), g.cols() / positions);
  parallel_for(dx.cols(), [&](Index image) {
    S* sums = dx.col(image).data();
    for (Index position = 0; position < positions; ++position) {
      const S* column = g.col(image * positions + position).data();
      detail::for_each_tap(options, position, [=](Index row, Index place) {
        if (place >= 0) sums[place] += column[row];
      });
    }
  });
  return dx;
}

/// A product's columns, a position each, as images: [out, positions · N] to [out · positions, N], channel by channel. Throws ShapeError.
template <MatrixLike Y, class S = ScalarOf<Y>>
Activation<S> to_images_forward(const Y& input, Index positions) {
  const ActivationView<S> y(input);
  const Index out = y.rows();
  check<ShapeError>(positions > 0 && y.cols() % positions == 0, "to_images", "y is [", out, ", ", y.cols(), "] but each image has ",
                    positions, " columns");
  Activation<S> images(out * positions, y.cols() / positions);
  parallel_for(images.cols(), [&](Index image) {
    ActivationMap<S>(images.col(image).data(), positions, out) = y.middleCols(image * positions, positions).transpose();
  });
  return images;
}

/// Gradient of to_images_forward: [out · positions, N] to [out, positions · N].
template <MatrixLike G, class S = ScalarOf<G>>
Activation<S> to_images_backward(const G& gradient, Index positions) {
  const ActivationView<S> g(gradient);
  check<ShapeError>(positions > 0 && g.rows() % positions == 0, "to_images_backward", "g is [", g.rows(), ", ", g.cols(),
                    "] but a channel has ", positions, " numbers");
  const Index out = g.rows() / positions;
  Activation<S> dy(out, positions * g.cols());
  parallel_for(g.cols(), [&](Index image) {
    dy.middleCols(image * positions, positions) = ConstActivationMap<S>(g.col(image).data(), positions, out).transpose();
  });
  return dy;
}

}  // namespace lowrank::inline LOWRANK_ABI
