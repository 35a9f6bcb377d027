#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include <lowrank/adapters/combine.hpp>
#include <lowrank/adapters/merge.hpp>
#include <lowrank/adapters/of_model.hpp>
#include <lowrank/adapters/recompress.hpp>
#include <lowrank/autograd/convolution.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft_config.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/nn/convolution.hpp>
#include <lowrank/nn/dora_linear.hpp>
#include <lowrank/nn/lora_linear.hpp>
#include <lowrank/nn/state.hpp>
#include <lowrank/update/dora.hpp>
#include <lowrank/update/set.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {

StoredTensor numbered(std::string name, std::vector<Index> shape, float first) {
  Index size = 1;
  for (const Index one : shape) size *= one;
  std::vector<float> values(static_cast<std::size_t>(size));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = first + 0.125f * static_cast<float>((7 * i + 3) % 11);
  return make_tensor<float>(std::move(name), std::move(shape), values);
}

/// What PEFT writes for a Conv2d (3 channels, 4 outputs, kernel 2 × 3) and a Conv1d (2 channels, 5 outputs, kernel 3), r = 2, alpha = 6.
struct ConvolutionFolder {
  test::TemporaryFolder folder;
  std::string config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["stem", "head"]})";
  std::vector<StoredTensor> tensors{numbered("base_model.model.head.lora_A.weight", {2, 2, 3}, -1),
                                    numbered("base_model.model.head.lora_B.weight", {5, 2, 1}, 0.5f),
                                    numbered("base_model.model.stem.lora_A.weight", {2, 3, 2, 3}, -0.5f),
                                    numbered("base_model.model.stem.lora_B.weight", {4, 2, 1, 1}, 0.25f)};

  Adapter load() const {
    test::write_file(folder / "adapter_config.json", config);
    safetensors::write(folder / "adapter_model.safetensors", tensors, {{"format", "pt"}});
    return peft::load(folder.path());
  }
  void check_complaint(std::string_view part) const {
    const std::string complaint = test::complaint([&] { load(); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  }
};

/// PEFT's get_delta_weight, without the scale: F.conv2d(A.transpose(0, 1), B).transpose(0, 1), as [4, 3 · 2 · 3].
Weight<float> delta_of_stem(const ConvolutionFolder& f) {
  const std::vector<float> a = to_floats(f.tensors[2]), b = to_floats(f.tensors[3]);
  Weight<float> delta = Weight<float>::Zero(4, 18);
  for (std::size_t out = 0; out < 4; ++out)
    for (std::size_t channel = 0; channel < 3; ++channel)
      for (std::size_t y = 0; y < 2; ++y)
        for (std::size_t x = 0; x < 3; ++x)
          for (std::size_t r = 0; r < 2; ++r)
            delta(static_cast<Index>(out), static_cast<Index>((channel * 2 + y) * 3 + x)) +=
                b[out * 2 + r] * a[((r * 3 + channel) * 2 + y) * 3 + x];
  return delta;
}

/// A model of the two convolutions, their weights [out, channels · kernel] drawn.
struct Convolutions {
  AdaptedLinear stem{AnyLinear(Linear<float>(18, 4, {.seed = 1}))}, head{AnyLinear(Linear<float>(6, 5, {.seed = 2}))},
      last{AnyLinear(Linear<float>(5, 5, {.seed = 3}))};

  std::vector<NamedLayer> named_layers() const {
    return {{.path = "stem", .layer = &stem, .kernel = {2, 3}}, {.path = "head", .layer = &head, .kernel = {3}}, {"last", &last}};
  }
};

void check_shapes(const Adapter& adapter, Index rank) {
  CHECK(adapter.layers.at("stem").a().shape == std::vector<Index>{rank, 3, 2, 3});
  CHECK(adapter.layers.at("stem").b().shape == std::vector<Index>{4, rank, 1, 1});
  CHECK(adapter.layers.at("head").a().shape == std::vector<Index>{rank, 2, 3});
  CHECK(adapter.layers.at("head").b().shape == std::vector<Index>{5, rank, 1});
}

}  // namespace

TEST_CASE("peft: adapters of convolutions are loaded, and written back byte by byte") {
  const ConvolutionFolder f;
  const Adapter adapter = f.load();
  const ModuleTensors& stem = adapter.layers.at("stem");
  CHECK(stem.rank() == 2);
  CHECK(stem.in() == 18);
  CHECK(stem.out() == 4);
  CHECK(stem.scale == 3);
  CHECK(stem.kernel() == std::vector<Index>{2, 3});
  check_shapes(adapter, 2);
  CHECK((to_weight(stem.b()) * to_weight(stem.a()) - delta_of_stem(f)).isZero(1e-5f));
  const test::TemporaryFolder again;
  peft::save(adapter, again / "new");
  CHECK(test::read_file(again / "new/adapter_model.safetensors") == test::read_file(f.folder / "adapter_model.safetensors"));
}

