#include <doctest/doctest.h>

#include <lowrank/adapters/combine.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/io/peft.hpp>

#include <support/files.hpp>
#include <support/golden.hpp>
#include <unit/adapters/adapter_support.hpp>

using namespace lowrank;
using namespace lowrank::test;

namespace {

const std::string golden = std::string(LOWRANK_GOLDEN_DIR) + "/combine/";
const std::string q_proj = "model.layers.0.self_attn.q_proj";

struct Pair {
  Adapter a = drawn_adapter({"m.q_proj", "m.v_proj"}, 30, 20, 3, 1), b = drawn_adapter({"m.q_proj", "m.o_proj"}, 30, 20, 5, 2);
  FittedAdapter combined(const char* method, double wa, double wb, CombineOptions options = {}) const {
    options.method = CombineMethod::named(method);
    const WeightedAdapter both[] = {{&a, wa}, {&b, wb}};
    return combine(both, options);
  }
  Eigen::MatrixXd wanted(const std::string& path, double wa, double wb) const {
    Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(30, 20);
    if (a.layers.contains(path)) sum += wa * update_of(a.layers.at(path));
    if (b.layers.contains(path)) sum += wb * update_of(b.layers.at(path));
    return sum;
  }
};

double distance(const ModuleTensors& layer, const Eigen::MatrixXd& wanted) { return (update_of(layer) - wanted).norm() / wanted.norm(); }

}  // namespace

TEST_CASE("concat: the weighted sum of updates to rounding, with mixed ranks, negative weights and layers that one adapter has alone") {
  const Pair pair;
  for (const auto& [wa, wb] : {std::pair{0.7, 0.3}, {1.0, -0.5}, {-2.0, 0.0}}) {
    const FittedAdapter sum = pair.combined("concat", wa, wb);
    CHECK(sum.adapter.layers.size() == 3);
    CHECK(sum.adapter.layers.at("m.q_proj").rank() == 8);
    CHECK(sum.adapter.layers.at("m.v_proj").rank() == 3);
    for (const auto& [path, layer] : sum.adapter.layers) {
      const Eigen::MatrixXd wanted = pair.wanted(path, wa, wb);
      CHECK((update_of(layer) - wanted).norm() <= 1e-6 * wanted.norm());
    }
  }
}

TEST_CASE("concat leaves every number as it is where the weighted scales agree") {
  Pair pair;
  const ModuleTensors layer = pair.combined("concat", 0.5, -0.5).adapter.layers.at("m.q_proj");
  CHECK(layer.scale == 1);  // 0.5 · 2
  CHECK(to_weight(layer.a()).topRows(3) == to_weight(pair.a.layers.at("m.q_proj").a()));
  CHECK(to_weight(layer.b()).leftCols(3) == to_weight(pair.a.layers.at("m.q_proj").b()));
  CHECK(to_weight(layer.b()).rightCols(5) == -to_weight(pair.b.layers.at("m.q_proj").b()));
}

TEST_CASE("linear is the best approximation of the weighted sum at the rank, and the sum itself where the rank allows") {
  const Pair pair;
  for (const char* method : {"linear", "svd", "linear_svd"}) {
    const FittedAdapter best = pair.combined(method, 0.7, -0.4);  // rank 5, the largest of both
    const Eigen::MatrixXd wanted = pair.wanted("m.q_proj", 0.7, -0.4);
    const Svd svd = thin_svd(wanted);
    const double least = svd.s.tail(svd.s.size() - 5).norm() / wanted.norm();
    CHECK(distance(best.adapter.layers.at("m.q_proj"), wanted) == doctest::Approx(least).epsilon(1e-5));
    CHECK(best.fits.at("m.q_proj").residual == doctest::Approx(least).epsilon(1e-5));
    CHECK(distance(best.adapter.layers.at("m.o_proj"), pair.wanted("m.o_proj", 0.7, -0.4)) < 1e-6);
    CHECK(best.adapter.layers.at("m.v_proj").rank() == 3);
  }
  const FittedAdapter whole = pair.combined("linear", 0.7, -0.4, {.rank = RankChoice::rank(8)});
  CHECK(distance(whole.adapter.layers.at("m.q_proj"), pair.wanted("m.q_proj", 0.7, -0.4)) < 1e-6);
}

TEST_CASE("An adapter alone, and one with its own negative") {
  const Pair pair;
  const WeightedAdapter alone[] = {{&pair.a, 1}};
  for (const char* method : {"concat", "linear", "ties", "magnitude_prune", "dare_linear", "dare_ties", "peft_linear", "peft_svd"}) {
    const FittedAdapter same = combine(alone, {.method = CombineMethod::named(method), .density = 1});
    CHECK(distance(same.adapter.layers.at("m.q_proj"), update_of(pair.a.layers.at("m.q_proj"))) < 1e-5);
  }
  const WeightedAdapter opposite[] = {{&pair.a, 1}, {&pair.a, -1}};
  CHECK(update_of(combine(opposite, {.method = CombineMethod::named("linear")}).adapter.layers.at("m.q_proj")).norm() < 1e-5);
}

