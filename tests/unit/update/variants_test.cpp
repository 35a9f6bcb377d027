#include <cmath>

#include <doctest/doctest.h>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/update/adalora.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/loha.hpp>
#include <lowrank/update/lokr.hpp>
#include <lowrank/update/lora_xs.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/miss_bat.hpp>
#include <lowrank/update/oft.hpp>

#include <tests/support/files.hpp>

#include "method_cases.hpp"

// What PEFT computes for each variant, written down once more in the plainest way, from its layer.py: W' of a weight [out, in].

using namespace lowrank;
using namespace method_cases;
using Matrix = Weight<double>;

namespace {

constexpr Index width = 12, height = 8;

Matrix drawn(Index rows, Index cols, std::uint64_t seed) {
  Matrix w(rows, cols);
  fill_normal(w, 0.5, Random(seed));
  return w;
}

/// W' by the library, as what the layer gives for the unit vectors.
template <class Update>
Matrix changed(const Matrix& w, Update update) {
  const Adapted<Linear<double>, Update> layer(Linear<double>(w), std::move(update));
  return layer(Activation<double>(Activation<double>::Identity(width, width)));
}

/// The blocks R of OFT by Neumann's series or Cayley's transform.
Matrix rotation(const Weight<double>& rows, Index block, Index size, Index terms) {
  Matrix q = Matrix::Zero(size, size);
  Index at = 0;
  for (Index i = 0; i < size; ++i)
    for (Index j = i + 1; j < size; ++j, ++at) q(i, j) = rows(block, at), q(j, i) = -rows(block, at);
  const Matrix one = Matrix::Identity(size, size);
  if (terms == 0) {  // (1 − Q)(1 + Q)⁻¹, by the series of the inverse, which converges for a small Q
    Matrix inverse = one, power = one;
    for (int p = 1; p < 200; ++p) power = -power * q, inverse += power;
    return (one - q) * inverse;
  }
  Matrix r = one;
  if (terms > 1) r += 2 * q;
  if (terms == 3 || terms == 4) r += 2 * q * q + q * q * q;
  if (terms > 4) {
    Matrix power = q;
    for (Index i = 2; i < terms - 1; ++i) power = power * q, r += 2 * power;
    r += power * q;
  }
  return r;
}

}  // namespace

TEST_CASE("MiSS: W + W D + D by blocks, and D repeated along the inputs, or along both") {
  const Matrix w = drawn(height, width, 1);
  constexpr Index r = 4;
  auto bat = make_miss_bat<double>(width, height, r);
  bat.block.value = drawn(height, r, 2);
  Matrix expected = w;
  for (Index i = 0; i < height / r; ++i)
    for (Index j = 0; j < width / r; ++j) {
      const Matrix d = bat.block.value.middleRows(i * r, r), own = w.block(i * r, j * r, r, r);
      expected.block(i * r, j * r, r, r) += own * d + d;
    }
  CHECK(changed(w, bat).isApprox(expected, 1e-12));

  auto mini = make_miss<double>(width, height, 5, 2);  // 5 does not divide width
  mini.block.value = drawn(5, 2, 3);
  expected = w;
  for (Index o = 0; o < height; ++o)
    for (Index i = 0; i < width; ++i) expected(o, i) += mini.block.value(i % 5, o % 2);
  CHECK(changed(w, mini).isApprox(expected, 1e-12));
}

TEST_CASE("OFT: blocks of the input are turned, each by its own rotation or all by one") {
  const Matrix w = drawn(height, width, 1);
  for (const bool is_shared : {false, true})
    for (const Index terms : {0, 1, 2, 3, 4, 5, 6, 9}) {
      CAPTURE(terms);
      auto update = make_oft<double>(width, {.block_size = 4, .terms = terms, .is_shared = is_shared});
      update.r.value = 0.1 * drawn(update.r.rows(), 6, 2);
      Matrix expected(height, width);
      for (Index k = 0; k < 3; ++k)
        expected.middleCols(4 * k, 4) = w.middleCols(4 * k, 4) * rotation(update.r.value, is_shared ? 0 : k, 4, terms).transpose();
      CHECK(changed(w, update).isApprox(expected, 1e-12));
    }
}

TEST_CASE("HRA: reflections one after the other, or 1 - 2 Q Qt of orthonormal columns") {
  const Matrix w = drawn(height, width, 1);
  HraWeights<double> update;
  update.u.value = drawn(width, 3, 2);
  Matrix expected = w;
  for (Index i = 0; i < 3; ++i) {
    const Matrix u = update.u.value.col(i).normalized();
    expected -= 2 * (expected * u) * u.transpose();
  }
  CHECK(changed(w, update).isApprox(expected, 1e-12));
  update.orthogonalizes = true;
  Matrix q = update.u.value;
  for (Index i = 0; i < 3; ++i) {
    for (Index j = 0; j < i; ++j) q.col(i) -= q.col(j).dot(q.col(i)) * q.col(j);
    q.col(i).normalize();
  }
  CHECK(changed(w, update).isApprox(w - 2 * (w * q) * q.transpose(), 1e-12));
}

