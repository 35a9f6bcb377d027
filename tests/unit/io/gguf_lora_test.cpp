#include <doctest/doctest.h>

#include <limits>
#include <memory>

#include <lowrank/io/gguf_lora.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/quant.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {

StoredTensor ramp(std::vector<Index> shape, float step = 0.125f) {
  StoredTensor tensor{"", DType::f32, std::move(shape), {}};
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * step - 1;
  return make_tensor<float>("", tensor.shape, values);
}

/// q with 2 heads of 4 rows, v, and a table of embeddings.
gguf::LoraBase base() {
  return {"llama",
          {{"blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj", 5, 8, 2},
           {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj", 5, 6},
           {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj", 5, 6},
           {"token_embd.weight", "model.embed_tokens", 11, 5, 0, true}}};
}

Adapter adapter() {
  Adapter adapter;
  adapter.layers["model.layers.0.self_attn.q_proj"] = lora_tensors(ramp({2, 5}), ramp({8, 2}), 3.0);
  adapter.layers["model.layers.0.self_attn.v_proj"] = lora_tensors(ramp({2, 5}), ramp({6, 2}), 3.0);
  adapter.layers["model.embed_tokens"] = lora_tensors(ramp({2, 11}), ramp({5, 2}), 3.0, true);
  return adapter;
}

Weight<float> update(const ModuleTensors& layer) { return static_cast<float>(layer.scale) * to_weight(layer.b()) * to_weight(layer.a()); }

/// A file by its parts, which tests change one at a time.
struct Parts {
  std::shared_ptr<test::TemporaryFolder> folder = std::make_shared<test::TemporaryFolder>();
  gguf::Metadata metadata;
  std::vector<gguf::Tensor> tensors;

  explicit Parts(const Adapter& from = adapter()) {
    gguf::save_adapter(from, base(), *folder / "x.gguf");
    const auto file = gguf::File::open(*folder / "x.gguf");
    metadata = file.metadata();
    tensors = file.tensors();
  }
  gguf::Tensor& at(std::string_view name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  }
  void set(const std::string& key, gguf::Value value) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    metadata.emplace_back(key, std::move(value));
  }
  Adapter load() const {
    gguf::write(*folder / "y.gguf", metadata, tensors);
    return gguf::load_adapter(*folder / "y.gguf", base());
  }
  void refused(std::string_view part) const {
    const std::string complaint = test::complaint([&] { load(); });
    CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
    CHECK(complaint.starts_with("[gguf::load_adapter] "));
  }
};

void not_saved(const Adapter& adapter, std::string_view part) {
  const test::TemporaryFolder folder;
  const std::string complaint = test::complaint([&] { gguf::save_adapter(adapter, base(), folder / "x.gguf"); });
  CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  CHECK_FALSE(std::filesystem::exists(folder / "x.gguf"));
}

}  // namespace

TEST_CASE("gguf adapters: what is saved is loaded, to the byte") {
  const Adapter before = adapter(), after = Parts().load();
  REQUIRE(after.layers.size() == 3);
  for (const auto& [path, layer] : before.layers) {
    const ModuleTensors& again = after.layers.at(path);
    CHECK(again.scale == layer.scale);
    CHECK(again.is_embedding == layer.is_embedding);
    CHECK(again.a().shape == layer.a().shape);
    CHECK(std::ranges::equal(again.a().bytes.bytes(), layer.a().bytes.bytes()));
    CHECK(std::ranges::equal(again.b().bytes.bytes(), layer.b().bytes.bytes()));
  }
  CHECK(after.config.rank == 2);
  CHECK(after.config.alpha == 6);
}

TEST_CASE("gguf adapters: the file has the names, shapes and rows that llama.cpp expects") {
  Parts parts;
  CHECK(parts.at("blk.0.attn_q.weight.lora_a").shape == std::vector<Index>{2, 5});
  CHECK(parts.at("token_embd.weight.lora_a").shape == std::vector<Index>{11, 2});
  CHECK(parts.at("token_embd.weight.lora_b").shape == std::vector<Index>{5, 2});
  const auto rows = gguf::to_floats(parts.at("blk.0.attn_q.weight.lora_b"));
  const auto plain = to_floats(ramp({8, 2}));
  const std::vector<Index> order{0, 2, 1, 3, 4, 6, 5, 7};  // row 2j + p of a head is row 2p + j
  for (std::size_t i = 0; i < 8; ++i) CHECK(rows[2 * i] == plain[2 * static_cast<std::size_t>(order[i])]);
  const auto file = gguf::File::open(*parts.folder / "x.gguf");
  CHECK(file.get<std::string>("general.type") == "adapter");
  CHECK(file.get<std::string>("general.architecture") == "llama");
  CHECK(file.get<std::string>("adapter.type") == "lora");
  CHECK(file.get<float>("adapter.lora.alpha") == 6.0f);
}

