#include <doctest/doctest.h>

#include <span>
#include <type_traits>
#include <utility>

#include <lowrank/nn/adapted_linear.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/embedding.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/quant/nf4.hpp>
#include <lowrank/quant/q4_0.hpp>
#include <lowrank/quant/q6_k.hpp>
#include <lowrank/update/any_update.hpp>
#include <lowrank/update/vera.hpp>

using namespace lowrank;

// What refers to an object, or records it, compiles on a name (T&) and not on a temporary (T).

namespace {

template <class T>
concept GivesSource = requires(T&& owner) {
  std::forward<T>(owner).source();
};
template <class T>
constexpr bool keeps_source = GivesSource<T&>&& GivesSource<const T&> && !GivesSource<T> && !GivesSource<const T>;

static_assert(keeps_source<Linear<float>> && keeps_source<Linear<double, 3, 2>> && keeps_source<FrozenLinear<Half>>);
static_assert(keeps_source<QuantizedLinear<Nf4<64>>> && keeps_source<AnyLinear>);
static_assert(keeps_source<StoredMatrix<float>> && keeps_source<QuantizedMatrix<Nf4<64>>> && keeps_source<QuantizedMatrix<Q4_0>>);
static_assert(keeps_source<QuantizedMatrix<Q4_0>::Storage> && keeps_source<QuantizedMatrix<Nf4<64>>::Storage>);
static_assert(!GivesSource<QuantizedMatrix<Q6K>&> && !GivesSource<QuantizedMatrix<Q6K>>);

template <class T>
concept GivesView = requires(T&& matrix) {
  std::forward<T>(matrix).view();
};
static_assert(GivesView<const AnyMatrix&> && !GivesView<AnyMatrix> && !GivesView<const AnyMatrix>);

template <class T>
constexpr bool keeps_weight_view = std::is_constructible_v<WeightView, T&>&& std::is_constructible_v<WeightView, const T&> &&
                                   !std::is_constructible_v<WeightView, T> && !std::is_constructible_v<WeightView, const T>;
static_assert(keeps_weight_view<AnyMatrix> && keeps_weight_view<QuantizedMatrix<Nf4<64>>> && keeps_weight_view<StoredMatrix<BFloat16>>);
static_assert(keeps_weight_view<Scaled<DenseSource<float>>> && keeps_weight_view<QuantizedMatrix<Q6K>>);
static_assert(std::is_constructible_v<WeightView, DenseSource<float>> && std::is_constructible_v<WeightView, BlockSource>);
static_assert(std::is_copy_constructible_v<WeightView> && std::is_move_constructible_v<WeightView>);

template <class T, class X>
concept Applies = requires(T&& layer, const X& x) {
  std::forward<T>(layer)(x);
};
template <class T, class S = typename T::Scalar>
constexpr bool keeps_recording = Applies<T&, Var<S>> && !Applies<T, Var<S>> && Applies<T, Activation<S>>;

using Static = Linear<float, 8, 6>;
static_assert(keeps_recording<Linear<float>> && keeps_recording<Linear<double>> && keeps_recording<Static>);
static_assert(keeps_recording<FrozenLinear<float>> && keeps_recording<QuantizedLinear<Nf4<64>>> && keeps_recording<AnyLinear>);
static_assert(keeps_recording<LoraLinear<Linear<float>>> && keeps_recording<LoraLinear<Static, 2>>);
static_assert(keeps_recording<DoraLinear<Linear<float>>> && keeps_recording<Adapted<Linear<float>, VeraWeights<float>>>);

template <class T>
concept Embeds = requires(T&& table, Tape<float>& tape, std::span<const std::int32_t> ids) {
  std::forward<T>(table)(tape, ids);
}
|| requires(T&& table, Tape<float>& tape, std::span<const std::int32_t> ids) { std::forward<T>(table).embed(&tape, ids); };
static_assert(Embeds<Embedding<float>&> && !Embeds<Embedding<float>> && Embeds<AnyLinear&> && !Embeds<AnyLinear>);

template <class T, class X>
concept Forwards = requires(T&& layer, const X& x) {
  std::forward<T>(layer).forward(x);
};
static_assert(Forwards<AdaptedLinear&, Var<float>> && !Forwards<AdaptedLinear, Var<float>> && Forwards<AdaptedLinear, Activation<float>>);

template <class T>
concept Plans = requires(T&& update) {
  std::forward<T>(update).plan({});
}
|| requires(T&& layer) { std::forward<T>(layer).plan(); };
template <class T>
constexpr bool keeps_plan = Plans<T&> && !Plans<T>;
static_assert(keeps_plan<LoraWeights<float>> && keeps_plan<DoraWeights<float>> && keeps_plan<VeraWeights<float>> && keeps_plan<AnyUpdate>);
static_assert(keeps_plan<LoraLinear<Static>> && !Plans<const LoraLinear<Static>>);

template <class T>
concept Gives = requires(T&& held) {
  std::forward<T>(held).template get_if<Linear<float>>();
}
|| requires(T&& held) { std::forward<T>(held).template get_if<LoraWeights<float>>(); };
static_assert(Gives<AnyLinear&> && !Gives<AnyLinear> && Gives<const AnyUpdate&> && !Gives<AnyUpdate>);

template <class T>
concept GivesBytes = requires(T&& buffer) {
  std::forward<T>(buffer).bytes();
}
|| requires(T&& buffer) { std::forward<T>(buffer).data(); }
|| requires(T&& buffer) { std::forward<T>(buffer).template as<float>(); }
|| requires(T&& buffer) { std::forward<T>(buffer).template mutable_as<float>(); };
static_assert(GivesBytes<Buffer&> && GivesBytes<const Buffer&> && !GivesBytes<Buffer> && !GivesBytes<const Buffer>);

}  // namespace

TEST_CASE("a view of a named source reads its numbers; a temporary of what is itself a view may go") {
  const Weight<float> w = Weight<float>::Ones(8, 8);
  const Linear<float> layer(w);
  const WeightView view(layer.source());
  const QuantizedMatrix<Nf4<64>> q = quantize<Nf4<64>>(layer.source());
  const WeightView blocks = q;
  float out[2] = {};
  view.decode(7, 1, 7, 1, out, 1);
  blocks.decode(7, 1, 7, 1, out + 1, 1);
  CHECK(out[0] == 1.0f);
  CHECK(out[1] == 1.0f);
}
