#include <doctest/doctest.h>

#include <map>
#include <set>
#include <tuple>

#include <lowrank/io/gguf_lora.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/mlx.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/quant.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"

using namespace lowrank;
using Json = nlohmann::json;

// Good adapters, changed at random (always the same way). A reader either refuses them with a lowrank::Error, or what it returns is exactly
// what the changed files say: every tensor, its bytes, the scale that the configuration gives it. So nothing is ever left out in silence.

namespace {

constexpr int all_rounds = 1000;  // a format

/// Name, type, shape and bytes of every tensor of a safetensors file.
using Content = std::set<std::tuple<std::string, DType, std::vector<Index>, std::string>>;
Content content_of(const std::vector<StoredTensor>& tensors) {
  Content content;
  for (const auto& t : tensors) content.emplace(t.name, t.dtype, t.shape, std::string(t.bytes.as<char>(), t.bytes.size()));
  return content;
}
Content content_of(const std::filesystem::path& path) { return content_of(safetensors::File::open(path).tensors()); }

std::string bytes_of(const StoredTensor& tensor) { return {tensor.bytes.as<char>(), tensor.bytes.size()}; }

/// Reads `rounds` damaged adapters; `check` proves what was accepted. Refusals must be one-line errors that begin with an operation.
template <class Damage, class Check>
void fuzz(std::uint64_t seed, int rounds, const Damage& damage, const Check& check) {
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    const test::TemporaryFolder folder(test::memory_place());
    Random random(seed, static_cast<std::uint64_t>(round));
    damage(folder.path(), random);
    const std::string complaint = test::complaint([&] { check(folder.path()); });
    refused += !complaint.empty();
    if (!complaint.empty() && (!complaint.starts_with('[') || complaint.find('\n') != complaint.npos)) FAIL_CHECK(complaint);
  }
  CHECK(refused >= rounds / 4);
  CHECK(refused < rounds);
}

/// Writes both files of a folder, with one of them changed: its structure twice out of three times, else its bytes.
void write_damaged(const std::filesystem::path& folder, const std::string& config, const std::vector<StoredTensor>& tensors,
                   const char* tensors_name, Random& random) {
  const bool in_config = random.below(2) == 0, in_structure = random.below(3) > 0;
  std::string text = config;
  if (in_config) text = in_structure ? test::damaged(Json::parse(config), random).dump() : test::damaged(config, random);
  test::write_file(folder / "adapter_config.json", text);
  try {
    safetensors::write(folder / tensors_name, in_config || !in_structure ? tensors : test::damaged(tensors, random));
  } catch (const Error&) {  // two tensors of one name: no file can hold them
    safetensors::write(folder / tensors_name, {});
  }
  if (in_config || in_structure) return;
  const std::string bytes = test::read_file(folder / tensors_name);
  const std::size_t head = std::min<std::size_t>(bytes.size(), random.below(2) == 0 ? bytes.size() : 1024);
  test::write_file(folder / tensors_name, test::damaged(bytes.substr(0, head), random) + bytes.substr(head));
}

}  // namespace

TEST_CASE("damaged PEFT adapters are refused, or loaded and saved as they are") {
  for (const std::string name : {"patterns", "dora_r8", "lora_bias_r8", "embed_r4", "rslora_r16"}) {
    CAPTURE(name);
    const std::filesystem::path golden = std::filesystem::path(LOWRANK_GOLDEN_DIR "/adapters") / name;
    const std::string config = test::read_file(golden / "adapter_config.json");
    const auto tensors = safetensors::File::open(golden / "adapter_model.safetensors").tensors();
    fuzz(
        1, all_rounds / 5,
        [&](const auto& folder, Random& random) { write_damaged(folder, config, tensors, "adapter_model.safetensors", random); },
        [&](const auto& folder) {
          const Adapter adapter = peft::load(folder);
          peft::save(adapter, folder / "again");
          CHECK(content_of(folder / "again/adapter_model.safetensors") == content_of(folder / "adapter_model.safetensors"));
          const Json before = Json::parse(test::read_file(folder / "adapter_config.json"));
          CHECK(Json::parse(test::read_file(folder / "again/adapter_config.json")) == before);
          const Adapter again = peft::load(folder / "again");
          for (const auto& [path, layer] : adapter.layers) {
            CHECK(again.layers.at(path).scale == layer.scale);
            CHECK(layer.scale != 0);
          }
          if (!before.contains("alpha_pattern") || before["alpha_pattern"].empty()) {
            const double alpha =
                before.contains("lora_alpha") && !before["lora_alpha"].is_null() ? before["lora_alpha"].get<double>() : 8.0;
            const bool stabilized = before.value("use_rslora", Json(false)) == true;
            for (const auto& [path, layer] : adapter.layers) CHECK(layer.scale == lora_scale(layer.rank(), alpha, stabilized));
          }
        });
  }
}