TEST_CASE("Pruning rules: task vectors of the updates, then the nearest of the rank") {
  const Pair pair;
  const double wa = 0.8, wb = -0.6;
  Weight<float> x = update_of(pair.a.layers.at("m.q_proj")).cast<float>(), y = update_of(pair.b.layers.at("m.q_proj")).cast<float>();
  keep_largest(x, 0.3);
  keep_largest(y, 0.3);
  const CombineOptions full{.rank = RankChoice::rank(20), .density = 0.3};
  const Eigen::MatrixXd pruned = (wa * x.cast<double>() + wb * y.cast<double>());
  CHECK(distance(pair.combined("magnitude_prune", wa, wb, full).adapter.layers.at("m.q_proj"), pruned) < 1e-5);
  Eigen::MatrixXd elected = pruned;
  for (Index i = 0; i < 30; ++i)
    for (Index j = 0; j < 20; ++j) {
      const double p = wa * static_cast<double>(x(i, j)), q = wb * static_cast<double>(y(i, j));
      elected(i, j) = p * q > 0 ? (p + q) / 2 : p * q < 0 ? (std::abs(p) > std::abs(q) ? p : q) : p + q;
    }
  CHECK(distance(pair.combined("ties", wa, wb, full).adapter.layers.at("m.q_proj"), elected) < 1e-5);
}

TEST_CASE("keep_largest and keep_random: counts, ties, means") {
  Weight<float> m(2, 3);
  m << 1, -3, 3, 0, 2, -1;
  keep_largest(m, 0.5);
  CHECK(m == (Weight<float>(2, 3) << 0, -3, 3, 0, 2, 0).finished());
  Weight<float> equal = Weight<float>::Ones(2, 2);
  keep_largest(equal, 0.5);
  CHECK(equal.row(0).sum() == 2);
  Weight<float> ones = Weight<float>::Ones(100, 100);
  keep_random(ones, 0.25, Random(1));
  CHECK(ones.mean() == doctest::Approx(1).epsilon(0.05));
  CHECK(((ones.array() == 0) || (ones.array() == 4)).all());
  CHECK_THROWS_AS(keep_largest(m, 0), ValueError);
  CHECK_THROWS_AS(keep_random(m, 1.5, Random(1)), ValueError);
}

TEST_CASE("PEFT's results by name, and the right ones beside them") {
  const GoldenFile expected(golden + "expected_q0.safetensors");
  const Adapter a = peft::load(golden + "a"), b = peft::load(golden + "b");
  const auto dense = [&](const std::string& name) {
    return Eigen::MatrixXd(ConstWeightMap<float>(expected.floats(name).data(), 64, 64).cast<double>());
  };
  for (const auto& [weights, wa, wb] : {std::tuple{"0.7.0.3", 0.7, 0.3}, {"1.0.-0.5", 1.0, -0.5}}) {
    const WeightedAdapter both[] = {{&a, wa}, {&b, wb}};
    const auto combined = [&](const char* method) {
      CombineOptions options{.method = CombineMethod::named(method)};
      if (options.method.form == CombineForm::peft_updates) options.rank = RankChoice::rank(8);
      return combine(both, options).adapter.layers.at(q_proj);
    };
    for (const char* type : {"cat", "linear", "svd", "ties", "magnitude_prune", "ties_svd"}) {
      CAPTURE(type);
      CHECK(distance(combined(concat("peft_", type).c_str()), dense(concat("peft.", type, ".", weights))) < 2e-6);
    }
    const Eigen::MatrixXd sum = wa * dense("delta.a") + wb * dense("delta.b");
    CHECK(distance(combined("concat"), sum) < 1e-6);
    CHECK(distance(combined("linear"), sum) <= distance(combined("peft_linear"), sum));
  }
}

TEST_CASE("A combination that is saved as a PEFT folder and loaded again has the same updates") {
  Pair pair;
  pair.a.config.use_rslora = true;
  TemporaryFolder folder;
  for (const char* method : {"concat", "linear"}) {
    const Adapter sum = pair.combined(method, 0.7, 0.3).adapter;
    peft::save(sum, folder / method);
    const Adapter loaded = peft::load(folder / method);
    for (const auto& [path, layer] : sum.layers) {
      CHECK(loaded.layers.at(path).scale == doctest::Approx(layer.scale).epsilon(1e-12));
      CHECK(distance(loaded.layers.at(path), update_of(layer)) < 1e-12);
    }
  }
}

