#include <doctest/doctest.h>

#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/quant/ggml_formats.hpp>

#include "support/files.hpp"

using namespace lowrank;

namespace {

template <class T>
std::string raw(T number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(T));
}
std::string text(std::string_view value) { return raw<std::uint64_t>(value.size()) + std::string(value); }
std::string head(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(keys);
}
std::string entry(std::string_view name, std::vector<std::uint64_t> sizes, std::uint32_t type, std::uint64_t offset) {
  std::string out = text(name) + raw(static_cast<std::uint32_t>(sizes.size()));
  for (const std::uint64_t size : sizes) out += raw(size);
  return out + raw(type) + raw(offset);
}
/// The table's bytes, padded, and data behind them.
std::string with_data(std::string bytes, std::size_t data) {
  bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
  return bytes + std::string(data, '\1');
}

std::string gguf_complaint(const std::string& bytes) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x.gguf", bytes);
  return test::complaint([&] {
    const auto file = gguf::File::open(folder / "x.gguf");
    for (const auto& tensor : file.tensors()) test::touch(tensor.bytes.bytes());
  });
}

void check_complaint(const std::string& bytes, std::string_view part) {
  const std::string complaint = gguf_complaint(bytes);
  CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint);
  CHECK(complaint.starts_with("[gguf] "));
  CHECK(complaint.find("x.gguf") != complaint.npos);
}

gguf::Metadata every_type() {
  using gguf::Array;
  return {{"u8", std::uint8_t{200}},
          {"i8", std::int8_t{-7}},
          {"u16", std::uint16_t{60000}},
          {"i16", std::int16_t{-300}},
          {"u32", std::uint32_t{4000000000}},
          {"i32", std::int32_t{-70000}},
          {"f32", 0.5f},
          {"bool", true},
          {"string", std::string("text\nwith lines")},
          {"u64", std::uint64_t{1} << 63},
          {"i64", std::int64_t{-1} << 40},
          {"f64", 1e-300},
          {"strings", Array{std::vector<std::string>{"a", "", "\xff"}}},
          {"bools", Array{std::vector<bool>{true, false}}},
          {"floats", Array{std::vector<float>{1, 2}}},
          {"empty", Array{std::vector<std::int32_t>{}}},
          {"nested", Array{std::vector<Array>{Array{std::vector<std::int16_t>{1, 2}}, Array{std::vector<double>{}}}}}};
}

std::vector<gguf::Tensor> some_gguf_tensors() {
  const auto make = [](const char* name, GgmlType type, std::vector<Index> shape) {
    Buffer bytes = Buffer::allocate(static_cast<std::size_t>(*gguf::byte_count(type, shape)));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes.mutable_as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7);
    return gguf::Tensor{name, type, std::move(shape), std::move(bytes)};
  };
  return {make("q", GgmlType::q4_0, {3, 64}), make("norm", GgmlType::f32, {5}), make("scalar", GgmlType::i8, {}),
          make("k", GgmlType::q8_0, {2, 3, 1, 32})};
}

}  // namespace

TEST_CASE("gguf: what is written is read, every type of metadata and nested arrays included") {
  const test::TemporaryFolder folder;
  gguf::write(folder / "x", every_type(), some_gguf_tensors());
  const auto file = gguf::File::open(folder / "x");
  CHECK(file.version() == 3);
  CHECK(file.metadata() == every_type());
  REQUIRE(file.tensors().size() == 4);
  const auto& k = file.tensor("k");
  CHECK(k.shape == std::vector<Index>{2, 3, 1, 32});
  CHECK(k.rows() == 6);
  CHECK(k.cols() == 32);
  for (const auto& tensor : some_gguf_tensors()) {
    CHECK(file.tensor(tensor.name).type == tensor.type);
    CHECK(std::ranges::equal(file.tensor(tensor.name).bytes.bytes(), tensor.bytes.bytes()));
    CHECK(reinterpret_cast<std::uintptr_t>(file.tensor(tensor.name).bytes.data()) % 32 == 0);
  }
  CHECK(file.find_tensor("v") == nullptr);
  CHECK_THROWS_WITH_AS(file.tensor("v"), doctest::Contains("no tensor \"v\" among its 4"), FormatError);
  CHECK(gguf::to_floats(file.tensor("norm")).size() == 5);
  CHECK_THROWS_WITH_AS(gguf::to_floats(k), doctest::Contains("Q8_0"), FormatError);
}