TEST_CASE("damaged mlx-lm adapters are refused, or loaded as they are") {
  std::vector<StoredTensor> tensors;
  Random numbers(3);
  const auto random_tensor = [&](std::string name, std::vector<Index> shape) {
    StoredTensor tensor{"", DType::f32, std::move(shape), {}};
    std::vector<float> values(static_cast<std::size_t>(tensor.size()));
    for (float& x : values) x = static_cast<float>(numbers.below(1000)) / 500 - 1;
    return make_tensor<float>(std::move(name), tensor.shape, values);
  };
  for (const char* block : {"0", "1"})
    for (const char* module : {"self_attn.q_proj", "mlp.down_proj"}) {
      const std::string path = concat("model.layers.", block, '.', module);
      tensors.push_back(random_tensor(path + ".lora_a", {6, 4}));
      tensors.push_back(random_tensor(path + ".lora_b", {4, 5}));
      tensors.push_back(random_tensor(path + ".m", {5}));
    }
  const std::string config =
      R"({"fine_tune_type": "dora", "num_layers": 4, "lora_parameters": {"rank": 4, "scale": 2.5, "dropout": 0.0, "keys": ["self_attn.q_proj"]}})";
  fuzz(
      2, all_rounds, [&](const auto& folder, Random& random) { write_damaged(folder, config, tensors, "adapters.safetensors", random); },
      [&](const auto& folder) {
        const Adapter adapter = mlx::load(folder);
        const Json said = Json::parse(test::read_file(folder / "adapter_config.json"));
        const auto file = safetensors::File::open(folder / "adapters.safetensors");
        std::size_t count = 0;
        for (const auto& [path, layer] : adapter.layers) {
          CHECK(to_weight(layer.a()).transpose() == to_weight(file.at(path + ".lora_a")));
          CHECK(to_weight(layer.b()).transpose() == to_weight(file.at(path + ".lora_b")));
          CHECK(layer.scale == said["lora_parameters"]["scale"].get<double>());
          if (const auto* m = layer.find("lora_magnitude_vector")) CHECK(bytes_of(*m) == bytes_of(file.at(path + ".m")));
          count += static_cast<Index>(layer.tensors.size());
        }
        CHECK(count == file.tensors().size());
      });
}

TEST_CASE("damaged GGUF adapters are refused, or loaded as they are") {
  const gguf::LoraBase base{"llama",
                            {{"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", 32, 8, 2},
                             {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj", 32, 6},
                             {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj", 32, 6},
                             {"token_embd.weight", "model.embed_tokens", 11, 32, 0, true}}};
  Adapter good;
  for (const auto& m : base.modules) {
    const Weight<float> a = Weight<float>::Random(3, m.in), b = Weight<float>::Random(m.out, 3);
    good.layers[m.path] = lora_tensors(from_weight("", a), from_weight("", b), 2.0, m.is_embedding);
  }
  const test::TemporaryFolder place;
  gguf::save_adapter(good, base, place / "good.gguf");
  const auto source = gguf::File::open(place / "good.gguf");
  const std::string bytes = test::read_file(place / "good.gguf");
  const auto damage = [&](const auto& folder, Random& random) {
    if (random.below(3) == 0) {
      const std::size_t head = std::min<std::size_t>(bytes.size(), 1024);
      test::write_file(folder / "x.gguf", test::damaged(bytes.substr(0, head), random) + bytes.substr(head));
      return;
    }
    gguf::Metadata metadata = source.metadata();
    std::vector<StoredTensor> tensors;
    for (const auto& t : source.tensors()) tensors.push_back({t.name, DType::f32, t.shape, t.bytes});
    if (random.below(3) == 0) {
      auto& [key, value] = metadata[static_cast<std::size_t>(random.below(static_cast<Index>(metadata.size())))];
      if (random.below(3) == 0)
        test::detail::damage_name(key, random);
      else
        value = random.below(2) == 0 ? gguf::Value(std::string("x")) : gguf::Value(static_cast<float>(random.below(3)));
    } else {
      tensors = test::damaged(tensors, random);
    }
    std::vector<gguf::Tensor> changed;
    for (const auto& t : tensors)
      changed.push_back({t.name,
                         t.dtype == DType::f16    ? GgmlType::f16
                         : t.dtype == DType::bf16 ? GgmlType::bf16
                         : t.dtype == DType::f32  ? GgmlType::f32
                                                  : GgmlType::i32,
                         t.shape, t.bytes});
    try {
      gguf::write(folder / "x.gguf", metadata, changed);
    } catch (const Error&) {  // a name twice: no file can hold it
      test::write_file(folder / "x.gguf", "");
    }
  };
  fuzz(3, all_rounds, damage, [&](const auto& folder) {
    const Adapter adapter = gguf::load_adapter(folder / "x.gguf", base);
    const gguf::File file = gguf::File::open(folder / "x.gguf");
    const double alpha = file.get_or<float>("adapter.lora.alpha", 0.0f);
    CHECK(2 * adapter.layers.size() == file.tensors().size());
    for (const auto& m : base.modules) {
      if (!adapter.layers.contains(m.path)) continue;
      const ModuleTensors& layer = adapter.layers.at(m.path);
      CHECK(layer.scale == (alpha == 0 ? 1.0 : alpha / static_cast<double>(layer.rank())));
      const auto floats = gguf::to_floats(file.tensor(m.tensor + ".lora_b"));
      const Weight<float> b = to_weight(layer.b());
      double sum = 0, raw = 0;
      for (Index i = 0; i < b.size(); ++i)
        sum += b.data()[i] * (1.0 + static_cast<double>(i % layer.rank())),
            raw += floats[static_cast<std::size_t>(i)] * (1.0 + static_cast<double>(i % layer.rank()));
      CHECK(sum == doctest::Approx(raw));  // rows may have moved within their head
      const Weight<float> a = m.is_embedding ? Weight<float>(to_weight(layer.a()).transpose()) : to_weight(layer.a());
      const auto first = gguf::to_floats(file.tensor(m.tensor + ".lora_a"));
      CHECK(std::equal(first.begin(), first.end(), a.data(), a.data() + a.size()));
    }
  });
}