TEST_CASE("Element types: kept where all agree, else float32") {
  Pair pair;
  const auto round = [](Adapter& adapter) {
    for (auto& [path, layer] : adapter.layers) {
      layer.a() = detail::to_tensor("a", to_weight(layer.a()), DType::bf16);
      layer.b() = detail::to_tensor("b", to_weight(layer.b()), DType::bf16);
    }
  };
  round(pair.a);
  CHECK(pair.combined("linear", 1, 1).adapter.layers.at("m.q_proj").a().dtype == DType::f32);
  CHECK(pair.combined("linear", 1, 1).adapter.layers.at("m.v_proj").a().dtype == DType::bf16);
  round(pair.b);
  CHECK(pair.combined("concat", 1, 0.3).adapter.layers.at("m.q_proj").b().dtype == DType::bf16);
}

TEST_CASE("Biases add up; full copies combine where the weights sum to 1; the rest is refused by name") {
  Pair pair;
  for (auto& [path, layer] : pair.a.layers) layer.tensors["lora_B.bias"] = make_tensor<float>("bias", {30}, std::vector<float>(30, 1.5f));
  pair.a.config.lora_bias = true;
  const Adapter sum = pair.combined("concat", 0.5, 0.25).adapter;
  CHECK(sum.config.lora_bias);
  for (const char* path : {"m.q_proj", "m.v_proj"})  // 0.5 · 2 · 1.5
    CHECK(to_floats(*sum.layers.at(path).bias())[7] * sum.layers.at(path).scale == doctest::Approx(1.5));
  CHECK(to_floats(*sum.layers.at("m.o_proj").bias())[7] == 0);
  CHECK(complaint([&] { pair.combined("ties", 1, 1); }).find("lora_bias") != std::string::npos);

  Pair copies;
  copies.a.saved = {make_tensor<float>("lm_head.weight", {2}, std::vector<float>{1, 2})};
  copies.b.saved = {make_tensor<float>("lm_head.weight", {2}, std::vector<float>{5, 6})};
  CHECK(to_floats(copies.combined("linear", 0.75, 0.25).adapter.saved.at(0)) == std::vector<float>{2, 3});
  CHECK(complaint([&] { copies.combined("linear", 1, 1); }).find("lm_head.weight is a full copy") != std::string::npos);
  copies.b.saved.clear();
  CHECK(to_floats(copies.combined("linear", 1, 0.3).adapter.saved.at(0)) == std::vector<float>{1, 2});

  Pair dora;
  dora.b.layers.at("m.q_proj").tensors["lora_magnitude_vector"] = make_tensor<float>("m", {30}, std::vector<float>(30, 1.0f));
  CHECK(complaint([&] { dora.combined("concat", 1, 1); }).find("m.q_proj has the tensor lora_magnitude_vector: its update is no sum") !=
        std::string::npos);
  CHECK(complaint([&] { Pair().combined("peft_linear", 1, 1); }).find("equal ranks") != std::string::npos);
  CHECK(complaint([] { CombineMethod::named("average"); }).find("there is no method average") != std::string::npos);
  CHECK_THROWS_AS(combine({}, {}), ValueError);
  CHECK_THROWS_AS(Pair().combined("linear", std::nan(""), 1), ValueError);
  CHECK_THROWS_AS(Pair().combined("concat", 1, 1, {.rank = RankChoice::rank(4)}), ValueError);
  Pair shapes;
  shapes.b.layers["m.q_proj"] = drawn_layer(29, 20, 5, 1, 3);
  CHECK_THROWS_AS(shapes.combined("concat", 1, 1), ShapeError);
}

TEST_CASE("to_plain_adapter: what training changed, exactly, at twice the rank") {
  Adapter initial = drawn_adapter({"m.q_proj"}, 12, 10, 3, 5), trained = drawn_adapter({"m.q_proj"}, 12, 10, 3, 6);
  const ModuleTensors &before = initial.layers.at("m.q_proj"), &after = trained.layers.at("m.q_proj");
  const ModuleTensors plain = to_plain_adapter(initial, trained).layers.at("m.q_proj");
  CHECK(plain.rank() == 6);
  CHECK(plain.scale == 2);
  CHECK(to_weight(plain.a()).topRows(3) == to_weight(after.a()));
  CHECK(to_weight(plain.b()).rightCols(3) == -to_weight(before.b()));
  CHECK(distance(plain, update_of(after) - update_of(before)) < 1e-12);
  trained.layers["m.v_proj"] = after;
  CHECK(complaint([&] { to_plain_adapter(initial, trained); }).find("has no m.v_proj") != std::string::npos);
}
