#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/peft.hpp>

#include <tests/support/golden.hpp>
#include <tests/support/temporary.hpp>
#include <transformer/generate.hpp>
#include <transformer/load.hpp>
#include <transformer/load_folder.hpp>
#include <transformer/merge_model.hpp>
#include <transformer/merged_weight.hpp>
#include <transformer/open_adapter.hpp>
#include <transformer/save_gguf.hpp>

// Tiny random models of each architecture against transformers and PEFT; tests/golden/make_architectures.py says what the files are.

using namespace lowrank;
using transformer::LoraSet;
using transformer::Transformer;

namespace {

const std::string models = LOWRANK_GOLDEN_DIR "/architectures/";
const std::vector<std::string> families = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "smollm3", "granite", "olmo2"};

/// Largest difference over the largest number.
template <class Values>
double largest_difference(const std::vector<float>& expected, const Values& given) {
  REQUIRE(given.size() == static_cast<Index>(expected.size()));
  const Eigen::Map<const Column<float>> want(expected.data(), given.size()), have(given.data(), given.size());
  return static_cast<double>((want - have).cwiseAbs().maxCoeff() / want.cwiseAbs().maxCoeff());
}

/// What a model has to compute: of its folder, or of a GGUF file where that describes another model.
struct Expected {
  test::GoldenFile file;
  std::string prefix;
  std::vector<std::int32_t> ids = file.ints("ids"), positions = file.ints("positions");

  Expected(const std::string& folder, bool is_gguf) : file(models + folder + "/expected.safetensors") {
    if (is_gguf && file.contains("gguf.logits")) prefix = "gguf.";
  }
  std::vector<float> operator[](const std::string& name) const { return file.floats(prefix + name); }

  std::vector<std::int32_t> targets() const {
    std::vector<std::int32_t> next(ids.begin() + 1, ids.end());
    next.push_back(ignored_target);
    return next;
  }
  /// The columns of those tokens that the file knows.
  Activation<float> known(const Activation<float>& logits) const {
    Activation<float> result(logits.rows(), static_cast<Index>(positions.size()));
    for (std::size_t i = 0; i < positions.size(); ++i) result.col(static_cast<Index>(i)) = logits.col(positions[i]);
    return result;
  }
};

/// The set's gradients in the order of the adapter's file: by module, A before B.
std::vector<float> gradients_in_order(const Transformer& model, LoraSet set, const LoraConfig& config) {
  for (auto& update : set.slots)
    if (update) update.visit_parameters([](Parameter<float>& parameter) { parameter.value = parameter.grad; });
  std::vector<float> all;
  for (const auto& [path, layer] : transformer::to_adapter(model, set, config).layers)
    for (const Weight<float>& values : {to_weight(layer.a()), to_weight(layer.b())})
      all.insert(all.end(), values.data(), values.data() + values.size());
  return all;
}

void check_model(Transformer& model, const Adapter& adapter, const Expected& expected) {
  CHECK(largest_difference(expected["logits"], expected.known(model.logits(expected.ids).value())) < 1e-5);
  LoraSet set = transformer::bind(model, adapter);
  CHECK(largest_difference(expected["adapter.logits"], expected.known(model.logits(expected.ids, 1, {.lora = &set}).value())) < 1e-5);
  for (const bool recompute : {false, true}) {
    for (auto& parameter : transformer::parameters(model, set)) std::ranges::fill(parameter.grad(), 0.0f);
    Tape<float> tape;
    const Var<float> loss = model.loss(expected.ids, expected.targets(), 1, {.tape = &tape, .lora = &set, .recompute = recompute});
    CHECK(static_cast<double>(loss.item()) == doctest::Approx(static_cast<double>(expected["adapter.loss"][0])).epsilon(1e-5));
    tape.backward(loss);
    const std::vector<float> given = gradients_in_order(model, set, adapter.config);
    CHECK(largest_difference(expected["gradients"], Eigen::Map<const Column<float>>(given.data(), static_cast<Index>(given.size()))) <
          1e-4);
  }
}

/// Logits of a text that is read in parts of some tokens.
Activation<float> read_in_parts(Transformer& model, const std::vector<std::int32_t>& ids, const std::vector<std::size_t>& parts) {
  Activation<float> all(model.config.vocabulary, static_cast<Index>(ids.size()));
  transformer::Cache cache;
  std::size_t begin = 0;
  for (const std::size_t part : parts) {
    const auto text = std::span(ids).subspan(begin, part);
    all.middleCols(static_cast<Index>(begin), static_cast<Index>(part)) = model.logits(text, 1, {.cache = &cache}).value();
    begin += part;
  }
  REQUIRE(begin == ids.size());
  return all;
}

}  // namespace

