#include <doctest/doctest.h>

#include <lowrank/adapters/eva.hpp>
#include <lowrank/adapters/initialize.hpp>
#include <lowrank/adapters/residual_matrix.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_1.hpp>

#include <unit/adapters/adapter_support.hpp>

using namespace lowrank;
using namespace lowrank::test;

namespace {

constexpr double scale = 1.7;  // neither 1 nor a power of two: every forgotten s shows

DenseSource<float> source(const Weight<float>& w) { return {w.data(), w.rows(), w.cols()}; }

Eigen::MatrixXd product(const Factors& u) { return scale * u.b.cast<double>() * u.a.cast<double>(); }

/// Singular values that fall, as those of weights do.
Weight<float> weight(Index out, Index in) {
  const Index k = std::min(out, in);
  const Eigen::VectorXd s = Eigen::VectorXd::LinSpaced(k, 1, 8).cwiseInverse();
  return (thin_qr(drawn_matrix(out, k, 1).cast<double>()).q * s.asDiagonal() * thin_qr(drawn_matrix(in, k, 2).cast<double>()).q.transpose())
      .cast<float>();
}

}  // namespace

TEST_CASE("PiSSA, exact and fast, and OLoRA: base + update is the weight; PiSSA's is its best approximation") {
  for (const auto& [out, in] : {std::pair<Index, Index>{30, 48}, {48, 30}}) {
    const Weight<float> w = weight(out, in);
    const Factors exact = init_pissa(source(w), 4, scale), fast = init_pissa_fast(source(w), 4, scale),
                  olora = init_olora(source(w), 4, scale);
    for (const Factors* u : {&exact, &fast, &olora}) {
      CHECK(u->a.rows() == 4);
      const Weight<float> base = residual_weight(source(w), *u);
      CHECK((base.cast<double>() + product(*u) - w.cast<double>()).cwiseAbs().maxCoeff() < 1e-6);
    }
    const Svd svd = thin_svd(w.cast<double>());
    const double best = svd.s.tail(svd.s.size() - 4).norm();
    CHECK((w.cast<double>() - product(exact)).norm() == doctest::Approx(best).epsilon(1e-5));
    CHECK((w.cast<double>() - product(fast)).norm() < 1.01 * best);
    CHECK((exact.a * exact.a.transpose() - exact.b.transpose() * exact.b).norm() < 1e-5);  // shared evenly
  }
}

TEST_CASE("OLoRA is the beginning of the QR decomposition of the whole weight") {
  const Weight<float> w = weight(20, 33);
  const Factors u = init_olora(source(w), 5, scale);
  const Qr qr = thin_qr(w.cast<double>());
  CHECK((u.b.cast<double>() * u.a.cast<double>() - qr.q.leftCols(5) * qr.r.topRows(5)).norm() < 1e-5);
  CHECK((u.b.transpose() * u.b - Weight<float>::Identity(5, 5)).norm() < 1e-5);
}

TEST_CASE("Orthogonal: B A = 0 though neither factor is; odd ranks are refused") {
  const Factors u = init_orthogonal(24, 30, 6, 3);
  CHECK(u.a.norm() > 0.1);
  CHECK(u.b.norm() > 0.1);
  CHECK((u.b * u.a).norm() < 1e-6 * u.b.norm() * u.a.norm());
  CHECK(init_orthogonal(24, 30, 6, 3).a == u.a);
  CHECK(init_orthogonal(24, 30, 6, 3, 1).a != u.a);
  CHECK_THROWS_AS(init_orthogonal(24, 30, 5, 3), ValueError);
}

TEST_CASE("LoftQ: the error falls with each iteration, from below that of rounding alone, for any writable format") {
  const Weight<float> w = drawn_matrix(48, 64, 5);
  const auto check_format = [&]<class Format>(Format) {
    const double rounding = (w - dequantize(quantize<Format>(w))).norm() / w.norm();
    const LoftQ<Format> one = init_loftq<Format>(source(w), 8, scale), more = init_loftq<Format>(source(w), 8, scale, 5);
    CHECK(dequantize(one.base) == dequantize(quantize<Format>(w)));
    CHECK(one.errors.at(0) < rounding);
    CHECK(more.errors.at(0) == one.errors.at(0));
    REQUIRE(more.errors.size() > 1);
    for (std::size_t i = 1; i < more.errors.size(); ++i) CHECK(more.errors[i] < more.errors[i - 1]);
    const double reached = (w.cast<double>() - dequantize(more.base).template cast<double>() - product(more.update)).norm() / w.norm();
    CHECK(reached == doctest::Approx(more.errors.back()).epsilon(1e-4));
  };
  check_format(Nf4<64>{});
  check_format(Q4_1{});
}

