#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/core/random.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant/ggml_formats.hpp>
#include <lowrank/quant/quantized_matrix.hpp>

#include <transformer/quantize_gguf.hpp>

#include <support/files.hpp>

using namespace transformer;
using lowrank::GgmlType;
using lowrank::Index;
using lowrank::test::TemporaryFolder;
namespace fs = std::filesystem;
namespace gguf = lowrank::gguf;

namespace {

gguf::Tensor drawn_tensor(std::string name, std::vector<Index> shape, GgmlType type = GgmlType::f32) {
  Index size = 1;
  for (const Index n : shape) size *= n;
  std::vector<float> values(static_cast<std::size_t>(size));
  lowrank::Random random(static_cast<std::uint64_t>(name.size() + 100));
  for (float& value : values) value = random.normal();
  const auto bytes = lowrank::make_tensor(name, shape, std::span<const float>(values)).bytes;
  if (type == GgmlType::f32) return {std::move(name), type, std::move(shape), bytes};
  const lowrank::AnyMatrix w(lowrank::StoredMatrix<float>(shape[0], shape[1], bytes));
  return gguf::save_matrix(w, std::move(name), type).tensor;
}

/// A file of matrices whose rows divide into blocks of 256, of 32 and of neither, and of what llama.cpp does not quantize.
void write_drawn_gguf(const fs::path& path, bool has_head) {
  std::vector<gguf::Tensor> tensors{
      drawn_tensor("token_embd.weight", {16, 256}),        drawn_tensor("blk.0.attn_norm.weight", {256}),
      drawn_tensor("blk.0.attn_q.weight", {8, 512}),       drawn_tensor("blk.0.ffn_down.weight", {8, 96}),
      drawn_tensor("blk.0.attn_k.weight", {4, 40}),        drawn_tensor("blk.0.ffn_up.weight", {8, 256}, GgmlType::q8_0),
      drawn_tensor("blk.0.ffn_gate_inp.weight", {4, 256}), drawn_tensor("blk.0.attn_q.bias", {8})};
  if (has_head) tensors.push_back(drawn_tensor("output.weight", {16, 256}));
  gguf::write(path, {{"general.architecture", std::string("llama")}, {"general.file_type", std::uint32_t{0}}}, tensors);
}

std::map<std::string, GgmlType> types_of(const fs::path& path) {
  std::map<std::string, GgmlType> types;
  const auto file = gguf::File::open(path);
  for (const auto& tensor : file.tensors()) types[tensor.name] = tensor.type;
  return types;
}

double relative_error(const lowrank::AnyMatrix& w, const lowrank::AnyMatrix& q) {
  lowrank::Weight<float> a(w.rows(), w.cols()), b(w.rows(), w.cols());
  w.decode(0, a.rows(), 0, a.cols(), a.data(), a.cols());
  q.decode(0, b.rows(), 0, b.cols(), b.data(), b.cols());
  return (a - b).norm() / a.norm();
}

void write_importance(const fs::path& path, const std::string& name, const std::vector<float>& values) {
  const Index cols = static_cast<Index>(values.size());
  const std::vector<float> count{1};
  gguf::write(path, {{"general.type", std::string("imatrix")}},
              std::vector<gguf::Tensor>{
                  {name + ".in_sum2", GgmlType::f32, {1, cols}, lowrank::make_tensor("s", {1, cols}, std::span<const float>(values)).bytes},
                  {name + ".counts", GgmlType::f32, {1, 1}, lowrank::make_tensor("c", {1, 1}, std::span<const float>(count)).bytes}});
}

}  // namespace

