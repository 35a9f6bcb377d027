#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <vector>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn.hpp>
#include <lowrank/quant.hpp>

using namespace lowrank;

namespace {

using Images = Activation<double>;

Images image_numbers(Index rows, Index cols, std::uint64_t seed) {
  Random numbers(seed);
  return Images::NullaryExpr(rows, cols, [&] { return static_cast<double>(numbers.uniform(-1, 1)); });
}

// The definition: y[o, i, j] = b[o] + sum of w[o, c, p, q] x[c, i stride + p dilation - padding, ...].
Images direct_convolution(const Images& x, const Weight<double>& w, const Column<double>& b, const Conv2dOptions& o) {
  const Index oh = o.out_height(), ow = o.out_width(), out = w.rows();
  Images y(out * oh * ow, x.cols());
  for (Index n = 0; n < x.cols(); ++n)
    for (Index to = 0; to < y.rows(); ++to) {
      const Index channel = to / (oh * ow), i = to / ow % oh, j = to % ow;
      double sum = b.size() > 0 ? b[channel] : 0;
      for (Index from = 0; from < w.cols(); ++from) {
        const Index c = from / (o.kernel[0] * o.kernel[1]), p = from / o.kernel[1] % o.kernel[0], q = from % o.kernel[1];
        const Index row = i * o.stride[0] + p * o.dilation[0] - o.padding[0], col = j * o.stride[1] + q * o.dilation[1] - o.padding[1];
        if (row >= 0 && row < o.height && col >= 0 && col < o.width) sum += w(channel, from) * x((c * o.height + row) * o.width + col, n);
      }
      y(to, n) = sum;
    }
  return y;
}

const std::vector<Conv2dOptions> geometries{
    {.channels = 2, .height = 5, .width = 4, .kernel = {3, 3}, .padding = {1, 1}},
    {.channels = 1, .height = 1, .width = 1},
    {.channels = 3, .height = 6, .width = 7, .kernel = {2, 3}, .stride = {2, 1}, .padding = {0, 2}, .dilation = {1, 2}},
    {.channels = 2, .height = 7, .width = 5, .kernel = {3, 1}, .stride = {3, 2}, .padding = {2, 0}, .dilation = {2, 1}},
    {.channels = 4, .height = 3, .width = 2, .kernel = {3, 2}},
};

bool nearly_equal(const Images& a, const Images& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() && (a.size() == 0 || (a - b).cwiseAbs().maxCoeff() < 1e-13);
}

}  // namespace

TEST_CASE("a convolution is its definition, with and without a tape, and has its gradients") {
  for (const Conv2dOptions& options : geometries) {
    Conv2d conv{Linear<double>(options.patch(), 3, {.bias = true, .seed = 5}), options};
    const auto& weight = conv.layer().weight().value;
    for (const Index images : {0, 1, 3}) {
      const Images x = image_numbers(options.image(), images, 6);
      const Images expected = direct_convolution(x, weight, conv.layer().bias().value, options);
      CHECK(conv.out_features() == expected.rows());
      CHECK(nearly_equal(conv(x), expected));
      CHECK(nearly_equal(conv(Var<double>(x)).value(), expected));
    }
    const auto report =
        gradcheck([&](const std::vector<Var<double>>& v) { return conv(v[0]); }, {image_numbers(options.image(), 2, 7)}, parameters(conv));
    INFO(report.where);
    CHECK(report.worst < 2e-9);
  }
}

TEST_CASE("the pairs of a convolution have their gradients, empty batches included") {
  for (const Conv2dOptions& options : geometries)
    for (const Index images : {0, 2}) {
      const auto columns =
          gradcheck([&](const std::vector<Var<double>>& v) { return im2col(v[0], options); }, {image_numbers(options.image(), images, 8)});
      CHECK(columns.worst < 2e-9);
      const auto back = gradcheck([&](const std::vector<Var<double>>& v) { return to_images(v[0], options.positions()); },
                                  {image_numbers(3, options.positions() * images, 9)});
      CHECK(back.worst < 2e-9);
    }
}

