#include <doctest/doctest.h>

#include <lowrank/adapters/recompress.hpp>
#include <lowrank/ops/decompose.hpp>

#include <unit/adapters/adapter_support.hpp>

using namespace lowrank;
using namespace lowrank::test;

TEST_CASE("spectrum: singular values of the scaled update; effective rank and energy ranks of known spectra") {
  const ModuleTensors layer = drawn_layer(20, 30, 4, 1.5, 1);
  CHECK((spectrum(layer) - thin_svd(update_of(layer)).s.head(4)).cwiseAbs().maxCoeff() < 1e-5);
  CHECK(effective_rank(Eigen::VectorXd::Ones(6)) == doctest::Approx(6));
  CHECK(effective_rank(Eigen::Vector3d(2, 0, 0)) == doctest::Approx(1));
  CHECK(effective_rank(Eigen::Vector3d::Zero()) == 0);
  const Eigen::Vector4d s(3, 2, 1, 0);  // energies 9, 4, 1 of 14
  CHECK(rank_for_energy(s, 0.5) == 1);
  CHECK(rank_for_energy(s, 0.9) == 2);
  CHECK(rank_for_energy(s, 0.95) == 3);
  CHECK(rank_for_energy(s, 1) == 3);
  CHECK(rank_for_energy(Eigen::Vector2d::Zero(), 0.9) == 0);
  CHECK(rank_advice(s).rank_99 == 3);
  CHECK_THROWS_AS(rank_for_energy(s, 0), ValueError);
  CHECK_THROWS_AS(RankChoice::energy(1.5), ValueError);
  CHECK_THROWS_AS(RankChoice::rank(0), ValueError);
}

TEST_CASE("resize: the best approximation of each layer, its residual as reported; more rank than there is changes nothing") {
  Adapter adapter = drawn_adapter({"m.q_proj", "m.v_proj"}, 24, 18, 6, 2);
  adapter.layers["m.v_proj"] = drawn_layer(24, 18, 3, 0.25, 9);
  const FittedAdapter small = resize(adapter, RankChoice::rank(2));
  const FittedAdapter same = resize(adapter, RankChoice::rank(10));
  for (const auto& [path, layer] : adapter.layers) {
    const Eigen::MatrixXd d = update_of(layer);
    const Svd svd = thin_svd(d);
    const double best = svd.s.tail(svd.s.size() - 2).norm() / d.norm();
    CHECK((update_of(small.adapter.layers.at(path)) - d).norm() / d.norm() == doctest::Approx(best).epsilon(1e-5));
    CHECK(small.fits.at(path).residual == doctest::Approx(best).epsilon(1e-5));
    CHECK(small.fits.at(path).norm == doctest::Approx(d.norm()).epsilon(1e-5));
    CHECK(small.adapter.layers.at(path).rank() == 2);
    CHECK((update_of(same.adapter.layers.at(path)) - d).norm() < 1e-5 * d.norm());
    CHECK(same.adapter.layers.at(path).rank() == layer.rank());
  }
  CHECK(small.adapter.config.rank == 2);
  CHECK(small.adapter.config.alpha == 2);
}

TEST_CASE("resize to a share of the energy takes the smallest rank that keeps it") {
  const Adapter adapter = drawn_adapter({"m.q_proj"}, 40, 30, 8, 3);
  const FittedAdapter small = resize(adapter, RankChoice::energy(0.8));
  const LayerFit fit = small.fits.at("m.q_proj");
  const Eigen::VectorXd s = spectrum(adapter.layers.at("m.q_proj"));
  CHECK(fit.residual <= std::sqrt(0.2) * (1 + 1e-9));
  CHECK(s.head(fit.rank - 1).squaredNorm() < 0.8 * s.squaredNorm());
}

TEST_CASE("resize keeps element types, magnitudes, and the product of scale and bias") {
  Adapter adapter = drawn_adapter({"m.q_proj"}, 8, 6, 4, 4);
  ModuleTensors& layer = adapter.layers.at("m.q_proj");
  layer.a() = detail::to_tensor("a", to_weight(layer.a()), DType::bf16);
  layer.b() = detail::to_tensor("b", to_weight(layer.b()), DType::bf16);
  layer.tensors["lora_B.bias"] = make_tensor<float>("bias", {8}, std::vector<float>(8, 3.0f));
  layer.scale = 2;
  adapter.config.lora_bias = true;
  const ModuleTensors small = resize(adapter, RankChoice::rank(4)).adapter.layers.at("m.q_proj");
  CHECK(small.a().dtype == DType::bf16);
  CHECK(small.scale == 1);
  CHECK(to_floats(*small.bias()) == std::vector<float>(8, 6.0f));
  CHECK(small.bias()->shape == std::vector<Index>{8});
}

TEST_CASE("A layer of zeros keeps rank 1 and has no residual") {
  Adapter adapter = drawn_adapter({"m.q_proj"}, 8, 6, 4, 5);
  adapter.layers.at("m.q_proj").scale = 0;
  const FittedAdapter small = resize(adapter, RankChoice::energy(0.9));
  CHECK(small.fits.at("m.q_proj").rank == 1);
  CHECK(small.fits.at("m.q_proj").residual == 0);
  CHECK(update_of(small.adapter.layers.at("m.q_proj")).isZero());
}

TEST_CASE("extract_update finds an update of low rank between two weights, at a rank and by energy") {
  const ModuleTensors layer = drawn_layer(40, 50, 5, 1, 6);
  const Weight<float> base = drawn_matrix(40, 50, 7), tuned = base + update_of(layer).cast<float>();
  for (const RankChoice choice : {RankChoice::rank(5), RankChoice::energy(0.999999)}) {
    const FittedUpdate update = extract_update(base, tuned, choice);
    CHECK(update.fit.rank == 5);
    CHECK(update.fit.residual < 2e-6);
    CHECK((update_of(to_layer("m", update)) - update_of(layer)).norm() < 1e-4 * update_of(layer).norm());
  }
  CHECK(extract_update(base, tuned, RankChoice::rank(2)).fit.residual > 0.1);
  const Weight<float> large = update_of(drawn_layer(600, 520, 4, 1, 8)).cast<float>();  // by sampling
  CHECK(approximate(large, RankChoice::rank(4)).fit.residual < 2e-6);
  CHECK_THROWS_AS(extract_update(base, drawn_matrix(40, 49, 1), RankChoice::rank(1)), ShapeError);
}