TEST_CASE("gguf adapters: another scale, rank or element type keeps the update") {
  Adapter mixed = adapter();
  ModuleTensors& v = mixed.layers["model.layers.0.self_attn.v_proj"];
  v = lora_tensors(ramp({3, 5}), ramp({6, 3}), 0.7);
  const Adapter after = Parts(mixed).load();
  CHECK(after.config.alpha == 6);
  CHECK(after.layers.at("model.layers.0.self_attn.v_proj").scale == 2);
  CHECK(update(after.layers.at("model.layers.0.self_attn.v_proj")).isApprox(update(v), 1e-6f));
  CHECK(update(after.layers.at("model.layers.0.self_attn.q_proj")) == update(mixed.layers.at("model.layers.0.self_attn.q_proj")));

  const std::vector<BFloat16> brains(12, BFloat16(1.5f));
  const std::vector<Half> halves(10, Half(0.25f));
  const std::vector<double> doubles(16, 0.1);
  mixed = adapter();
  mixed.layers["model.layers.0.self_attn.v_proj"] =
      lora_tensors(make_tensor<Half>("", {2, 5}, halves), make_tensor<BFloat16>("", {6, 2}, brains), 3);
  mixed.layers["model.layers.0.self_attn.q_proj"].b() = make_tensor<double>("", {8, 2}, doubles);
  const Adapter typed = Parts(mixed).load();
  CHECK(typed.layers.at("model.layers.0.self_attn.v_proj").a().dtype == DType::f16);
  CHECK(typed.layers.at("model.layers.0.self_attn.v_proj").b().dtype == DType::bf16);
  CHECK(typed.layers.at("model.layers.0.self_attn.q_proj").b().dtype == DType::f32);
  CHECK(update(typed.layers.at("model.layers.0.self_attn.v_proj")) == update(mixed.layers.at("model.layers.0.self_attn.v_proj")));
}

TEST_CASE("gguf adapters: alpha that is absent or 0 means the scale 1") {
  Parts parts;
  parts.set("adapter.lora.alpha", 0.0f);
  CHECK(parts.load().layers.at("model.embed_tokens").scale == 1);
  std::erase_if(parts.metadata, [](const auto& entry) { return entry.first == "adapter.lora.alpha"; });
  CHECK(parts.load().layers.at("model.embed_tokens").scale == 1);
  CHECK(parts.load().config.alpha == 2);
}

TEST_CASE("gguf adapters: Q8_0 tensors are read") {
  gguf::LoraBase base{"llama", {{"blk.0.attn_v.weight", "v", 64, 32}}};
  const Weight<float> a = Weight<float>::Random(32, 64), b = Weight<float>::Random(32, 32);
  const auto qa = quantize<Q8_0>(a), qb = quantize<Q8_0>(b);
  const test::TemporaryFolder folder;
  const gguf::Metadata metadata{
      {"general.architecture", std::string("llama")}, {"general.type", std::string("adapter")}, {"adapter.type", std::string("lora")}};
  gguf::write(folder / "x", metadata,
              std::vector<gguf::Tensor>{{"blk.0.attn_v.weight.lora_a", GgmlType::q8_0, {32, 64}, qa.storage().blocks()},
                                        {"blk.0.attn_v.weight.lora_b", GgmlType::q8_0, {32, 32}, qb.storage().blocks()}});
  const Adapter adapter = gguf::load_adapter(folder / "x", base);
  CHECK(to_weight(adapter.layers.at("v").a()) == dequantize(qa));
  CHECK(to_weight(adapter.layers.at("v").b()) == dequantize(qb));
}

TEST_CASE("gguf adapters: files of another kind or base are refused with the first mismatch") {
  Parts parts;
  parts.set("general.type", std::string("model"));
  parts.refused("general.type is \"model\" but must be \"adapter\"; is this a model?");
  parts = Parts(), parts.set("adapter.type", std::string("control"));
  parts.refused("adapter.type is \"control\"");
  parts = Parts(), parts.set("general.architecture", std::string("gemma"));
  parts.refused("general.architecture is \"gemma\" but must be \"llama\"");
  parts = Parts(), parts.set("adapter.lora.alpha", std::numeric_limits<float>::quiet_NaN());
  parts.refused("adapter.lora.alpha is nan");
  parts = Parts(), parts.set("adapter.lora.alpha", std::string("6"));
  CHECK_THROWS_WITH_AS(parts.load(), doctest::Contains("\"adapter.lora.alpha\" is string"), FormatError);
  parts = Parts(), parts.set("adapter.alora.invocation_tokens", gguf::Array{std::vector<std::uint32_t>{1}});
  parts.refused("the key \"adapter.alora.invocation_tokens\" is not supported");
  for (const char* name : {"blk.0.attn_v.weight.lora_c", "blk.0.attn_norm.weight", "output.bias"}) {
    parts = Parts(), parts.at("blk.0.attn_v.weight.lora_b").name = name;
    parts.refused(concat("unexpected tensor \"", name, '"'));
  }
  parts = Parts(), parts.tensors.erase(parts.tensors.begin());
  parts.refused("missing tensor \"token_embd.weight.lora_a\"");
  parts = Parts(), parts.tensors.clear();
  parts.refused("no adapter tensor");
  parts = Parts();
  for (const char* half : {".lora_a", ".lora_b"})
    parts.at(std::string("blk.0.attn_v.weight") + half).name = std::string("blk.7.attn_v.weight") + half;
  parts.refused("\"blk.7.attn_v.weight.lora_a\" changes \"blk.7.attn_v.weight\", which the base does not have");
}

