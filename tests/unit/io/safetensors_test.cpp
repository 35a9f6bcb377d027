#include <doctest/doctest.h>

#include <lowrank/io/safetensors.hpp>

#include "support/files.hpp"

using namespace lowrank;
using safetensors::File;

namespace {

std::string file_of(const std::string& header, std::size_t data_size, std::uint64_t claimed = 0) {
  const std::uint64_t size = claimed ? claimed : header.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + header + std::string(data_size, '\0');
}

std::string safetensors_complaint(const std::string& bytes) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x.safetensors", bytes);
  return test::complaint([&] {
    const File file = File::open(folder / "x.safetensors");
    for (const auto& tensor : file.tensors()) test::touch(tensor.bytes.bytes());
  });
}

#define CHECK_COMPLAINT(bytes, text)                                  \
  do {                                                                \
    const std::string complaint = safetensors_complaint(bytes);       \
    CHECK_MESSAGE(complaint.find(text) != complaint.npos, complaint); \
    CHECK(complaint.find("x.safetensors") != complaint.npos);         \
  } while (false)

std::vector<StoredTensor> some_tensors() {
  const std::vector<float> floats{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> bytes{1, 2, 3};
  const std::vector<BFloat16> brains{BFloat16(1.5f)};
  return {make_tensor<std::uint8_t>("z", {3}, bytes), make_tensor<float>("b.\"quoted\"\n", {2, 3}, floats),
          make_tensor<BFloat16>("scalar", {}, brains), make_tensor<float>("a", {6}, floats), make_tensor<float>("empty", {0, 7}, {})};
}

}  // namespace

TEST_CASE("safetensors: what is written is read") {
  const test::TemporaryFolder folder;
  const auto tensors = some_tensors();
  safetensors::write(folder / "x", tensors, {{"format", "pt"}, {"a", "é"}});
  const File file = File::open(folder / "x");
  CHECK(file.metadata() == safetensors::Metadata{{"format", "pt"}, {"a", "é"}});
  CHECK(file.tensors().size() == 5);
  CHECK(file.tensors().front().name == "a");  // F32 before BF16 before U8, then by name
  CHECK(file.tensors().back().name == "z");
  for (const auto& tensor : tensors) {
    const auto& read = file.at(tensor.name);
    CHECK(read.dtype == tensor.dtype);
    CHECK(read.shape == tensor.shape);
    CHECK(std::ranges::equal(read.bytes.bytes(), tensor.bytes.bytes()));
  }
  CHECK_FALSE(file.contains("c"));
  CHECK_THROWS_WITH_AS(file.at("c"), doctest::Contains("no tensor \"c\" among its 5"), FormatError);
}

TEST_CASE("safetensors: golden files are written back byte by byte") {
  const test::TemporaryFolder folder;
  for (const char* name : {"/quant4.safetensors", "/gguf_blocks.safetensors", "/tiny_llama/model.safetensors",
                           "/tiny_llama_nf4/model.safetensors", "/adapters/patterns/adapter_model.safetensors"}) {
    const std::string path = std::string(LOWRANK_GOLDEN_DIR) + name;
    const File file = File::open(path);
    safetensors::write(folder / "copy", file.tensors(), file.metadata());
    CHECK(test::read_file(folder / "copy") == test::read_file(path));
  }
}

TEST_CASE("safetensors: a file cut at any byte is refused") {
  const test::TemporaryFolder folder;
  safetensors::write(folder / "x", some_tensors());
  const std::string bytes = test::read_file(folder / "x");
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK(safetensors_complaint(bytes.substr(0, size)).starts_with("[safetensors] "));
  CHECK(safetensors_complaint(bytes).empty());
  CHECK_COMPLAINT(bytes + '\0', "follow the header");
}

TEST_CASE("safetensors: headers that lie are refused, each with its reason") {
  CHECK_COMPLAINT("", "0 bytes are too few");
  CHECK_COMPLAINT("GGUF and more text", "is this a safetensors file?");
  CHECK_COMPLAINT(file_of("{}", 0, std::uint64_t{1} << 63), "more than the 100000000");
  CHECK_COMPLAINT(file_of("{}", 0, 100'000'000), "only 2 follow");
  CHECK_COMPLAINT(file_of("[]", 0), "does not begin with '{'");
  CHECK_COMPLAINT(file_of("{\"a\":", 0), "not valid JSON");
  CHECK_COMPLAINT(file_of("{\"\xff\":1}", 0), "not valid JSON");
  CHECK_COMPLAINT(file_of(R"({"a":1})", 0), "must be an object of dtype, shape and data_offsets");
  CHECK_COMPLAINT(file_of(R"({"__metadata__":{"a":1}})", 0), "must be a string");
  CHECK_COMPLAINT(file_of(R"({"__metadata__":[{"a":{}}]})", 0), "must be an object of strings");
  CHECK(safetensors_complaint(file_of("{}", 0)).empty());
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += '[';
  CHECK_COMPLAINT(file_of(deep, 0), "nested more than");
}