TEST_CASE("EVA: A spans the directions of the inputs, whatever the batches; shares of the energy") {
  const Index in = 40, tokens = 700;
  const Eigen::MatrixXd plane = thin_qr(drawn_matrix(in, 3, 6).cast<double>()).q;
  const Eigen::Vector3d size(5, 3, 2);
  const Eigen::MatrixXd x =
      plane * size.asDiagonal() * drawn_matrix(3, tokens, 7).cast<double>() + 0.05 * drawn_matrix(in, tokens, 8).cast<double>();
  IncrementalDirections inputs(in, 8), whole(in, 8);
  for (Index at = 0; at < tokens; at += 70) inputs.add(x.middleCols(at, 70).cast<float>());
  whole.add(x.cast<float>());
  const Factors u = init_eva(inputs, 25, 3);
  CHECK(u.b == Weight<float>::Zero(25, 3));
  CHECK((u.a * u.a.transpose() - Weight<float>::Identity(3, 3)).norm() < 1e-5);
  CHECK((plane.transpose() * u.a.transpose().cast<double>()).norm() == doctest::Approx(std::sqrt(3.0)).epsilon(1e-3));
  const Svd svd = thin_svd(x);
  CHECK((inputs.shares().head(3) - Eigen::VectorXd(svd.s.head(3).cwiseAbs2() / x.squaredNorm())).norm() < 1e-4);
  CHECK((whole.shares().head(3) - inputs.shares().head(3)).norm() < 1e-4);
  CHECK_THROWS_AS(init_eva(inputs, 25, 9), ValueError);
  CHECK_THROWS_AS(inputs.add(Activation<float>(in + 1, 2)), ShapeError);
}

TEST_CASE("redistribute_ranks: the budget goes where the shares are, at least one and at most so many a layer") {
  const std::vector<Eigen::VectorXd> shares{Eigen::Vector4d(0.5, 0.3, 0.1, 0.05), Eigen::Vector4d(0.2, 0.02, 0.01, 0.01),
                                            Eigen::Vector4d(0.4, 0.2, 0.15, 0.12)};
  CHECK(redistribute_ranks(shares, 6, 4) == std::vector<Index>{2, 1, 3});
  CHECK(redistribute_ranks(shares, 6, 2) == std::vector<Index>{2, 2, 2});
  CHECK(redistribute_ranks(shares, 3, 4) == std::vector<Index>{1, 1, 1});
  CHECK(redistribute_ranks(shares, 99, 4) == std::vector<Index>{4, 4, 4});
  CHECK_THROWS_AS(redistribute_ranks(shares, 2, 4), ValueError);
}

TEST_CASE("LoRA-GA: the first step goes along the gradient, as far as rank 2r reaches") {
  const Index r = 3;
  const Eigen::MatrixXd g = weight(30, 40).cast<double>() * 100;
  const Svd svd = thin_svd(g);
  const double gamma = std::sqrt(30.0);  // then B has the length of A, and the step is the best approximation itself
  const Factors u = init_lora_ga(svd, r, scale, gamma);
  const Eigen::MatrixXd a = u.a.cast<double>(), b = u.b.cast<double>();
  const Eigen::MatrixXd db = scale * g * a.transpose(), da = scale * b.transpose() * g;
  const Eigen::MatrixXd step = scale * (db * a + b * da) / (scale * scale);
  const Svd best = svd.leading(2 * r);
  CHECK((step - best.u * best.s.asDiagonal() * best.v.transpose()).norm() < 1e-5 * best.s.norm());
  const Factors stable = init_lora_ga(svd, r, scale);
  CHECK(stable.b.col(0).norm() == doctest::Approx(std::pow(30.0, 0.25) / 4));
  CHECK_THROWS_AS(init_lora_ga(svd.leading(5), r, scale), ValueError);
}

TEST_CASE("ResidualMatrix decodes W - s B A of a quantized weight, any window alike") {
  const QuantizedMatrix<Q4_1> q = quantize<Q4_1>(weight(33, 64));
  const Factors u = init_pissa_fast(q, 4, scale);
  const ResidualMatrix residual(AnyMatrix(q), u);
  const Weight<float> all = detail::dense_copy(residual);
  CHECK((all - residual_weight(q, u)).cwiseAbs().maxCoeff() < 1e-6f);
  Weight<float> window(3, 7);
  residual.decode(5, 3, 11, 7, window.data(), 7);
  CHECK(window == all.block(5, 11, 3, 7));
  CHECK(residual.bytes() == q.bytes() + (33 + 64) * 4 * sizeof(float));
  CHECK_THROWS_AS(ResidualMatrix(AnyMatrix(q), init_orthogonal(33, 65, 2, 0)), ShapeError);
}

TEST_CASE("to_plain_update: base before and plain update are base after and trained update") {
  const Weight<float> w = weight(20, 30);
  const Factors initial = init_pissa(source(w), 3, scale);
  const Factors trained{initial.a + drawn_matrix(3, 30, 1, 0.1), initial.b + drawn_matrix(20, 3, 2, 0.1), scale};
  const Factors plain = to_plain_update(initial, trained);
  const Eigen::MatrixXd after = residual_weight(source(w), initial).cast<double>() + product(trained);
  CHECK((w.cast<double>() + product(plain) - after).cwiseAbs().maxCoeff() < 1e-6);
  CHECK_THROWS_AS(to_plain_update(initial, init_orthogonal(20, 31, 2, 0)), ShapeError);
}

TEST_CASE("Initializations refuse ranks and scales that cannot be") {
  const Weight<float> w = weight(8, 6);
  CHECK_THROWS_AS(init_pissa(source(w), 7, scale), ValueError);
  CHECK_THROWS_AS(init_pissa_fast(source(w), 0, scale), ValueError);
  CHECK_THROWS_AS(init_olora(source(w), 2, 0), ValueError);
  CHECK_THROWS_AS(init_loftq<Nf4<64>>(source(w), 2, scale, 0), ValueError);
}