TEST_CASE("peft: a convolution with its adapter computes what PEFT's merged weight does, and goes back to the same file") {
  const ConvolutionFolder f;
  Convolutions model;
  const Conv2dOptions options{.channels = 3, .height = 4, .width = 5, .kernel = {2, 3}, .padding = {1, 0}};
  UpdateSet set = apply(f.load(), model);
  const Activation<float> x =
      Activation<float>::NullaryExpr(options.image(), 2, [](Index i, Index j) { return 0.1f * static_cast<float>(i % 7 - j); });
  const Activation<float> columns = im2col_forward(x, options);
  const auto& w = model.stem.base.get_if<Linear<float>>()->weight().value;
  const Activation<float> expected = (w + 3 * delta_of_stem(f)) * columns;
  const Var<float> y = to_images(model.stem.forward(im2col(Var<float>(x), options), set.at(0)), options.positions());
  CHECK((y.value() - to_images_forward(expected, options.positions())).cwiseAbs().maxCoeff() < 1e-4f);

  const Adapter back = adapter_of(set, model, f.load().config);
  check_shapes(back, 2);
  const test::TemporaryFolder again;
  peft::save(back, again / "new");
  CHECK(test::read_file(again / "new/adapter_model.safetensors") == test::read_file(f.folder / "adapter_model.safetensors"));
}

TEST_CASE("peft: an adapter is merged into a convolution's weight as files hold it, [out, channels, height, width]") {
  const ConvolutionFolder f;
  Convolutions model;
  UpdateSet set = apply(f.load(), model);
  const StoredTensor stored = numbered("stem.weight", {4, 3, 2, 3}, 2);
  const StoredMatrix<float> weight(stored.shape[0], stored.size() / stored.shape[0], stored.bytes);
  const MergedSource sum(weight.source(), set.at(0)->plan({}));
  const StoredMatrix<float> merged = round_to<float>(sum);
  const ConstWeightMap<float> result(merged.buffer().as<float>(), 4, 18);
  CHECK((result - to_weight(stored) - 3 * delta_of_stem(f)).cwiseAbs().maxCoeff() < 1e-5f);
}

TEST_CASE("peft: DoRA of a convolution has its magnitudes as [1, out, 1, 1]") {
  ConvolutionFolder f;
  f.config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["stem"], "use_dora": true})";
  f.tensors.erase(f.tensors.begin(), f.tensors.begin() + 2);
  f.tensors.push_back(numbered("base_model.model.stem.lora_magnitude_vector", {1, 4, 1, 1}, 1));
  Convolutions model;
  model.stem.base.set_trainable(false);
  UpdateSet set = apply(f.load(), model);
  CHECK(set.at(0)->get_if<DoraWeights<float>>()->magnitude.value(0, 0) == to_floats(f.tensors.back())[0]);
  CHECK(adapter_of(set, model, f.load().config).layers.at("stem").at("lora_magnitude_vector").shape == std::vector<Index>{1, 4, 1, 1});
  f.tensors.back().shape = {4};
  f.check_complaint("lora_magnitude_vector is [4] but must be [1, 4, 1, 1]");
}

TEST_CASE("peft: wrong shapes of a convolution's adapter are refused by name") {
  const auto refused = [](std::size_t tensor, std::vector<Index> shape, std::string_view part) {
    ConvolutionFolder f;
    f.tensors[tensor] = numbered(f.tensors[tensor].name, std::move(shape), 0);
    f.check_complaint(part);
  };
  refused(3, {4, 2, 1, 2}, "stem.lora_B.weight is [4, 2, 1, 2] but must be [4, 2, 1, 1]");
  refused(3, {4, 2}, "stem has A [2, 3, 2, 3] and B [4, 2] but both must be matrices, or those of a convolution");
  refused(3, {4, 2, 1}, "but both must be matrices, or those of a convolution");
  refused(3, {4, 1, 1, 1}, "gives it rank 2: A must be [2, in], B [out, 2]; a convolution with groups");
  refused(2, {3, 3, 2, 3}, "gives it rank 2");
  refused(2, {2, 3, 0, 3}, "stem has A [2, 3, 0, 3]");

  const Convolutions model;
  ConvolutionFolder other;
  other.tensors[2] = numbered(other.tensors[2].name, {2, 3, 3, 2}, 0);  // the same numbers in all, another kernel
  CHECK(test::complaint([&] { apply(other.load(), model); }).find("stem.lora_A.weight is [2, 3, 3, 2] but the module takes [2, 3, 2, 3]") !=
        std::string::npos);
}