TEST_CASE("quantize: matrices change their type, rows that do not divide get llama.cpp's other one, everything else stays") {
  const TemporaryFolder folder;
  write_drawn_gguf(folder / "a.gguf", true);
  const auto changed = quantize_gguf(folder / "a.gguf", folder / "b.gguf", {.type = GgmlType::q4_k});
  const auto types = types_of(folder / "b.gguf");
  CHECK(types.at("token_embd.weight") == GgmlType::q4_k);
  CHECK(types.at("output.weight") == GgmlType::q6_k);
  CHECK(types.at("blk.0.attn_q.weight") == GgmlType::q4_k);
  CHECK(types.at("blk.0.ffn_up.weight") == GgmlType::q4_k);
  CHECK(types.at("blk.0.ffn_down.weight") == GgmlType::q5_0);
  CHECK(types.at("blk.0.attn_k.weight") == GgmlType::f16);
  for (const char* name : {"blk.0.attn_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.bias"}) {
    const auto before = gguf::File::open(folder / "a.gguf").tensor(name), after = gguf::File::open(folder / "b.gguf").tensor(name);
    CHECK(after.type == GgmlType::f32);
    CHECK(std::ranges::equal(before.bytes.bytes(), after.bytes.bytes()));
  }
  REQUIRE(changed.size() == 6);
  const auto down = std::find_if(changed.begin(), changed.end(), [](const auto& t) { return t.name == "blk.0.ffn_down.weight"; });
  CHECK(down->wanted == GgmlType::q4_k);
  CHECK(down->stored == GgmlType::q5_0);
  const auto file = gguf::File::open(folder / "b.gguf");
  CHECK(file.get<std::uint32_t>("general.file_type") == 14);
  CHECK(file.get<std::uint32_t>("general.quantization_version") == 2);
  CHECK(file.get<std::string>("general.architecture") == "llama");
}

TEST_CASE("quantize: the head is the token table where there is no other, and --pure leaves it no exception") {
  const TemporaryFolder folder;
  write_drawn_gguf(folder / "a.gguf", false);
  const auto head = [&](GgmlType type, bool pure) {
    quantize_gguf(folder / "a.gguf", folder / "b.gguf", {.type = type, .pure = pure});
    return types_of(folder / "b.gguf").at("token_embd.weight");
  };
  CHECK(head(GgmlType::q2_k, false) == GgmlType::q6_k);
  CHECK(head(GgmlType::q2_k, true) == GgmlType::q2_k);
  CHECK(head(GgmlType::q8_0, false) == GgmlType::q8_0);
  CHECK(head(GgmlType::bf16, false) == GgmlType::bf16);
}

TEST_CASE("quantize: mixtures give more bits where llama.cpp does") {
  const TemporaryFolder folder;
  std::vector<gguf::Tensor> tensors{drawn_tensor("token_embd.weight", {4, 256})};
  for (int layer = 0; layer < 16; ++layer)
    for (const char* part : {"attn_v", "attn_q", "attn_output", "ffn_down"})
      tensors.push_back(drawn_tensor(lowrank::concat("blk.", layer, '.', part, ".weight"), {2, 256}));
  const auto write = [&](std::uint32_t kv_heads) {
    gguf::write(folder / "a.gguf",
                {{"general.architecture", std::string("llama")},
                 {"llama.block_count", std::uint32_t{16}},
                 {"llama.attention.head_count", std::uint32_t{8}},
                 {"llama.attention.head_count_kv", kv_heads}},
                tensors);
  };
  const auto types = [&](const char* mixture, const std::string& part, bool pure = false) {
    quantize_gguf(folder / "a.gguf", folder / "b.gguf", {.mixture = find_mixture(mixture), .pure = pure});
    const auto all = types_of(folder / "b.gguf");
    std::string text;
    for (int layer = 0; layer < 16; ++layer)
      text += lowrank::ggml_traits(all.at(lowrank::concat("blk.", layer, '.', part, ".weight"))).name[1];
    return text;
  };
  write(4);
  CHECK(types("q4_k_m", "attn_v") == "6644644644644666");
  CHECK(types("q4_k_m", "ffn_down") == "6644644644644666");
  CHECK(types("q4_k_m", "ffn_down", true) == std::string(16, '4'));
  CHECK(types("q5_k_m", "attn_v") == "6655655655655666");
  CHECK(types("q4_k_s", "attn_v") == "5555444444444444");
  CHECK(types("q4_k_s", "ffn_down") == "5544444444444444");
  CHECK(types("q3_k_m", "attn_v") == "5544444444444444");
  CHECK(types("q3_k_m", "ffn_down") == "5444444444444444");
  CHECK(types("q3_k_m", "attn_output") == std::string(16, '4'));
  CHECK(types("q3_k_m", "attn_q") == std::string(16, '3'));
  CHECK(types("q3_k_l", "attn_output") == std::string(16, '5'));
  CHECK(types("q2_k_m", "attn_v") == std::string(16, '3'));
  CHECK(types("q2_k_m", "attn_output") == std::string(16, '3'));
  write(2);
  CHECK(types("q2_k_m", "attn_v") == std::string(16, '4'));
  CHECK(types("q2_k_s", "attn_v") == std::string(16, '4'));
  CHECK(types("q2_k_s", "ffn_down") == "4422222222222222");
  CHECK(gguf::File::open(folder / "b.gguf").get<std::uint32_t>("general.file_type") == 21);
  CHECK(types_of(folder / "b.gguf").at("token_embd.weight") == GgmlType::q6_k);
}

