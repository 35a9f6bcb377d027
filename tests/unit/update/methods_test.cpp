#include <doctest/doctest.h>

#include <lowrank/adapters/merge.hpp>
#include <lowrank/autograd/gradcheck.hpp>
#include <lowrank/nn/adapted.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/update/adalora.hpp>
#include <lowrank/update/hra.hpp>
#include <lowrank/update/ia3.hpp>
#include <lowrank/update/loha.hpp>
#include <lowrank/update/lokr.hpp>
#include <lowrank/update/lora.hpp>
#include <lowrank/update/lora_xs.hpp>
#include <lowrank/update/miss.hpp>
#include <lowrank/update/miss_bat.hpp>
#include <lowrank/update/oft.hpp>
#include <lowrank/update/vera.hpp>

#include "../nn/nn_support.hpp"

using namespace lowrank;
using namespace nn_test;

namespace {

constexpr Index in = 12, out = 8, rank = 4;

template <class S>
Weight<S> drawn(Index rows, Index cols, std::uint64_t seed) {
  Weight<S> w(rows, cols);
  fill_normal(w, 0.5, Random(seed));
  return w;
}

/// Calls f(name, update) with a fresh update of every method.
template <class S, class F>
void for_each_method(const F& f) {
  const auto shared = draw_vera_projections<S>(rank, in + 2, out + 3, 7);
  f("lora", make_lora<S>(in, out, {.rank = rank, .seed = 1}));
  f("vera", make_vera<S>(in, out, shared));
  f("ia3", make_ia3<S>(in, out));
  f("ia3 feedforward", make_ia3<S>(in, out, true));
  f("oft", make_oft<S>(in, {.block_size = 4}));
  for (const Index terms : {1, 2, 3, 4, 5, 7})
    f("oft by Neumann's series " + std::to_string(terms), make_oft<S>(in, {.block_size = 4, .terms = terms}));
  f("oft, one rotation", make_oft<S>(in, {.block_size = 3, .is_shared = true}));
  f("oft, constrained", make_oft<S>(in, {.block_size = 4, .eps = 100}));
  f("hra", make_hra<S>(in, rank, 2));
  f("miss", make_miss<S>(in, out, rank));
  f("miss mini", make_miss<S>(in, out, rank, 4));
  f("miss bat", make_miss_bat<S>(in, out, rank));
  f("loha", make_loha<S>(in, out, {.rank = rank, .seed = 3}));
  for (const bool both : {false, true})
    for (const Index r : {1, 2, 8})
      f("lokr " + std::to_string(r) + (both ? " both" : ""),
        make_lokr<S>(lokr_shape(in, out, r, -1, both), {.rank = r, .begins_at_w1 = r != 2, .seed = 4}));
  f("adalora, cut", make_adalora<S>(in, out, {.rank = rank, .kept = 2}));
  f("adalora", make_adalora<S>(in, out, {.rank = rank}));
  f("lora-xs", make_lora_xs<S>(drawn<S>(rank, in, 3), drawn<S>(out, rank, 4)));
}

/// Moves every parameter away from where it begins.
template <class Method>
void move(Method& update) {
  std::uint64_t seed = 20;
  update.visit_parameters([&](auto& parameter) {
    Weight<typename Method::Scalar> more(parameter.rows(), parameter.cols());
    fill_normal(more, 0.3, Random(seed++));
    parameter.value += more;
  });
}

}  // namespace

TEST_CASE("every method begins as its base, dense and quantized") {
  const Linear<float> dense(drawn<float>(out, in, 5), Column<float>::LinSpaced(out, -1, 1));
  const QuantizedLinear<Nf4<32>> quantized(quantize<Nf4<32>>(drawn<float>(out, in, 5)));
  const auto x = random_columns<float>(in, 6, 6);
  for_each_method<float>([&](const std::string& name, const auto& update) {
    CAPTURE(name);
    const double tolerance = name == "lora-xs" ? 1e-3 : 1e-6;  // R begins near zero
    CHECK((Adapted(dense, update)(x) - dense(x)).norm() < tolerance * dense(x).norm());
    CHECK((Adapted(quantized, update)(x) - quantized(x)).norm() < tolerance * quantized(x).norm());
  });
}

TEST_CASE("gradients of every method are finite differences, in double") {
  const Linear<double> base(drawn<double>(out, in, 5), Column<double>::LinSpaced(out, -1, 1));
  for_each_method<double>([&](const std::string& name, auto update) {
    CAPTURE(name);
    move(update);
    Adapted layer(base, update);
    const auto report =
        gradcheck([&](const std::vector<Var<double>>& x) { return layer(x[0]); }, {random_columns<double>(in, 5, 7)}, parameters(layer));
    CHECK_MESSAGE(report.worst < 1e-7, report.where);
  });
}