TEST_CASE("each architecture computes what transformers and PEFT compute, from a folder and from a GGUF file") {
  for (const std::string& family : families) {
    CAPTURE(family);
    const Adapter adapter = peft::load(models + family + "/adapter");
    for (const bool is_gguf : {false, true}) {
      CAPTURE(is_gguf);
      Transformer model = transformer::load_model(models + family + (is_gguf ? "/model.gguf" : ""));
      check_model(model, adapter, Expected(family, is_gguf));
    }
  }
}

TEST_CASE("transformers' own configurations leave no field unread") {
  for (const std::string& family : families) {
    CAPTURE(family);
    const std::vector<std::string> none;
    CHECK(transformer::load_model(models + family).config.unread == none);
  }
}

TEST_CASE("each architecture reads a text in parts as at once") {
  for (const std::string& family : families) {
    CAPTURE(family);
    Transformer model = transformer::load_model(models + family);
    const Expected expected(family, false);
    const std::vector<std::size_t> parts = {17, 1, 1, 1, 3, 5};  // phi3 turns by its long factors from 17 tokens on
    CHECK(largest_difference(expected["logits"], expected.known(read_in_parts(model, expected.ids, parts))) < 1e-5);
  }
}

TEST_CASE("a reader of a longrope model turns all keys anew where the text passes the short factors, and on the way back") {
  Transformer model = transformer::load_model(models + "phi3");
  const Expected expected("phi3", false);
  const auto ids = std::span(expected.ids);
  transformer::Reader<> read(model, nullptr);
  read(ids.first(10));
  for (std::size_t t = 10; t < 27; ++t) read(ids.subspan(t, 1));
  const Activation<float> end = read(ids.subspan(27, 1));
  CHECK(read.length() == 28);
  CHECK((end - model.logits(ids).value().rightCols(1)).cwiseAbs().maxCoeff() < 1e-5f * end.cwiseAbs().maxCoeff());
  read.rewind(11);
  CHECK(largest_difference(expected["short.logits"], read(ids.subspan(11, 1))) < 1e-5);
}

TEST_CASE("each architecture's adapters go through a GGUF file, which is the one of llama.cpp's converter") {
  const TemporaryFolder folder;
  for (const std::string& family : families) {
    CAPTURE(family);
    Transformer model = transformer::load_model(models + family + "/model.gguf");
    const Expected expected(family, true);
    const Adapter adapter = transformer::open_adapter(model.config, models + family + "/adapter");
    const auto path = folder / (family + ".gguf");
    transformer::save_gguf_adapter(model.config, adapter, path);
    std::vector<std::filesystem::path> files = {path};
    if (const std::filesystem::path own = models + family + "/adapter.gguf"; std::filesystem::exists(own)) files.push_back(own);
    for (const auto& file : files) {
      CAPTURE(file.string());
      const Adapter read = transformer::open_adapter(model.config, file);
      REQUIRE(read.layers.size() == adapter.layers.size());
      for (const auto& [module, layer] : adapter.layers) {
        CAPTURE(module);
        CHECK(to_weight(read.layers.at(module).a()) == to_weight(layer.a()));
        CHECK(to_weight(read.layers.at(module).b()) == to_weight(layer.b()));
      }
      LoraSet set = transformer::bind(model, read);
      CHECK(largest_difference(expected["adapter.logits"], expected.known(model.logits(expected.ids, 1, {.lora = &set}).value())) < 1e-5);
    }
  }
}

TEST_CASE("a merged model of each architecture computes what the model and its adapter compute") {
  for (const std::string& family : families)
    for (const bool is_gguf : {false, true}) {
      CAPTURE(family);
      CAPTURE(is_gguf);
      const Transformer model = transformer::load_model(models + family + (is_gguf ? "/model.gguf" : ""));
      const Expected expected(family, is_gguf);
      Transformer merged = transformer::merged(model, transformer::bind(model, peft::load(models + family + "/adapter")));
      CHECK(largest_difference(expected["adapter.logits"], expected.known(merged.logits(expected.ids).value())) < 1e-5);
    }
}