TEST_CASE("LoHa and LoKr: the product of two products, and Kronecker's product, whole and of factors") {
  const Matrix w = drawn(height, width, 1);
  auto loha = make_loha<double>(width, height, {.rank = 3, .alpha = 6, .seed = 2});
  loha.w2_b.value = drawn(3, width, 3);
  CHECK(changed(w, loha).isApprox(w + 2 * Matrix((loha.w1_a.value * loha.w1_b.value).cwiseProduct(loha.w2_a.value * loha.w2_b.value)),
                                  1e-12));
  for (const bool both : {false, true})
    for (const Index rank : {1, 8}) {
      auto lokr = make_lokr<double>(lokr_shape(width, height, rank, -1, both), {.rank = rank, .alpha = 3, .seed = 4});
      lokr.visit_parameters([](auto& p) { p.value = drawn(p.rows(), p.cols(), 5); });
      const Matrix left = lokr.w1.whole.empty() ? Matrix(lokr.w1.a.value * lokr.w1.b.value) : lokr.w1.whole.value,
                   right = lokr.w2.whole.empty() ? Matrix(lokr.w2.a.value * lokr.w2.b.value) : lokr.w2.whole.value;
      CHECK(left.rows() == 2);
      CHECK(left.cols() == 3);
      CHECK(lokr.w1.whole.empty() == (both && rank == 1));
      CHECK(lokr.w2.whole.empty() == (rank == 1));
      Matrix expected = w;
      for (Index o = 0; o < height; ++o)
        for (Index i = 0; i < width; ++i) expected(o, i) += 3.0 / static_cast<double>(rank) * left(o / 4, i / 4) * right(o % 4, i % 4);
      CHECK(changed(w, lokr).isApprox(expected, 1e-12));
    }
}

TEST_CASE("AdaLoRA: a file whose ranks were cut, one of them to nothing, gives what zeros in E give") {
  Layers layers("dense");
  const auto named = layers.named_layers();
  LoraConfig config = method_case("adalora", {{"init_r", 4.0}, {"lora_alpha", 6.0}}).config;
  UpdateSet set = new_updates(named, config, LoraInit::kaiming, 3);
  move(set);
  const std::vector<std::vector<bool>> kept{{true, false, true, false}, {false, false, false, false}};
  Adapter cut = adapter_of(set, named, config);
  std::string pattern = "{";
  for (std::size_t s = 0; s < 2; ++s) {
    std::vector<Weight<float>> values;
    set.at(static_cast<Index>(s))->visit_parameters([&](Parameter<float>& p) { values.push_back(p.value); });
    std::vector<Index> left;
    pattern += (s ? ", \"" : "\"") + named[s].path + ".lora_E\": [";
    for (Index i = 0; i < 4; ++i) {
      const bool is_kept = kept[s][static_cast<std::size_t>(i)];
      if (is_kept) left.push_back(i);
      pattern += std::string(i ? ", " : "") + (is_kept ? "true" : "false");
    }
    pattern += "]";
    auto& tensors = cut.layers.at(named[s].path).tensors;
    const auto count = static_cast<Index>(left.size());
    Weight<float> a(count, values[0].cols()), b(values[1].rows(), count), e(count, 1);
    for (Index i = 0; i < count; ++i) {
      const Index from = left[static_cast<std::size_t>(i)];
      a.row(i) = values[0].row(from), b.col(i) = values[1].col(from), e.row(i) = values[2].row(from);
    }
    tensors.at("lora_A") = from_weight("", a), tensors.at("lora_B") = from_weight("", b), tensors.at("lora_E") = from_weight("", e);
    set.at(static_cast<Index>(s))->visit_parameters([&](Parameter<float>& p) {
      for (Index i = 0; i < 4 && p.name.ends_with("lora_E"); ++i)
        if (!kept[s][static_cast<std::size_t>(i)]) p.value(i, 0) = 0;
    });
  }
  const test::TemporaryFolder folder;
  peft::save(adapter_of(set, named, config), folder / "whole");
  std::string text = test::read_file(folder / "whole" / "adapter_config.json");
  text.replace(text.find("\"rank_pattern\": {"), std::string("\"rank_pattern\": {").size(), "\"rank_pattern\": " + pattern);
  cut.config = peft::parse_config(text, "test");
  peft::save(cut, folder / "cut");
  UpdateSet again = lowrank::apply(peft::load(folder / "cut"), named);
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  CHECK(layers(x, again).isApprox(layers(x, set), 1e-5f));
  peft::save(adapter_of(again, named, peft::load(folder / "cut").config), folder / "again");
  UpdateSet third = lowrank::apply(peft::load(folder / "again"), named);
  CHECK(layers(x, third) == layers(x, again));
  config.rank_pattern = {{"up_proj", 2}};
  CHECK_THROWS_WITH_AS(new_updates(named, config, LoraInit::kaiming, 3), doctest::Contains("what training has cut"), ValueError);
}

