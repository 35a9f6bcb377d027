#include <doctest/doctest.h>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/quant.hpp>

#include "support/files.hpp"

using namespace lowrank;
using safetensors::File;

namespace {

constexpr const char* state_name = "p.weight.quant_state.bitsandbytes__nf4";
constexpr const char* plain_state = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [3, 40]})";
constexpr const char* nested_state =
    R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [3, 40], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5})";

StoredTensor text_tensor(std::string name, std::string_view text) {
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  return make_tensor<std::uint8_t>(std::move(name), {static_cast<Index>(bytes.size())}, bytes);
}
StoredTensor floats(std::string name, Index size, float value) {
  const std::vector<float> values(static_cast<std::size_t>(size), value);
  return make_tensor<float>(std::move(name), {size}, values);
}

/// A layer "p" [3, 40] with two blocks: all codes 15, a map that holds its index times `unit`.
std::vector<StoredTensor> layer(bool nested, std::string_view state, float unit = 1) {
  std::vector<float> map(16), nested_map(256);
  for (std::size_t i = 0; i < 16; ++i) map[i] = static_cast<float>(i) * unit;
  for (std::size_t i = 0; i < 256; ++i) nested_map[i] = static_cast<float>(i);
  const std::vector<std::uint8_t> codes(60, 0xff), scales{2, 3};
  std::vector<StoredTensor> tensors{text_tensor(state_name, state), make_tensor<std::uint8_t>("p.weight", {60, 1}, codes),
                                    make_tensor<float>("p.weight.quant_map", {16}, map)};
  if (nested) {
    tensors.push_back(make_tensor<std::uint8_t>("p.weight.absmax", {2}, scales));
    tensors.push_back(floats("p.weight.nested_absmax", 1, 10));
    tensors.push_back(make_tensor<float>("p.weight.nested_quant_map", {256}, nested_map));
  } else {
    tensors.push_back(floats("p.weight.absmax", 2, 2));
  }
  return tensors;
}

std::string complaint_about(const std::vector<StoredTensor>& tensors) {
  const test::TemporaryFolder folder;
  safetensors::write(folder / "x.safetensors", tensors);
  const File file = File::open(folder / "x.safetensors");
  return test::complaint([&] { bitsandbytes::load(file, "p"); });
}

void check_complaint(const std::vector<StoredTensor>& tensors, std::string_view part) {
  const std::string complaint = complaint_about(tensors);
  CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  CHECK(complaint.find("x.safetensors") != complaint.npos);
}

}  // namespace

TEST_CASE("bitsandbytes: the maps of the file are used, plain and nested") {
  const test::TemporaryFolder folder;
  safetensors::write(folder / "plain", layer(false, plain_state, 3));
  safetensors::write(folder / "nested", layer(true, nested_state));
  const File plain = File::open(folder / "plain"), nested = File::open(folder / "nested");
  CHECK(bitsandbytes::contains(plain, "p"));
  CHECK_FALSE(bitsandbytes::contains(plain, "q"));
  const Weight<float> w = dequantize(bitsandbytes::load_as<Nf4<64>>(plain, "p"));
  CHECK(w.rows() == 3);
  CHECK((w.array() == 15.0f * 3.0f * 2.0f).all());
  const Weight<float> v = dequantize(bitsandbytes::load_as<Nf4<64, DoubleQuant>>(nested, "p"));
  CHECK(v(0, 0) == 15.0f * (2 * 10 + 0.5f));
  CHECK(v(2, 39) == 15.0f * (3 * 10 + 0.5f));  // the second block, short
  CHECK(std::holds_alternative<QuantizedMatrix<Nf4<64, DoubleQuant>>>(bitsandbytes::load(nested, "p")));
  CHECK_THROWS_WITH_AS(bitsandbytes::load_as<Nf4<64>>(nested, "p"),
                       doctest::Contains("is nf4 with blocks of 64, nested, but nf4 with blocks of 64, plain was asked for"), FormatError);
  CHECK_THROWS_WITH_AS(bitsandbytes::load(plain, "q"), doctest::Contains("has no quant_state"), FormatError);
}