TEST_CASE("each architecture's files take an adapter in, and are read again") {
  for (const std::string& family : families)
    for (const bool is_gguf : {false, true}) {
      CAPTURE(family);
      CAPTURE(is_gguf);
      const TemporaryFolder folder;
      const std::filesystem::path source = models + family + (is_gguf ? "/model.gguf" : ""),
                                  out = folder / (is_gguf ? "merged.gguf" : "merged");
      const Transformer model = transformer::load_model(source);
      const LoraSet set = transformer::bind(model, peft::load(models + family + "/adapter"));
      transformer::merge_model(model, set, source, out, {.to = "f32"});
      Transformer merged = transformer::load_model(out);
      const Expected expected(family, is_gguf);
      CHECK(largest_difference(expected["adapter.logits"], expected.known(merged.logits(expected.ids).value())) < 1e-5);
    }
}

TEST_CASE("each architecture over a base in NF4 computes what it computes over the same weights dense") {
  for (const std::string& family : families) {
    CAPTURE(family);
    Transformer nf4 = transformer::load_model(models + family, transformer::Base::nf4);
    Transformer dense = transformer::load_model(models + family, transformer::Base::nf4);
    transformer::convert_base(dense, transformer::Base::fp32);
    const Expected expected(family, false);
    const Activation<float> want = dense.logits(expected.ids).value(), given = nf4.logits(expected.ids).value();
    CHECK((given - want).cwiseAbs().maxCoeff() < 1e-5f * want.cwiseAbs().maxCoeff());
    const Adapter adapter = peft::load(models + family + "/adapter");
    std::vector<float> gradients[2];
    for (Transformer* model : {&dense, &nf4}) {
      LoraSet set = transformer::bind(*model, adapter);
      Tape<float> tape;
      tape.backward(model->loss(expected.ids, expected.targets(), 1, {.tape = &tape, .lora = &set}));
      gradients[model == &nf4] = gradients_in_order(*model, set, adapter.config);
    }
    CHECK(largest_difference(gradients[0], Eigen::Map<const Column<float>>(gradients[1].data(), static_cast<Index>(gradients[1].size()))) <
          1e-4);
  }
}

TEST_CASE("RoPE under each scaling turns as in transformers, short texts and long ones") {
  for (const std::string scaling :
       {"default", "linear", "llama3", "dynamic", "yarn", "yarn_beta", "yarn_mscale", "longrope", "longrope_factor"}) {
    CAPTURE(scaling);
    const TemporaryFolder folder;
    std::filesystem::copy_file(models + "rope/" + scaling + ".json", folder / "config.json");
    std::filesystem::copy_file(models + "rope/model.safetensors", folder / "model.safetensors");
    Transformer model = transformer::load_model(folder.path());
    const Expected expected("rope", false);
    CHECK(largest_difference(expected[scaling + ".logits"], expected.known(model.logits(expected.ids).value())) < 1e-5);
    const Activation<float> brief = model.logits(std::span(expected.ids).first(12)).value().rightCols(1);
    CHECK(largest_difference(expected[scaling + ".short.logits"], brief) < 1e-5);
  }
  Transformer phi = transformer::load_model(models + "phi3");
  const Expected expected("phi3", false);
  CHECK(largest_difference(expected["short.logits"],
                           Activation<float>(phi.logits(std::span(expected.ids).first(12)).value().rightCols(1))) < 1e-5);
  Transformer llama3 = transformer::load_model(models + "rope/llama3.gguf");
  const Expected rope("rope", true);
  CHECK(largest_difference(rope["llama3.logits"], rope.known(llama3.logits(rope.ids).value())) < 1e-5);
}

TEST_CASE("quantized bases of other architectures, Q4_K of llama.cpp and NF4 of bitsandbytes, with an adapter") {
  for (const std::string family : {"qwen2", "gemma3"}) {
    CAPTURE(family);
    Transformer q4_k = transformer::load_model(models + "quantized/" + family + "_q4_k/model.gguf");
    check_model(q4_k, peft::load(models + "quantized/" + family + "_q4_k/adapter"), Expected("quantized/" + family + "_q4_k", false));
    Transformer nf4 = transformer::load_model(models + "quantized/" + family + "_nf4");
    check_model(nf4, peft::load(models + family + "/adapter"), Expected("quantized/" + family + "_nf4", false));
  }
}