TEST_CASE("gguf: metadata is read as what fits and refused as what does not") {
  const test::TemporaryFolder folder;
  gguf::write(folder / "x", every_type(), {});
  const auto file = gguf::File::open(folder / "x");
  CHECK(file.get<Index>("u8") == 200);
  CHECK(file.get<std::uint64_t>("u64") == std::uint64_t{1} << 63);
  CHECK(file.get<double>("f32") == 0.5);
  CHECK(file.get<bool>("bool"));
  CHECK(file.get<std::string>("string") == "text\nwith lines");
  CHECK(file.get<std::vector<double>>("floats") == std::vector<double>{1, 2});
  CHECK(file.get<std::vector<std::string>>("strings").size() == 3);
  CHECK(file.get<std::vector<Index>>("empty").empty());
  CHECK(file.get_or<int>("absent", 5) == 5);
  CHECK(file.find("absent") == nullptr);
  CHECK_THROWS_WITH_AS(file.get<int>("absent"), doctest::Contains("no metadata key \"absent\""), FormatError);
  CHECK_THROWS_WITH_AS(file.get<std::uint8_t>("i8"), doctest::Contains("\"i8\" is int8, out of range"), FormatError);
  CHECK_THROWS_AS(file.get<Index>("u64"), FormatError);
  CHECK_THROWS_AS(file.get<int>("f32"), FormatError);
  CHECK_THROWS_AS(file.get<int>("bool"), FormatError);
  CHECK_THROWS_AS(file.get_or<std::string>("u8", ""), FormatError);
  CHECK_THROWS_WITH_AS(file.get<std::vector<int>>("strings"), doctest::Contains("array of 3 string"), FormatError);
  CHECK_THROWS_AS(file.get<std::vector<int>>("u8"), FormatError);
}

TEST_CASE("gguf: version 2 is read, others are refused") {
  CHECK(gguf_complaint(head(0, 0, 2)).empty());
  check_complaint(head(0, 0, 1), "is GGUF version 1 but 2 and 3 are read");
  check_complaint(head(0, 0, 4), "is GGUF version 4");
  check_complaint(head(0, 0, 0x03000000), "is big-endian");
  check_complaint("", "is this a GGUF file?");
  check_complaint("GGML and more", "is this a GGUF file?");
}

TEST_CASE("gguf: a file cut at any byte is refused") {
  const test::TemporaryFolder folder;
  gguf::write(folder / "x", every_type(), some_gguf_tensors());
  const std::string bytes = test::read_file(folder / "x");
  const std::size_t padding = 20;  // of the last tensor: 6 rows of 34 bytes, 204 of 224; a file may end before it
  for (std::size_t size = 0; size < bytes.size() - padding; ++size) CHECK(gguf_complaint(bytes.substr(0, size)).starts_with("[gguf] "));
  for (std::size_t size = bytes.size() - padding; size <= bytes.size(); ++size) CHECK(gguf_complaint(bytes.substr(0, size)).empty());
}