TEST_CASE("gguf adapters: tensors of the wrong shape, type or numbers are refused by name") {
  const auto change = [](const char* name, std::vector<Index> shape, std::string_view part, GgmlType type = GgmlType::f32) {
    Parts parts;
    const auto size = static_cast<std::size_t>(gguf::byte_count(type, shape).value());
    parts.at(name) = {name, type, std::move(shape), Buffer::allocate(size)};
    parts.refused(part);
  };
  change("blk.0.attn_q.weight.lora_a", {2, 6}, "\"blk.0.attn_q.weight.lora_a\" is [2, 6] but must be [2, 5]");
  change("blk.0.attn_q.weight.lora_a", {3, 5}, "\"blk.0.attn_q.weight.lora_a\" is [3, 5] but must be [2, 5]");
  change("blk.0.attn_q.weight.lora_b", {10, 2}, "\"blk.0.attn_q.weight.lora_b\" is [10, 2] but must be [8, 2]");
  change("blk.0.attn_q.weight.lora_b", {16}, "is [16] but must be a matrix");
  change("token_embd.weight.lora_a", {2, 11}, "\"token_embd.weight.lora_a\" is [2, 11] but must be [11, 2]");
  change("blk.0.attn_q.weight.lora_b", {8, 32}, "\"blk.0.attn_q.weight.lora_b\" is Q4_0; adapters are read in", GgmlType::q4_0);
  Parts parts;
  Buffer bytes = Buffer::allocate(48);
  bytes.mutable_as<float>()[3] = std::numeric_limits<float>::infinity();
  parts.at("blk.0.attn_v.weight.lora_b").bytes = bytes;
  parts.refused("\"blk.0.attn_v.weight.lora_b\" holds inf at position 3");
}

TEST_CASE("gguf adapters: what the format cannot hold is not written") {
  const auto with = [](const auto& change) {
    Adapter changed = adapter();
    change(changed, changed.layers["model.layers.0.self_attn.v_proj"]);
    return changed;
  };
  not_saved(with([](Adapter&, ModuleTensors& v) { v.tensors["lora_magnitude_vector"] = ramp({6}); }),
            "v_proj has the tensor lora_magnitude_vector, but GGUF adapters hold a product of two factors");
  not_saved(with([](Adapter&, ModuleTensors& v) { v.tensors["lora_B.bias"] = ramp({6}); }), "v_proj has the tensor lora_B.bias");
  not_saved(with([](Adapter& all, ModuleTensors&) {
              all.saved.push_back({"lm_head.weight", DType::f32, {1}, Buffer::allocate(4)});
            }),
            "a full copy, \"lm_head.weight\"");
  not_saved(with([](Adapter&, ModuleTensors& v) { v.a() = ramp({2, 4}); }), "v_proj has A [2, 4], B [6, 2] but W is [6, 5] in the base");
  not_saved(with([](Adapter&, ModuleTensors& v) { v.a() = ramp({3, 5}); }), "but A must be [r, in] and B [out, r]");
  not_saved(with([](Adapter&, ModuleTensors& v) { v.scale = std::numeric_limits<double>::infinity(); }), "the scale inf");
  not_saved(with([](Adapter& all, ModuleTensors& v) { all.layers["lm_head"] = v; }), "changes lm_head, which the base does not have");
  not_saved({}, "changes no module");
  CHECK_NOTHROW(gguf::check_adapter(adapter(), base(), "x.gguf"));
  CHECK_THROWS_AS(gguf::check_adapter(Adapter(), base(), "x.gguf"), ValueError);
  Adapter idle;
  idle.layers["model.layers.0.self_attn.v_proj"] = lora_tensors(ramp({2, 5}), ramp({6, 2}), 0.0);
  not_saved(idle, "every scale is 0");
}

TEST_CASE("gguf adapters: through PEFT's files and back the tensors stay as they were") {
  const test::TemporaryFolder folder;
  Adapter before = adapter();
  before.layers.erase("model.embed_tokens");
  gguf::save_adapter(before, base(), folder / "a.gguf");
  const Adapter read = gguf::load_adapter(folder / "a.gguf", base());
  CHECK(std::get<std::vector<std::string>>(read.config.target_modules) ==
        std::vector<std::string>{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"});  // not in layer 1
  peft::save(read, folder / "peft");
  gguf::save_adapter(peft::load(folder / "peft"), base(), folder / "b.gguf");
  CHECK(test::read_file(folder / "a.gguf") == test::read_file(folder / "b.gguf"));
}
