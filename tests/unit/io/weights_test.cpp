#include <doctest/doctest.h>

#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/safetensors_matrix.hpp>
#include <lowrank/io/weights.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/q4_0.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"

using namespace lowrank;

namespace {

const std::vector<float> weights_six{1, 2, 3, 4, 5, 6};

StoredTensor weights_tensor(std::string name, std::vector<Index> shape = {2, 3}) {
  return make_tensor<float>(std::move(name), std::move(shape), weights_six);
}

Weight<float> weights_numbers(const AnyMatrix& w) {
  Weight<float> numbers(w.rows(), w.cols());
  w.decode(0, w.rows(), 0, w.cols(), numbers.data(), w.cols());
  return numbers;
}

/// Two shards: a in the first, b and c in the second, as an index may say or not.
class ShardedFolder {
 public:
  ShardedFolder() {
    safetensors::write(folder_ / "one.safetensors", std::vector{weights_tensor("a")});
    safetensors::write(folder_ / "two.safetensors", std::vector{weights_tensor("b"), weights_tensor("c", {6})});
  }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path operator/(std::string_view name) const { return folder_ / name; }

  void index(const std::map<std::string, std::string>& files) const { index(nlohmann::json{{"weight_map", files}}.dump()); }
  void index(const std::string& text) const { test::write_file(folder_ / "model.safetensors.index.json", text); }
  std::string complaint() const {
    return test::complaint([&] { load_weights(path()); });
  }

 private:
  test::TemporaryFolder folder_;
};

#define CHECK_SAYS(complaint, text)                                            \
  do {                                                                         \
    const std::string said = complaint;                                        \
    CHECK_MESSAGE(said.find(text) != said.npos, said, " does not say ", text); \
  } while (false)

}  // namespace

TEST_CASE("weights of a GGUF file: matrices in its formats, vectors as floats, by whatever name the file has") {
  const test::TemporaryFolder folder;
  const Weight<float> w = Weight<float>::Random(3, 32);
  const auto q = quantize<Q4_0>(w);
  const std::vector<gguf::Tensor> tensors{{"blk.0.attn_q.weight", GgmlType::q4_0, {3, 32}, q.storage().blocks()},
                                          {"blk.0.attn_norm.weight", GgmlType::f32, {6}, weights_tensor("").bytes},
                                          {"blk.0.ffn.weight", GgmlType::f32, {2, 3}, weights_tensor("").bytes},
                                          {"conv", GgmlType::f32, {1, 2, 3}, weights_tensor("").bytes}};
  gguf::write(folder / "x.safetensors", {{"general.architecture", std::string("mine")}}, tensors);
  Weights weights;
  CHECK(weights.size() == 0);
  weights = load_weights(folder / "x.safetensors");
  CHECK(weights.names() == std::vector<std::string>{"blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn.weight", "conv"});
  CHECK(weights.contains("conv"));
  CHECK_FALSE(weights.contains("con"));
  CHECK(weights.shape("conv") == std::vector<Index>{1, 2, 3});
  CHECK(weights.tensor("conv").dtype == DType::f32);
  CHECK(weights.vector("blk.0.attn_norm.weight") == Eigen::Map<const Column<float>>(weights_six.data(), 6));
  AnyLinear layer{weights.matrix("blk.0.attn_q.weight")};
  const AnyLinear dense{weights.matrix("blk.0.ffn.weight")};
  weights = Weights();  // the layers keep the mapping
  CHECK(weights_numbers(layer.get_if<SourceLinear<AnyMatrix>>()->weight()) == dequantize(q));
  CHECK(dense(Activation<float>::Ones(3, 1)) == Activation<float>{{6}, {15}});
}