TEST_CASE("safetensors: tensors that lie are refused, each with its reason") {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"("t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + '}';
  };
  const auto one = [&](const char* dtype, const char* shape, const char* offsets) {
    return file_of('{' + entry(dtype, shape, offsets) + '}', 8);
  };
  CHECK(safetensors_complaint(one("\"F32\"", "[2]", "[0,8]")).empty());
  CHECK(safetensors_complaint(one("\"F4\"", "[16]", "[0,8]")).empty());
  CHECK_COMPLAINT(one("\"F31\"", "[2]", "[0,8]"), "unknown dtype \"F31\"");
  CHECK_COMPLAINT(one("7", "[2]", "[0,8]"), "dtype must be a string");
  CHECK_COMPLAINT(one("\"F4\"", "[15]", "[0,8]"), "no whole number of bytes");
  for (const char* shape : {"[-2]", "[2.0]", "[\"2\"]", "[9223372036854775808]", "[null]", "2", "{}"})
    CHECK_COMPLAINT(one("\"F32\"", shape, "[0,8]"), "whole numbers");
  for (const char* shape : {"[4294967296,4294967296]", "[9223372036854775807]", "[0,4294967296,4294967296]"})
    CHECK_COMPLAINT(one("\"F32\"", shape, "[0,8]"), "more than 63 bits");
  CHECK_COMPLAINT(one("\"F32\"", "[3]", "[0,8]"), "needs 12 bytes");
  CHECK_COMPLAINT(one("\"F32\"", "[2]", "[8,0]"), "begin <= end");
  CHECK_COMPLAINT(one("\"F32\"", "[2]", "[0]"), "begin <= end");
  CHECK_COMPLAINT(one("\"F32\"", "[2]", "[8,16]"), "begins at byte 8 but 0 bytes come before it");
  CHECK_COMPLAINT(one("\"F32\"", "[4]", "[0,16]"), "ends at byte 16 of 8");
  CHECK_COMPLAINT(one("\"F32\"", "[2]", "[9223372036854775800,9223372036854775807]"), "needs 8 bytes");
  CHECK_COMPLAINT(one("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]"), "begins at byte");
  const std::string t = entry("\"F32\"", "[1]", "[0,4]"), u = R"("u":{"dtype":"F32","shape":[1],"data_offsets":)";
  CHECK_COMPLAINT(file_of('{' + t + ',' + t + '}', 8), "occurs twice");
  CHECK_COMPLAINT(file_of('{' + t + ',' + u + "[2,6]}}", 8), "may not overlap");
  CHECK_COMPLAINT(file_of('{' + t + ',' + u + "[0,4]}}", 8), "may not overlap");
  CHECK_COMPLAINT(file_of('{' + t + '}', 8), "cover 4 bytes but 8 follow");
  CHECK(safetensors_complaint(file_of('{' + t + ',' + u + "[4,8]}}", 8)).empty());
  CHECK_COMPLAINT(file_of(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"stride":[2]}})", 8), "must be an object of dtype");
}

TEST_CASE("safetensors: shapes of more than 64 dimensions are refused") {
  const auto ones = [](int count) {
    std::string list = "1";
    for (int i = 1; i < count; ++i) list += ",1";
    return R"({"a":{"dtype":"U8","shape":[)" + list + R"(],"data_offsets":[0,1]}})";
  };
  CHECK(safetensors_complaint(file_of(ones(64), 1)).empty());
  CHECK_COMPLAINT(file_of(ones(65), 1), "the shape has 65 dimensions but 64 at most are read");
  const test::TemporaryFolder folder;
  const std::vector<StoredTensor> deep{{"a", DType::u8, std::vector<Index>(65, 1), Buffer::allocate(1)}};
  CHECK_THROWS_WITH_AS(safetensors::write(folder / "x", deep), doctest::Contains("has 65 dimensions"), ShapeError);
}

TEST_CASE("safetensors: tensors at odd addresses are copied to where they can be read") {
  const test::TemporaryFolder folder;
  const std::string header = R"({"t":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})";  // 54 bytes: data at byte 62
  test::write_file(folder / "x", file_of(header, 8));
  const File file = File::open(folder / "x");
  CHECK(reinterpret_cast<std::uintptr_t>(file.at("t").bytes.data()) % 8 == 0);
  CHECK(to_floats(file.at("t")) == std::vector<float>{0});
}

TEST_CASE("safetensors::write: content that no file can hold is refused, and the old file stays") {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x", "old");
  auto tensors = some_tensors();
  const auto refused = [&](const std::vector<StoredTensor>& content) {
    return test::complaint([&] { safetensors::write(folder / "x", content); });
  };
  tensors.push_back(tensors.front());
  CHECK(refused(tensors).find("two tensors are named \"z\"") != std::string::npos);
  tensors.back().name = "\xff";
  CHECK(refused(tensors).find("is not UTF-8") != std::string::npos);
  tensors.back().name = "y";
  tensors.back().shape = {4};
  CHECK(refused(tensors).find("not those of [4] U8") != std::string::npos);
  CHECK(test::read_file(folder / "x") == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}