TEST_CASE("AdaLoRA: the term of orthogonality is PEFT's, and its gradient that of finite differences") {
  auto update = make_adalora<double>(width, height, {.rank = 3, .orthogonality = 0.7});
  update.a.value = drawn(3, width, 1), update.b.value = drawn(height, 3, 2);
  const auto term = [&] {
    const Matrix one = Matrix::Identity(3, 3);
    const Matrix &a = update.a.value, &b = update.b.value;
    return 0.5 * 0.7 * ((a * a.transpose() - one).norm() + (b.transpose() * b - one).norm()) / 2;
  };
  CHECK(update.add_penalty(0.5) == doctest::Approx(term()));
  for (Parameter<double>* parameter : {&update.a, &update.b})
    for (Index i = 0; i < parameter->value.size(); ++i) {
      double& number = parameter->value.data()[i];
      const double saved = number, step = 1e-6;
      number = saved + step;
      const double above = term();
      number = saved - step;
      const double below = term();
      number = saved;
      CHECK(std::abs(parameter->grad.data()[i] - (above - below) / (2 * step)) < 1e-8);
    }
  UpdateSet set;
  set.slots.resize(3);
  CHECK_FALSE(has_penalties(set));
  CHECK(add_penalties(set) == 0);
  set.slots[0] = make_adalora(width, height, {.rank = 3}), set.slots[2] = make_adalora(width, height, {.rank = 3});
  CHECK(has_penalties(set));
  UpdateSet one;
  one.slots.push_back(set.slots[0]);
  CHECK(add_penalties(set) == doctest::Approx(add_penalties(one)));  // the mean of equal terms
}

TEST_CASE("LoRA-XS begins with the weight's leading directions; the authors' files, which say LORA, are read under both their names") {
  Layers layers("dense");
  const auto named = layers.named_layers();
  const LoraConfig config = method_case("lora-xs", {{"r", 4.0}, {"lora_alpha", 8.0}}).config;
  UpdateSet set = new_updates(named, config, LoraInit::kaiming, 3);
  const auto* xs = set.at(0)->get_if<LoraXsWeights<float>>();
  REQUIRE(xs != nullptr);
  CHECK((xs->b.value.transpose() * xs->b.value).isIdentity(1e-5f));
  Weight<float> w(96, 64);
  layers.up.base.source().decode(0, 96, 0, 64, w.data(), 64);
  CHECK((xs->b.value.transpose() * w).isApprox(xs->a.value, 1e-2f));  // Uᵀ W = Σ Vᵀ
  move(set);
  const test::TemporaryFolder folder;
  peft::save(adapter_of(set, named, config), folder / "own");
  std::string text = test::read_file(folder / "own" / "adapter_config.json");
  text.replace(text.find("LORA_XS"), 7, "LORA");
  const auto x = nn_test::random_columns<float>(64, 5, 7);
  for (const char* spelled : {"_lora_latent_mapping", ".default_lora_latent_mapping"}) {
    auto tensors = safetensors::File::open(folder / "own" / "adapter_model.safetensors").tensors();
    for (StoredTensor& tensor : tensors)
      if (const auto at = tensor.name.find("_lora_latent_mapping"); at != std::string::npos) tensor.name.replace(at, 20, spelled);
    std::filesystem::create_directories(folder / "theirs");
    test::write_file(folder / "theirs" / "adapter_config.json", text);
    safetensors::write(folder / "theirs" / "adapter_model.safetensors", tensors);
    UpdateSet theirs = lowrank::apply(peft::load(folder / "theirs"), named);
    CHECK(layers(x, theirs) == layers(x, set));
  }
}

TEST_CASE("a choice of modules that a method's configuration has no key for is refused") {
  Layers layers("dense");
  const auto refused = [&](LoraConfig config, auto change, const char* key) {
    change(config);
    CHECK_THROWS_WITH_AS(new_updates(layers.named_layers(), config, LoraInit::kaiming, 3), doctest::Contains(key), ValueError);
  };
  refused(
      method_case("vera", {}).config, [](LoraConfig& c) { c.exclude_modules = std::string("x"); }, "exclude_modules");
  refused(
      method_case("ia3", {}).config, [](LoraConfig& c) { c.layers_to_transform = {0}; }, "layers_to_transform");
  refused(
      method_case("oft", {}).config,
      [](LoraConfig& c) {
        c.rank_pattern = {{"up_proj", 2}};
      },
      "rank_pattern");
}