TEST_CASE("gguf: counts and lengths that lie are refused before anything is allocated") {
  constexpr std::uint64_t huge = std::uint64_t{1} << 63;
  check_complaint(head(huge, 0), "claims 9223372036854775808 tensors");
  check_complaint(head(0, ~std::uint64_t{0}), "claims 0 tensors and 18446744073709551615");
  const std::string filler(64, '\0');
  check_complaint(head(0, 1) + raw(huge) + filler, "a metadata key");
  check_complaint(head(0, 1) + text("k") + raw<std::uint32_t>(8) + raw(huge) + filler, "a string of the metadata");
  for (std::uint32_t type = 0; type < 13; ++type)
    check_complaint(head(0, 1) + text("k") + raw<std::uint32_t>(9) + raw(type) + raw(huge) + filler, "an array claims");
  check_complaint(head(0, 1) + text("k") + raw<std::uint32_t>(13) + filler, "unknown metadata type 13");
  check_complaint(head(0, 1) + text("k") + raw<std::uint32_t>(9) + raw<std::uint32_t>(99) + raw<std::uint64_t>(1) + filler,
                  "unknown metadata type 99");
  check_complaint(head(0, 1) + text("k") + raw<std::uint32_t>(7) + '\2' + filler, "a bool is 2");
  check_complaint(head(0, 2) + text("k") + raw<std::uint32_t>(0) + '\1' + text("k") + raw<std::uint32_t>(0) + '\1' + filler,
                  "occurs twice");
  std::string nested = head(0, 1) + text("k") + raw<std::uint32_t>(9);
  for (int i = 0; i < 100'000; ++i) nested += raw<std::uint32_t>(9) + raw<std::uint64_t>(1);
  check_complaint(nested, "nested more than 4 deep");
}

TEST_CASE("gguf: alignments that are no power of two are refused, small ones are read") {
  const auto aligned = [](std::uint32_t alignment) {
    return head(0, 1) + text("general.alignment") + raw<std::uint32_t>(4) + raw(alignment);
  };
  for (const std::uint32_t alignment : {0u, 3u, 33u, 0xffffffffu}) check_complaint(aligned(alignment), "must be a power of two");
  for (const std::uint32_t alignment : {1u, 8u, 64u, 0x80000000u}) CHECK(gguf_complaint(aligned(alignment)).empty());
  check_complaint(head(0, 1) + text("general.alignment") + raw<std::uint32_t>(8) + text("32"), "is string");
  const test::TemporaryFolder folder;
  test::write_file(folder / "x", "GGUF" + raw<std::uint32_t>(3) + raw<std::uint64_t>(1) + raw<std::uint64_t>(1) +
                                     text("general.alignment") + raw<std::uint32_t>(4) + raw<std::uint32_t>(1) + entry("odd", {2}, 0, 0) +
                                     raw(1.5f) + raw(2.5f));
  CHECK(gguf::to_floats(gguf::File::open(folder / "x").tensor("odd")) == std::vector<float>{1.5f, 2.5f});
}

TEST_CASE("gguf: tensors that lie are refused, each with its reason") {
  const auto one = [](std::vector<std::uint64_t> sizes, std::uint32_t type, std::uint64_t offset = 0) {
    return with_data(head(1, 0) + entry("t", std::move(sizes), type, offset), 128);
  };
  CHECK(gguf_complaint(one({32}, 0)).empty());
  check_complaint(one({33}, 0), "needs 132 bytes at offset 0 but the file has 128");
  check_complaint(one({0}, 0), "a dimension of 0");
  check_complaint(one({std::uint64_t{1} << 63}, 0), "a dimension of 9223372036854775808");
  check_complaint(one({1ull << 32, 1ull << 32}, 0), "less than 2^63 bytes");
  check_complaint(one({1ull << 62, 1}, 0), "less than 2^63 bytes");
  check_complaint(one({1, 1, 1, 1, 1}, 0), "has 5 dimensions");
  check_complaint(one({48}, 2), "must be a multiple of 32");
  check_complaint(one({16, 2}, 8), "must be a multiple of 32");
  check_complaint(one({32}, 42), "unknown ggml type 42");
  check_complaint(one({32}, 0xffffffff), "unknown ggml type 4294967295");
  check_complaint(one({32}, 4), "Q4_2 (4), which ggml has withdrawn");
  check_complaint(one({32}, 0, 32), "has offset 32 but 0 follows");
  check_complaint(one({32}, 0, ~std::uint64_t{0}), "has offset 18446744073709551615");
  const auto two = [](std::uint64_t offset, const char* name = "u") {
    return with_data(head(2, 0) + entry("t", {4}, 0, 0) + entry(name, {4}, 0, offset), 64);
  };
  CHECK(gguf_complaint(two(32)).empty());
  check_complaint(two(0), "may not overlap");
  check_complaint(two(16), "may not overlap");
  check_complaint(two(64), "has offset 64 but 32 follows");
  check_complaint(two(32, "t"), "occurs twice");
}

TEST_CASE("ggml types: the table agrees with the numbers of the format") {
  CHECK(ggml_traits(GgmlType::q4_1).name == "Q4_1");
  CHECK(ggml_traits(GgmlType::q6_k).block_bytes == 210);
  CHECK(ggml_traits(GgmlType::tq1_0).name == "TQ1_0");
  CHECK(ggml_traits(GgmlType::nvfp4).block_bytes == 36);
  CHECK(ggml_traits(GgmlType::q1_0).name == "Q1_0");
  CHECK(gguf::byte_count(GgmlType::q4_1, std::vector<Index>{576, 1536}) == 576 * 1536 / 32 * 20);
}

TEST_CASE("gguf::matrix: each readable format, dense numbers, and what is refused") {
  int known = 0;
  for (std::uint32_t number = 0; number < detail::ggml_traits.size(); ++number) {
    const GgmlTraits& traits = detail::ggml_traits[number];
    visit_ggml_format(traits.name, [&]<class Format>(Format) {
      ++known;
      CHECK(traits.block_size == Format::block);
      CHECK(traits.block_bytes == Format::block_bytes);
      const auto bytes = static_cast<std::size_t>(6 * Format::block_bytes);
      const AnyMatrix w = gguf::matrix({"w", static_cast<GgmlType>(number), {3, 2 * Format::block}, Buffer::allocate(bytes)});
      CHECK(w.rows() == 3);
      CHECK(w.cols() == 2 * Format::block);
      CHECK(w.bytes() == bytes);
    });
  }
  CHECK(known == static_cast<int>(std::tuple_size_v<GgmlFormats>));
  const AnyMatrix brain = gguf::matrix({"w", GgmlType::bf16, {2, 5}, Buffer::allocate(20)});
  CHECK(brain.view().kind() == WeightView::Kind::bf16);
  CHECK_THROWS_WITH_AS(gguf::matrix({"w", GgmlType::q8_k, {1, 256}, Buffer::allocate(292)}), doctest::Contains("is Q8_K; readable are F32"),
                       FormatError);
}

TEST_CASE("gguf::write: content that no file can hold is refused, and the old file stays") {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x", "old");
  const auto refused = [&](const gguf::Metadata& metadata, const std::vector<gguf::Tensor>& tensors) {
    return test::complaint([&] { gguf::write(folder / "x", metadata, tensors); });
  };
  auto tensors = some_gguf_tensors();
  tensors.push_back(tensors.front());
  CHECK(refused({}, tensors).find("occurs twice") != std::string::npos);
  tensors.back().name = "other";
  tensors.back().shape = {3, 63};
  CHECK(refused({}, tensors).find("not those of [3, 63] Q4_0") != std::string::npos);
  CHECK(refused({{"general.alignment", std::uint32_t{12}}}, {}).find("power of two") != std::string::npos);
  CHECK(refused({{"a", true}, {"a", true}}, {}).find("occurs twice") != std::string::npos);
  CHECK(test::read_file(folder / "x") == "old");
}

namespace {

/// A model of three tensors in two files, as gguf-split cuts it.
struct SplitModel {
  test::TemporaryFolder folder;
  gguf::Metadata first = {{"general.architecture", std::string("llama")}, {"llama.block_count", std::uint32_t{2}}};
  gguf::Metadata second = {};
  std::vector<gguf::Tensor> tensors;

  SplitModel() {
    for (const char* name : {"a", "b", "c"}) {
      const std::vector<float> numbers{static_cast<float>(*name), 2, 3};
      tensors.push_back({name, GgmlType::f32, {3}, make_tensor<float>(name, {3}, numbers).bytes});
    }
    for (auto* metadata : {&first, &second})
      metadata->insert(
          metadata->end(),
          {{"split.no", std::uint16_t(metadata == &second)}, {"split.count", std::uint16_t{2}}, {"split.tensors.count", std::int32_t{3}}});
  }
  std::filesystem::path part(int number) const { return folder / ("m-0000" + std::to_string(number) + "-of-00002.gguf"); }
  void write() const {
    gguf::write(part(1), first, std::span(tensors).first(1));
    gguf::write(part(2), second, std::span(tensors).subspan(1));
  }
  std::string complaint() const {
    write();
    return test::complaint([&] { gguf::File::open(part(1)); });
  }
  static void set(gguf::Metadata& metadata, const std::string& key, gguf::Value value) {
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    metadata.emplace_back(key, std::move(value));
  }
};

void has_text(const std::string& complaint, std::string_view part) { CHECK_MESSAGE(complaint.find(part) != complaint.npos, complaint); }

}  // namespace

TEST_CASE("the first part of a split model opens all of them as one file") {
  SplitModel model;
  model.write();
  const auto file = gguf::File::open(model.part(1));
  REQUIRE(file.tensors().size() == 3);
  CHECK(gguf::to_floats(file.tensor("c")) == std::vector<float>{99, 2, 3});
  CHECK(file.metadata().size() == 2);
  CHECK(file.get<Index>("llama.block_count") == 2);
  CHECK(file.find("split.count") == nullptr);
  has_text(test::complaint([&] { gguf::File::open(model.part(2)); }), "is part 2 of 2 of a model; give the first one, ");
  has_text(test::complaint([&] { gguf::File::open(model.part(2)); }), "m-00001-of-00002.gguf");
}

TEST_CASE("parts that do not belong together are refused by name") {
  SplitModel missing;
  missing.write();
  std::filesystem::remove(missing.part(2));
  has_text(test::complaint([&] { gguf::File::open(missing.part(1)); }), "m-00002-of-00002.gguf");
  SplitModel renamed;
  renamed.write();
  std::filesystem::rename(renamed.part(1), renamed.folder / "model.gguf");
  has_text(test::complaint([&] { gguf::File::open(renamed.folder / "model.gguf"); }), "must be called NAME-00001-of-2.gguf");
  SplitModel numbered, counted, twice, foreign, many;
  SplitModel::set(numbered.second, "split.no", std::uint16_t{3});
  has_text(numbered.complaint(), "says that it is part 4 of 2, not 2 of 2");
  SplitModel::set(counted.first, "split.tensors.count", std::int32_t{5});
  has_text(counted.complaint(), "hold 3 tensors but split.tensors.count is 5");
  twice.tensors[2].name = "a";
  has_text(twice.complaint(), "tensor \"a\" is in an earlier part, too");
  SplitModel::set(foreign.second, "llama.block_count", std::uint32_t{9});
  has_text(foreign.complaint(), "metadata \"llama.block_count\" is not that of the first part");
  SplitModel::set(many.first, "split.count", std::uint64_t{1} << 60);
  has_text(many.complaint(), "at most 10000 files");
}
