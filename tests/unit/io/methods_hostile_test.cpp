#include <doctest/doctest.h>

#include <limits>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/nn/linear.hpp>
#include <lowrank/update/set.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"

using namespace lowrank;
using Json = nlohmann::json;

// Adapters of PEFT's other methods, damaged: each is refused with a lowrank::Error, by reading it or by binding it to its model's layers,
// or does what its changed files say. Never a crash, and never more memory than the files have numbers.

namespace {

const char* const method_folders[] = {"vera_r16", "vera_unsaved_r16", "ia3",     "oft_b16", "oft_b16_neumann",
                                      "hra_r8",   "miss_r8",          "adalora", "loha_r4", "lokr_r4"};

std::filesystem::path methods_folder(const std::string& name) { return std::filesystem::path(LOWRANK_GOLDEN_DIR "/methods") / name; }

/// The projections of the tiny Llama.
struct TinyLayers {
  std::vector<AdaptedLinear> layers;
  std::vector<NamedLayer> named;

  TinyLayers() {
    const auto file = safetensors::File::open(LOWRANK_GOLDEN_DIR "/tiny_llama/model.safetensors");
    std::vector<std::string> paths;
    for (const StoredTensor& tensor : file.tensors()) {
      if (!tensor.name.ends_with("_proj.weight")) continue;
      AnyLinear layer(Linear<float>(to_weight(tensor)));
      layer.set_trainable(false);
      layers.push_back(AdaptedLinear(std::move(layer)));
      paths.push_back(tensor.name.substr(0, tensor.name.rfind('.')));
    }
    for (std::size_t i = 0; i < layers.size(); ++i) named.push_back({paths[i], &layers[i]});
  }
};

TinyLayers& model() {
  static TinyLayers layers;
  return layers;
}

/// Reads, binds and runs what lies in a folder.
void use(const std::filesystem::path& folder) {
  UpdateSet set = lowrank::apply(peft::load(folder), model().named);
  for (std::size_t s = 0; s < set.slots.size(); ++s) {
    if (!set.slots[s]) continue;
    const AdaptedLinear& layer = model().layers[s];
    const Activation<float> x = Activation<float>::Constant(layer.in_features(), 2, 0.5f);
    CHECK(layer.forward(x, set.at(static_cast<Index>(s))).rows() == layer.out_features());
  }
}

void write(const std::filesystem::path& folder, const Json& config, const std::vector<StoredTensor>& tensors) {
  test::write_file(folder / "adapter_config.json", config.dump());
  safetensors::write(folder / "adapter_model.safetensors", tensors);
}

/// What is said against these files, in one line that begins with an operation; empty where nothing is.
std::string complaint_about(const Json& config, const std::vector<StoredTensor>& tensors) {
  const test::TemporaryFolder folder(test::memory_place());
  write(folder.path(), config, tensors);
  const std::string said = test::complaint([&] { use(folder.path()); });
  CHECK((said.empty() || (said.starts_with('[') && said.find('\n') == said.npos)));
  return said;
}

template <class F>
void for_each_method(const F& f) {
  for (const std::string name : method_folders) {
    CAPTURE(name);
    f(name, Json::parse(test::read_file(methods_folder(name) / "adapter_config.json")),
      safetensors::File::open(methods_folder(name) / "adapter_model.safetensors").tensors());
  }
}

}  // namespace