TEST_CASE("quantize: every type that is written gives a file whose matrices are near the old ones") {
  const TemporaryFolder folder;
  write_drawn_gguf(folder / "a.gguf", true);
  const auto before = gguf::matrix(gguf::File::open(folder / "a.gguf").tensor("blk.0.attn_q.weight"));
  for (const std::string& name : gguf::writable_types()) {
    CAPTURE(name);
    const auto type = gguf::writable_type(name);
    REQUIRE(type.has_value());
    quantize_gguf(folder / "a.gguf", folder / "b.gguf", {.type = *type, .pure = true});
    const auto file = gguf::File::open(folder / "b.gguf");
    CHECK(file.tensor("blk.0.attn_q.weight").type == *type);
    CHECK(relative_error(before, gguf::matrix(file.tensor("blk.0.attn_q.weight"))) < (name.starts_with("tq") ? 1.0
                                                                                      : name == "q2_k"       ? 0.35
                                                                                      : name == "q3_k"       ? 0.2
                                                                                                             : 0.15));
  }
}

TEST_CASE("quantize: an importance matrix weighs the tensors that it names") {
  const TemporaryFolder folder;
  write_drawn_gguf(folder / "a.gguf", true);
  std::vector<float> importance(512, 0.01f);
  for (std::size_t i = 0; i < 512; i += 7) importance[i] = 10;
  write_importance(folder / "i.gguf", "blk.0.attn_q.weight", importance);
  const auto matrix = gguf::ImportanceMatrix::open(folder / "i.gguf");
  const auto changed = quantize_gguf(folder / "a.gguf", folder / "b.gguf", {.type = GgmlType::q3_k, .importance = &matrix});
  CHECK(std::count_if(changed.begin(), changed.end(), [](const auto& t) { return t.weighed; }) == 1);
  const auto before = gguf::matrix(gguf::File::open(folder / "a.gguf").tensor("blk.0.attn_q.weight"));
  const auto expected = lowrank::quantize<lowrank::Q3K>(before, std::span<const float>(importance));
  const auto after = gguf::File::open(folder / "b.gguf").tensor("blk.0.attn_q.weight");
  CHECK(std::ranges::equal(after.bytes.bytes(), expected.storage().blocks().bytes()));

  write_importance(folder / "other.gguf", "blk.0.attn_q.weight", {1, 2, 3});
  const auto other = gguf::ImportanceMatrix::open(folder / "other.gguf");
  CHECK_THROWS_WITH_AS(quantize_gguf(folder / "a.gguf", folder / "c.gguf", {.importance = &other}),
                       doctest::Contains("is it of another model?"), lowrank::FormatError);
  CHECK_FALSE(fs::exists(folder / "c.gguf"));
  CHECK_THROWS_WITH_AS(quantize_gguf(folder / "a.gguf", folder / "a.gguf", {}), doctest::Contains("--out is the model itself"),
                       lowrank::ValueError);
}