TEST_CASE("weights: what a name does not hold is an error that names it, and the nearest") {
  const test::TemporaryFolder folder;
  safetensors::write(folder / "x", std::vector{weights_tensor("model.layers.0.q_proj.weight"), weights_tensor("model.norm.weight", {6}),
                                               weights_tensor("lm_head.bias", {6}), weights_tensor("cube", {1, 2, 3})});
  const Weights weights = load_weights(folder / "x");
  CHECK_SAYS(test::complaint([&] { weights.matrix("model.layers.0.q_prj.weight"); }),
             "has no tensor \"model.layers.0.q_prj.weight\" among its 4; the nearest names are \"model.layers.0.q_proj.weight\"");
  CHECK_SAYS(test::complaint([&] { weights.matrix("model.norm.weight"); }), "tensor \"model.norm.weight\" is [6]; a matrix has two");
  CHECK_SAYS(test::complaint([&] { weights.matrix("cube"); }), "tensor \"cube\" is [1, 2, 3]; a matrix has two");
  CHECK_SAYS(test::complaint([&] { weights.vector("model.layers.0.q_proj.weight"); }), "is [2, 3]; a vector has one dimension");
  CHECK_SAYS(test::complaint([&] { Weights().vector("a"); }), "has no tensor \"a\" among its 0");
}

TEST_CASE("safetensors::matrix gives each dense type where it lies") {
  const auto check_type = [](auto zero, double tolerance) {
    using Element = decltype(zero);
    std::vector<Element> numbers;
    for (const float x : weights_six) numbers.push_back(static_cast<Element>(x));
    const StoredTensor tensor = make_tensor<Element>("w", {2, 3}, numbers);
    const AnyMatrix matrix = safetensors::matrix(tensor);
    CHECK(matrix.view().data() == tensor.bytes.data());
    CHECK(matrix.bytes() == tensor.bytes.size());
    const AnyLinear layer(matrix);
    const Activation<float> y = layer(Activation<float>::Ones(3, 2));
    CHECK(std::abs(y(1, 1) - 15) <= tolerance);
    CHECK(layer.transposed_product(Activation<float>::Ones(2, 1))(2, 0) == 9.0f);
  };
  check_type(0.0f, 0);
  check_type(0.0, 0);
  check_type(Half(), 0);
  check_type(BFloat16(), 0);
  CHECK_SAYS(test::complaint([] {
               safetensors::matrix(make_tensor<std::int32_t>("w", {1, 1}, std::vector<std::int32_t>{1}));
             }),
             "tensor \"w\" is I32; readable are F32");
  CHECK_SAYS(test::complaint([] { safetensors::matrix({"w", DType::f32, {2, 4}, weights_tensor("").bytes}); }), "has 24 bytes, not those");
  CHECK_SAYS(test::complaint([] {
               safetensors::matrix({"w", DType::f32, {-2, -3}, weights_tensor("").bytes});
             }),
             "has 24 bytes, not those");
  constexpr Index huge = Index{1} << 62;
  CHECK_SAYS(test::complaint([] { safetensors::matrix({"w", DType::f32, {huge, 4}, {}}); }), "has 0 bytes, not those");
}

TEST_CASE("weights of a folder: model.safetensors, with 4-bit weights of bitsandbytes as single ones") {
  const Weights plain = load_weights(LOWRANK_GOLDEN_DIR "/tiny_llama"), four = load_weights(LOWRANK_GOLDEN_DIR "/tiny_llama_nf4");
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  CHECK(plain.names() == four.names());
  CHECK(plain.shape(name) == four.shape(name));
  const auto file = safetensors::File::open(LOWRANK_GOLDEN_DIR "/tiny_llama_nf4/model.safetensors");
  const AnyMatrix wanted = bitsandbytes::load_weight(file, "model.layers.0.self_attn.q_proj");
  CHECK(weights_numbers(four.matrix(name)) == weights_numbers(wanted));
  CHECK(four.matrix(name).bytes() < plain.matrix(name).bytes());
  CHECK_SAYS(test::complaint([&] { four.tensor(name); }), "is in 4 bits of bitsandbytes, not dense");
}