TEST_CASE("a module's tensor that is missing, cut, turned, of whole numbers or not finite is an error") {
  for_each_method([](const std::string& name, const Json& config, const std::vector<StoredTensor>& good) {
    CHECK(complaint_about(config, good).empty());
    for (std::size_t i = 0; i < good.size(); ++i) {
      CAPTURE(good[i].name);
      if (good[i].name.find(".1.") != std::string::npos) continue;  // one layer of two
      std::vector<StoredTensor> tensors = good;
      tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
      CHECK(complaint_about(config, tensors) != "");
      const auto changed = [&](const StoredTensor& tensor) {
        tensors = good;
        tensors[i] = tensor;
        return complaint_about(config, tensors);
      };
      const std::vector<float> values = to_floats(good[i]);
      const auto as = [&](std::vector<Index> shape, std::span<const float> numbers) {
        return make_tensor<float>(good[i].name, std::move(shape), numbers);
      };
      std::vector<Index> shape = good[i].shape;
      shape.insert(shape.begin(), 1);
      CHECK(changed(as(shape, values)) != "");
      CHECK(changed(as({}, std::span(values).first(1))) != "");
      shape = good[i].shape;
      if (name.find("vera") == std::string::npos || shape.size() == 1) {  // a shared projection may be larger than a layer needs
        shape[0] -= 1;
        const auto left = static_cast<std::size_t>(StoredTensor{"", DType::f32, shape, {}}.size());
        CHECK(changed(as(shape, std::span(values).first(left))) != "");
      }
      const std::vector<std::int64_t> whole(values.size(), 1);
      CHECK(changed(make_tensor<std::int64_t>(good[i].name, good[i].shape, whole)) != "");
      std::vector<float> infinite = values;
      infinite.back() = std::numeric_limits<float>::infinity();
      CHECK(changed(as(good[i].shape, infinite)).find("inf") != std::string::npos);
      if (good[i].shape.size() == 2 && good[i].shape[0] != good[i].shape[1])
        CHECK((changed(as({good[i].shape[1], good[i].shape[0]}, values)) != "" || name == "ia3"));
    }
  });
}

TEST_CASE("sizes that the tensors do not have are refused before memory is taken for them") {
  for_each_method([](const std::string&, const Json& good, const std::vector<StoredTensor>& tensors) {
    const Json numbers[] = {0, -1, 3, 1.5, 1e9, 2147483647, 4294967296u, std::uint64_t{1} << 63, 1e300};
    for (const char* key : {"r", "init_r", "oft_block_size", "num_cayley_neumann_terms", "mini_r", "decompose_factor"}) {
      if (!good.contains(key)) continue;
      for (const Json& number : numbers) {
        CAPTURE(key);
        CAPTURE(number.dump());
        Json config = good;
        config[key] = number;
        complaint_about(config, tensors);  // refused, or of no effect on what is there
        const bool is_rank = (std::string(key) == "r" && good["peft_type"] != "OFT" && good["peft_type"] != "ADALORA") ||
                             std::string(key) == "init_r" || (std::string(key) == "oft_block_size" && number != -1);
        if (is_rank && number != good[key]) CHECK(complaint_about(config, tensors) != "");
      }
    }
  });
}

TEST_CASE("a value of a wrong type is an error for every key that counts") {
  for_each_method([](const std::string&, const Json& good, const std::vector<StoredTensor>& tensors) {
    const Json wrong[] = {"8", true, 3, Json::array({1}), Json::object({{"x", "y"}})};
    for (const Field& field : find_method(good["peft_type"].get<std::string>(), {})->fields()) {
      if (std::holds_alternative<std::monostate>(field.standard)) continue;
      const std::string key(field.key);
      for (const Json& value : wrong) {
        CAPTURE(key);
        CAPTURE(value.dump());
        const bool is_right = (std::holds_alternative<bool>(field.standard) && value.is_boolean()) ||
                              (std::holds_alternative<double>(field.standard) && value.is_number()) ||
                              (std::holds_alternative<std::string>(field.standard) && value.is_string()) ||
                              (key.starts_with("init_") && value.is_string());
        Json config = good;
        config[key] = value;
        const std::string said = complaint_about(config, tensors);
        if (!is_right) CHECK(said.find(key) != std::string::npos);
      }
    }
  });
}

TEST_CASE("damaged adapters of every method are refused, or bound and run as they are") {
  for_each_method([](const std::string& name, const Json& config, const std::vector<StoredTensor>& good) {
    constexpr int rounds = 100;
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      Random random(std::hash<std::string>{}(name), static_cast<std::uint64_t>(round));
      const bool in_config = random.below(2) == 0;
      try {
        refused +=
            !complaint_about(in_config ? test::damaged(config, random) : config, in_config ? good : test::damaged(good, random)).empty();
      } catch (const Error&) {  // two tensors of one name: no file can hold them
        ++refused;
      }
    }
    CHECK(refused >= rounds / 4);
    CHECK(refused < rounds);
  });
}
