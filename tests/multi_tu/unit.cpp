// Compiled twice, with other -m flags; UNIT names the function, so the two units can be linked into one program.
#include "unit.hpp"

#include <lowrank/lowrank.hpp>
#if !defined(SINGLE_HEADER)  // which has them
#include <lowrank/adapters.hpp>
#include <lowrank/io.hpp>
#endif

namespace lowrank::inline LOWRANK_ABI {

/// A template whose body follows the flags: untagged, the linker would give both units the same one.
template <class Scalar>
int vector_width() {
#if defined(__AVX__)
  return static_cast<int>(32 / sizeof(Scalar));
#else
  return static_cast<int>(16 / sizeof(Scalar));
#endif
}

}  // namespace lowrank::inline LOWRANK_ABI

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

UnitResult UNIT() {
  using namespace lowrank;
  Random random(7);
  Weight<float> w(24, 64), a(4, 64), b(24, 4);
  Activation<float> x(64, 3);
  for (auto* m : {&w, &a, &b})
    for (float& value : m->reshaped()) value = random.uniform(-1, 1);
  for (float& value : x.reshaped()) value = random.uniform(-1, 1);

  const auto q = quantize<Nf4<64>>(w);
  LayerPlan<float> layer{.weight = WeightView(q), .out = 24, .in = 64};
  layer.plans.push_back({.a = {a.data(), 4, 64}, .b = {b.data(), 24, 4}, .scale = 0.5f});
  layer.parts.push_back({0, {0, 3}});
  const Activation<float> y = group_forward<float>(std::span(&layer, 1), x, {}).y.front();
  const Activation<double> expected =
      dequantize(q).cast<double>() * x.cast<double>() + 0.5 * b.cast<double>() * (a.cast<double>() * x.cast<double>());
  return {TEXT(LOWRANK_ABI), vector_width<float>(), (y.cast<double>() - expected).cwiseAbs().maxCoeff()};
}
