#include <doctest/doctest.h>

#include <09_qlora.hpp>

#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/optim/adamw.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/double_quant.hpp>
#include <lowrank/quant/nf4.hpp>

using namespace lowrank;

TEST_CASE("exercise 9a: the best correction of a quantized weight") {
  Weight<float> w(48, 64);
  fill_normal(w, 1, Random(1));
  const Eigen::MatrixXd exact = w.cast<double>(), q = dequantize(quantize<Nf4<64>>(w)).cast<double>();
  const Eigen::VectorXd s = thin_svd(exact - q).s;
  for (const Index r : {1, 5, 20}) {
    const Correction correction = best_correction(exact, q, r);
    REQUIRE(correction.b.cols() == r);
    REQUIRE(correction.a.rows() == r);
    CHECK((exact - q - correction.b * correction.a).norm() == doctest::Approx(s.tail(s.size() - r).norm()).epsilon(1e-9));
  }
}

TEST_CASE("exercise 9b: bytes in training") {
  const Weight<float> w = Weight<float>::Constant(256, 512, 0.5f);
  LoraLinear layer{QuantizedLinear{quantize<Nf4<64, DoubleQuant>>(w)}, {.rank = 8}};
  const auto trained = parameters(layer);
  AdamW optimizer{trained};
  std::size_t bytes = layer.base().weight_bytes() + optimizer.bytes();
  for (const auto& parameter : trained) bytes += parameter.value().size_bytes() + parameter.grad().size_bytes();
  CHECK(training_bytes(static_cast<double>(w.size()), static_cast<double>(trainable_parameters(layer))) ==
        doctest::Approx(static_cast<double>(bytes)).epsilon(1e-3));
}