TEST_CASE("bitsandbytes: every layer of a saved model loads") {
  const File file = File::open(LOWRANK_GOLDEN_DIR "/tiny_llama_nf4/model.safetensors");
  int layers = 0;
  for (const auto& tensor : file.tensors()) {
    if (!tensor.name.ends_with("__nf4")) continue;
    const std::string prefix = tensor.name.substr(0, tensor.name.find(".weight.quant_state"));
    std::visit([](const auto& matrix) { CHECK(matrix.rows() * matrix.cols() > 0); }, bitsandbytes::load(file, prefix));
    ++layers;
  }
  CHECK(layers == 14);
}

TEST_CASE("bitsandbytes: a quant_state that lies is refused, each with its reason") {
  CHECK(complaint_about(layer(false, plain_state)).empty());
  const auto with = [](std::string_view from, std::string_view to) {
    std::string state = nested_state;
    const auto at = state.find(from);
    REQUIRE(at != state.npos);
    return layer(true, state.replace(at, from.size(), to));
  };
  check_complaint(layer(true, ""), "not valid JSON");
  check_complaint(layer(true, "[]"), "must be a JSON object");
  check_complaint(layer(true, std::string(nested_state) + "x"), "not valid JSON");
  check_complaint(with("nf4", "fp4"), "quant_type is \"fp4\" but must be nf4");
  for (const char* block : {"63", "16", "8192", "-64", "64.0", "\"64\""})
    check_complaint(with(": 64", std::string(": ") + block), "blocksize is");
  check_complaint(with("bfloat16", "int8"), "dtype is \"int8\"");
  for (const char* shape : {"[3]", "[3, 40, 1]", "[0, 40]", "[-3, 40]", "[3.0, 40]", "[4294967296, 4294967296]", "7"})
    check_complaint(with("[3, 40]", shape), "shape is");
  check_complaint(with("[3, 40]", "[3, 41]"), "weight has 60 bytes but shape [3, 41] needs 62");
  check_complaint(with("[3, 40]", "[9223372036854775807, 1]"), "shape is");
  check_complaint(with("256", "128"), "nested_blocksize is 128 but must be 256");
  check_complaint(with("float32", "float16"), "nested_dtype is");
  check_complaint(with("0.5", "1e300"), "nested_offset is");
  check_complaint(with("0.5", "\"0.5\""), "nested_offset is");
  check_complaint(with("\"dtype\"", "\"kind\""), "unknown key \"kind\"");
  check_complaint(layer(true, plain_state), "unexpected tensor");
  check_complaint(layer(false, nested_state), "absmax\" is F32 [2] but must be U8 [2]");
}

TEST_CASE("bitsandbytes: tensors that are missing, of another size or not finite are refused by name") {
  for (std::size_t i = 0; i < 6; ++i) {
    auto tensors = layer(true, nested_state);
    const std::string name = tensors[i].name;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
    check_complaint(tensors, i == 0 ? "no quant_state" : "no tensor \"" + name + '"');
  }
  auto tensors = layer(false, plain_state);
  tensors.back() = floats("p.weight.absmax", 3, 2);
  check_complaint(tensors, "\"p.weight.absmax\" is F32 [3] but must be F32 [2]");
  tensors.back() = floats("p.weight.absmax", 2, std::numeric_limits<float>::quiet_NaN());
  check_complaint(tensors, "not finite");
  tensors = layer(false, plain_state);
  tensors.push_back(text_tensor("p.weight.quant_state.bitsandbytes__fp4", plain_state));
  check_complaint(tensors, "has two quant_state tensors");
  tensors.back() = text_tensor("p.weight.extra", "x");
  check_complaint(tensors, "unexpected tensor \"p.weight.extra\"");
}