TEST_CASE("what is made of a convolution's adapter is one of a convolution") {
  const ConvolutionFolder f;
  const Adapter adapter = f.load();
  check_shapes(resize(adapter, RankChoice::rank(1)).adapter, 1);
  const WeightedAdapter both[] = {{&adapter, 0.5}, {&adapter, 0.5}};
  check_shapes(combine(both, {.method = CombineMethod::named("concat")}).adapter, 4);
  Adapter other = adapter;
  other.layers.at("stem").a().shape = {2, 3, 3, 2};
  const WeightedAdapter unlike[] = {{&adapter, 0.5}, {&other, 0.5}};
  CHECK(test::complaint([&] {
          combine(unlike, {.method = CombineMethod::named("concat")});
        }).find("stem is a convolution with the kernel [2, 3] in one adapter and [3, 2] in another") != std::string::npos);
  const Convolutions model;
  check_shapes(to_lora(apply(adapter, model), model, RankChoice::rank(2)).adapter, 2);
}

TEST_CASE("fresh updates of convolutions: by name, of LoRA alone, and not by all-linear") {
  const Convolutions model;
  LoraConfig config = peft::parse_config(R"({"peft_type": "LORA", "r": 2, "target_modules": ["stem", "head"]})", "a test");
  check_shapes(adapter_of(new_updates(model, config, LoraInit::kaiming, 1), model, config), 2);
  config.target_modules = std::string("all-linear");
  CHECK(target_slots(model, config) == std::vector<Index>{2});
  const LoraConfig other = peft::parse_config(R"({"peft_type": "IA3", "target_modules": ["stem"], "feedforward_modules": []})", "a test");
  CHECK(test::complaint([&] { new_updates(model, other, LoraInit::kaiming, 1); }).find("stem is a convolution, which LoRA and DoRA can") !=
        std::string::npos);
}

namespace {

/// The two convolutions as layers of a program's own model.
struct ConvolutionModel {
  Conv2d<LoraLinear<Linear<float>>> stem{LoraLinear{Linear<float>(18, 4), {.rank = 2, .alpha = 6}},
                                         {.channels = 3, .height = 4, .width = 5, .kernel = {2, 3}}};
  Conv1d<DoraLinear<Linear<float>>> head{DoraLinear{Linear<float>(6, 5), {.rank = 2, .alpha = 6}},
                                         {.channels = 2, .length = 7, .kernel = 3}};

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "stem", stem, "head", head);
  }
};

struct StemModel {
  Conv2d<LoraLinear<Linear<float>>> stem = ConvolutionModel{}.stem;

  template <class Visitor>
  void visit_parameters(const Visitor& visitor) {
    visit_named(visitor, "stem", stem);
  }
};

}  // namespace

TEST_CASE("a model's convolutions give adapters in PEFT's shapes, take them back, and have PyTorch's shapes in a state") {
  const ConvolutionFolder f;
  StemModel stem;
  Adapter one = f.load();
  one.layers.erase("head");
  load_adapter(stem, one);
  CHECK(stem.stem.layer().a().value == to_weight(f.tensors[2]));
  const Adapter back = adapter_of(stem);
  CHECK(back.layers.at("stem").a().shape == f.tensors[2].shape);
  CHECK(back.layers.at("stem").b().shape == f.tensors[3].shape);
  CHECK(to_floats(back.layers.at("stem").a()) == to_floats(f.tensors[2]));
  one.layers.at("stem").a().shape = {2, 3, 3, 2};
  CHECK(test::complaint([&] { load_adapter(stem, one); }).find("stem.lora_A.weight is [2, 3, 3, 2] but the layer has [2, 3, 2, 3]") !=
        std::string::npos);

  ConvolutionModel model;
  const Adapter both = adapter_of(model);
  check_shapes(both, 2);
  CHECK(both.layers.at("head").at("lora_magnitude_vector").shape == std::vector<Index>{1, 5, 1});
  std::map<std::string, std::vector<Index>> shapes;
  for (const StateArray& array : state(model)) shapes[array.name] = array.shape;
  CHECK(shapes.at("stem.base_layer.weight") == std::vector<Index>{4, 3, 2, 3});
  CHECK(shapes.at("head.base_layer.weight") == std::vector<Index>{5, 2, 3});
}