TEST_CASE("weights of a folder: shards, as the index lists them") {
  const ShardedFolder folder;
  folder.index({{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}});
  const Weights weights = load_weights(folder.path());
  CHECK(weights.names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(weights_numbers(weights.matrix("b"))(1, 2) == 6);
  CHECK(describe(weights) == "Weights of " + path_text(folder.path()) + ": 3 tensors");
}

TEST_CASE("weights of a folder: index and shards that disagree are refused by name") {
  const ShardedFolder folder;
  CHECK_SAYS(folder.complaint(), "has neither model.safetensors nor model.safetensors.index.json");
  folder.index({{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "three.safetensors"}});
  CHECK_SAYS(folder.complaint(), "names the shard \"three.safetensors\", which is not there");
  folder.index({{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}, {"d", "two.safetensors"}});
  CHECK_SAYS(folder.complaint(), "tensor \"d\" is not in the shard \"two.safetensors\"");
  folder.index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  CHECK_SAYS(folder.complaint(), "tensor \"c\" is in the shard \"two.safetensors\" but the index says nothing of it");
  folder.index({{"a", "two.safetensors"}, {"b", "two.safetensors"}, {"c", "one.safetensors"}});
  CHECK_SAYS(folder.complaint(), "tensor \"a\" is in the shard \"one.safetensors\" but the index says otherwise");
  safetensors::write(folder / "one.safetensors", std::vector{weights_tensor("a"), weights_tensor("b")});
  folder.index({{"a", "one.safetensors"}, {"b", "one.safetensors"}, {"c", "two.safetensors"}});
  CHECK_SAYS(folder.complaint(), "tensor \"b\" occurs in two shards, \"one.safetensors\" and \"two.safetensors\"");
  folder.index({{"a", "../one.safetensors"}});
  CHECK_SAYS(folder.complaint(), "the file of \"a\" is \"../one.safetensors\" but must be a name of 1 to 255 bytes");
  folder.index("{\"weight_map\": 3}");
  CHECK_SAYS(folder.complaint(), "has no weight_map");
  folder.index("[]");
  CHECK_SAYS(folder.complaint(), "is [] but must be an object");
  folder.index("{\"weight_map\": {\"a\": 3}}");
  CHECK_SAYS(folder.complaint(), "the file of \"a\" is 3 but must be a name");
}

TEST_CASE("weights: files are told apart by what they hold") {
  const test::TemporaryFolder folder;
  const auto refusal = [&](std::string_view bytes) {
    test::write_file(folder / "model.gguf", bytes);
    return test::complaint([&] { load_weights(folder / "model.gguf"); });
  };
  CHECK_SAYS(refusal(""), "it is neither GGUF nor safetensors");
  CHECK_SAYS(refusal("hello, world"), "begins with \"hello, w\": it is neither GGUF nor safetensors");
  CHECK_SAYS(refusal("PK\x03\x04 and more"), "is a zip archive, as PyTorch saves");
  CHECK_SAYS(refusal("GGUF"), "[gguf]");
  CHECK_SAYS(test::complaint([&] { load_weights(folder / "absent"); }), "cannot open");
  gguf::write(folder / "part", {{"split.no", std::uint16_t{1}}, {"split.count", std::uint16_t{3}}}, std::vector<gguf::Tensor>{});
  CHECK_SAYS(test::complaint([&] { load_weights(folder / "part"); }), "is part 2 of 3 of a model; give the first one");
}

TEST_CASE("weights: damaged indices and shards are read or refused, nothing else") {
  const ShardedFolder folder;
  folder.index({{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}});
  const test::TemporaryFolder place(test::memory_place());
  for (const char* name : {"model.safetensors.index.json", "one.safetensors", "two.safetensors"})
    std::filesystem::copy(folder / name, place / name);
  Random random(7);
  int accepted = 0, rounds = 0;
  for (const char* file : {"model.safetensors.index.json", "two.safetensors"}) {
    const std::string bytes = test::read_file(folder / file);
    for (int round = 0; round < 600; ++round, ++rounds) {
      test::write_file(place / file, test::damaged(bytes, random));
      const std::string said = test::complaint([&] {
        const Weights weights = load_weights(place.path());
        for (const std::string& name : weights.names()) {
          const StoredTensor tensor = weights.tensor(name);
          test::touch(tensor.bytes.bytes());
        }
      });
      accepted += said.empty();
      if (!said.empty() && !said.starts_with('[')) FAIL_CHECK(said);
    }
    test::write_file(place / file, bytes);
  }
  CHECK(accepted < rounds / 2);
}