TEST_CASE("a one-dimensional convolution is that of images of height 1") {
  const Conv1dOptions options{.channels = 3, .length = 8, .kernel = 3, .stride = 2, .padding = 1, .dilation = 2};
  const Linear<double> layer(9, 4, {.seed = 10});
  Conv1d conv{layer, options};
  const Images x = image_numbers(24, 2, 11);
  CHECK(conv.options().out_width() == 3);
  CHECK(nearly_equal(conv(x), direct_convolution(x, layer.weight().value, {}, options)));
}

TEST_CASE("LoRA of a convolution is a convolution of rank outputs, then one of 1 x 1") {
  const Conv2dOptions options = geometries[2];
  const Linear<double> base(options.patch(), 5, {.bias = true, .seed = 12});
  Conv2d conv{LoraLinear{base, {.rank = 2, .alpha = 6}}, options};
  auto& lora = conv.layer();
  lora.b().value = image_numbers(5, 2, 13);
  const Images x = image_numbers(options.image(), 2, 14), inner = direct_convolution(x, lora.a().value, {}, options);
  const Conv2dOptions points{.channels = 2, .height = options.out_height(), .width = options.out_width()};
  const Images expected =
      direct_convolution(x, base.weight().value, base.bias().value, options) + 3 * direct_convolution(inner, lora.b().value, {}, points);
  CHECK(nearly_equal(conv(x), expected));
  CHECK(trainable_parameters(conv) == 2 * (options.patch() + 5));
  const auto report = gradcheck([&](const std::vector<Var<double>>& v) { return conv(v[0]); }, {x}, parameters(conv));
  INFO(report.where);
  CHECK(report.worst < 2e-9);
}

TEST_CASE("a quantized convolution, adapted and merged") {
  const Conv2dOptions options{.channels = 8, .height = 6, .width = 6, .kernel = {4, 4}, .stride = {2, 2}, .padding = {1, 1}};
  const Linear<float> dense(options.patch(), 6, {.seed = 15});
  const auto q = quantize<Nf4<64>>(dense.weight().value);
  Conv2d frozen{Linear<float>(Weight<float>(dequantize(q))), options};
  Conv2d conv{LoraLinear{QuantizedLinear{q}, {.rank = 2}}, options};
  const Activation<float> x = image_numbers(options.image(), 3, 16).cast<float>();
  CHECK((conv(x) - frozen(x)).cwiseAbs().maxCoeff() < 1e-5f);

  Conv2d adapted{LoraLinear{dense, {.rank = 2}}, options};
  adapted.layer().b().value.setConstant(0.1f);
  const Activation<float> before = adapted(x);
  merge(adapted.layer());
  CHECK((adapted(x) - before).cwiseAbs().maxCoeff() < 1e-5f);
}

TEST_CASE("geometries that are none are refused in a sentence") {
  const auto refused = [](Conv2dOptions options, const char* text) {
    CHECK_THROWS_WITH_AS(Conv2d(Linear<float>(18, 2), options), doctest::Contains(text), ValueError);
  };
  const Conv2dOptions right{.channels = 2, .height = 3, .width = 3, .kernel = {3, 3}};
  Conv2dOptions wrong = right;
  wrong.groups = 2;
  refused(wrong, "[conv2d] groups = 2 is not supported");
  wrong = right, wrong.stride = {1, 0};
  refused(wrong, "stride 0");
  wrong = right, wrong.dilation = {2, 1};
  refused(wrong, "covers 5 numbers but the padded image has 3");
  wrong = right, wrong.height = 0;
  refused(wrong, "images are [2, 0, 3]");
  CHECK_THROWS_WITH_AS(Conv2d(Linear<float>(17, 2), right),
                       doctest::Contains("the layer expects in = 17 but a kernel of [2, 3, 3] covers 18"), ShapeError);
  const Conv2d conv(Linear<float>(18, 2), right);
  CHECK_THROWS_WITH_AS(conv(Activation<float>(17, 1)), doctest::Contains("x is [17, 1] but the images are [2, 3, 3]"), ShapeError);
}