TEST_CASE("every method has the same gradients in float, for few and many tokens, as in double") {
  for_each_method<double>([&](const std::string& name, auto update) {
    CAPTURE(name);
    move(update);
    Adapted exact(Linear<double>(drawn<double>(out, in, 5)), update);
    for_each_method<float>([&](const std::string& other, auto single) {
      if (other != name) return;
      move(single);
      Adapted layer(Linear<float>(drawn<float>(out, in, 5)), single);
      for (const Index tokens : {1, 7, 20}) {
        const auto x = random_columns<float>(in, tokens, 8), g = random_columns<float>(out, tokens, 9);
        Tape<float> tape;
        Tape<double> exact_tape;
        for (auto& p : parameters(layer)) std::ranges::fill(p.grad(), 0.0f);
        for (auto& p : parameters(exact)) std::ranges::fill(p.grad(), 0.0);
        const auto v = tape.variable(x);
        const auto exact_v = exact_tape.variable(x.cast<double>());
        tape.backward(layer(v), g);
        exact_tape.backward(exact(exact_v), g.cast<double>());
        CHECK(tape.gradient(v).cast<double>().isApprox(exact_tape.gradient(exact_v), 1e-4));
        const auto of = parameters(layer);
        const auto exact_of = parameters(exact);
        for (std::size_t i = 0; i < of.size(); ++i)
          for (std::size_t k = 0; k < of[i].grad().size(); ++k)
            CHECK(static_cast<double>(of[i].grad()[k]) == doctest::Approx(exact_of[i].grad()[k]).epsilon(1e-3).scale(1));
      }
    });
  });
}

TEST_CASE("merged, every method gives what it gives beside its base, and unmerged the base's bits are back") {
  const Linear<float> base(drawn<float>(out, in, 5), Column<float>::LinSpaced(out, -1, 1));
  const auto x = random_columns<float>(in, 6, 6);
  for_each_method<float>([&](const std::string& name, auto update) {
    CAPTURE(name);
    move(update);
    Adapted layer(base, update);
    const Activation<float> y = layer(x);
    merge(layer);
    CHECK(layer(x).isApprox(y, 1e-4f));
    unmerge(layer);
    CHECK(layer(x) == y);
  });
}

TEST_CASE("orthogonal reflections: gradients are finite differences, and the map is orthogonal and of determinant (-1)^r") {
  const Linear<double> base(drawn<double>(out, in, 5), Column<double>::LinSpaced(out, -1, 1));
  auto update = make_orthogonal_hra<double>(in, rank, 2);
  Adapted layer(base, update);
  const auto report =
      gradcheck([&](const std::vector<Var<double>>& x) { return layer(x[0]); }, {random_columns<double>(in, 5, 7)}, parameters(layer));
  CHECK_MESSAGE(report.worst < 1e-7, report.where);
  const Activation<double> one = Activation<double>::Identity(in, in), map = (*update.plan({}).input_map)(one);
  CHECK((map * map.transpose() - one).norm() < 1e-12);
  CHECK((map * map - one).norm() < 1e-12);  // 1 − 2 Q Qᵀ turns back by itself
  CHECK(map.trace() == doctest::Approx(static_cast<double>(in - 2 * rank)));
  update.u.value.col(1) = 2 * update.u.value.col(0);
  update.u.value.col(0).setZero();
  CHECK_THROWS_AS(update.plan({}), ValueError);
}

TEST_CASE("constrained rotations: a recorded pass brings ‖Q‖ back to eps / √blocks, a bare one uses it without a change") {
  auto update = make_oft<double>(in, {.block_size = 4, .eps = 0.3});
  move(update);
  auto inside = update;
  const double bound = 0.3 / std::sqrt(3.0);
  for (Index k = 0; k < 3; ++k) {
    const double norm = std::sqrt(2.0) * inside.r.value.row(k).norm();
    REQUIRE(norm > bound);
    inside.r.value.row(k) *= bound / norm;
  }
  const auto before = update.r.value;
  const auto x = random_columns<double>(in, 5, 7);
  const auto y = (*update.plan({}).input_map)(x);
  CHECK(update.r.value == before);
  CHECK(y.isApprox((*inside.plan({}).input_map)(x), 1e-12));
  update.plan({.is_recorded = true});
  CHECK(update.r.value.isApprox(inside.r.value, 1e-12));
  CHECK((*update.plan({}).input_map)(x).isApprox(y, 1e-12));
}

TEST_CASE("LoKr's sizes are those of PEFT") {
  const auto sizes = [](const LokrShape& s) { return std::vector<Index>{s.l, s.k, s.m, s.n, s.is_whole_1, s.is_whole_2}; };
  CHECK(sizes(lokr_shape(64, 160, 4)) == std::vector<Index>{10, 16, 8, 8, 1, 0});
  CHECK(sizes(lokr_shape(64, 64, 4)) == std::vector<Index>{8, 8, 8, 8, 1, 1});
  CHECK(sizes(lokr_shape(576, 127, 4, -1, true)) == std::vector<Index>{1, 127, 24, 24, 0, 0});
  CHECK(sizes(lokr_shape(12, 64, 100, 6)) == std::vector<Index>{4, 16, 6, 2, 1, 1});
  CHECK_THROWS_AS(lokr_shape(64, 64, 4, 0), ValueError);
}

TEST_CASE("VeRA's projections are those of PyTorch's generator: the same for a key, within Kaiming's bound") {
  const auto shared = draw_vera_projections<float>(16, 64, 64, 7), again = draw_vera_projections<float>(16, 64, 64, 7);
  CHECK(*shared.a == *again.a);
  CHECK(shared.a->cwiseAbs().maxCoeff() <= std::sqrt(6.0f / 64));
  CHECK(shared.b->cwiseAbs().maxCoeff() <= std::sqrt(6.0f / 16));
  CHECK_THROWS_AS(make_vera<float>(65, 8, shared), ShapeError);
}
