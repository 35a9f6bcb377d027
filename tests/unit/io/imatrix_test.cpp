#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <lowrank/core/tensor.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/imatrix.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"

using namespace lowrank;

namespace {

template <class T>
std::string imatrix_bytes(T number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(T));
}
std::string imatrix_floats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}
std::string legacy_entry(const std::string& name, int calls, const std::vector<float>& values) {
  return imatrix_bytes(static_cast<int>(name.size())) + name + imatrix_bytes(calls) + imatrix_bytes(static_cast<int>(values.size())) +
         imatrix_floats(values);
}
/// Two entries, then what newer programs append: chunks and the name of the texts.
std::string legacy_file() {
  return imatrix_bytes(2) + legacy_entry("a.weight", 4, {4, 8, 0}) + legacy_entry("b.weight", 0, {0.5f}) + imatrix_bytes(3) +
         imatrix_bytes(1) + "t";
}

std::vector<float> numbers_of(const gguf::ImportanceMatrix& matrix, const std::string& name, Index cols) {
  const auto values = matrix.of(name, cols);
  return {values.begin(), values.end()};
}

gguf::Tensor imatrix_tensor(std::string name, std::vector<Index> shape, const std::vector<float>& values) {
  return {name, GgmlType::f32, shape, make_tensor(name, shape, std::span<const float>(values)).bytes};
}

std::string imatrix_complaint(const std::string& bytes) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x.imatrix", bytes);
  return test::complaint([&] { gguf::ImportanceMatrix::open(folder / "x.imatrix"); });
}

}  // namespace

TEST_CASE("imatrix: the older kind holds sums over calls") {
  const test::TemporaryFolder folder;
  test::write_file(folder / "x.dat", legacy_file());
  const auto matrix = gguf::ImportanceMatrix::open(folder / "x.dat");
  CHECK(matrix.size() == 2);
  CHECK(numbers_of(matrix, "a.weight", 3) == std::vector<float>{1, 2, 0});
  CHECK(numbers_of(matrix, "b.weight", 1) == std::vector<float>{0.5f});
  CHECK(matrix.of("c.weight", 3).empty());
  CHECK_THROWS_WITH_AS(matrix.of("a.weight", 4), doctest::Contains("\"a.weight\" has 3 numbers but the matrix has 4 columns"), FormatError);
}

TEST_CASE("imatrix: the GGUF kind holds sums and counts") {
  const test::TemporaryFolder folder;
  const gguf::Metadata metadata{{"general.type", std::string("imatrix")}};
  gguf::write(folder / "x.gguf", metadata,
              std::vector{imatrix_tensor("a.weight.in_sum2", {1, 3}, {4, 8, 0}), imatrix_tensor("a.weight.counts", {1, 1}, {4}),
                          imatrix_tensor("e.weight.in_sum2", {2, 2}, {4, 8, 0, 0}), imatrix_tensor("e.weight.counts", {2, 1}, {2, 0})});
  const auto matrix = gguf::ImportanceMatrix::open(folder / "x.gguf");
  CHECK(matrix.size() == 2);
  CHECK(numbers_of(matrix, "a.weight", 3) == std::vector<float>{1, 2, 0});
  CHECK(numbers_of(matrix, "e.weight", 4) == std::vector<float>{2, 4, 1, 1});

  const auto refused = [&](const gguf::Metadata& keys, const std::vector<gguf::Tensor>& tensors) {
    gguf::write(folder / "y.gguf", keys, tensors);
    return test::complaint([&] { gguf::ImportanceMatrix::open(folder / "y.gguf"); });
  };
  const auto sums = imatrix_tensor("a.in_sum2", {1, 2}, {1, -1}), counts = imatrix_tensor("a.counts", {1}, {1});
  CHECK(refused({}, {sums, counts}).find("no importance matrix") != std::string::npos);
  CHECK(refused(metadata, {}).find("has no entries") != std::string::npos);
  CHECK(refused(metadata, {sums}).find("no tensor \"a.counts\"") != std::string::npos);
  CHECK(refused(metadata, {sums, counts}).find("negative or not finite") != std::string::npos);
  CHECK(refused(metadata, {sums, imatrix_tensor("a.counts", {2}, {1, 1})}).find("2 counts for 1 rows") != std::string::npos);
}

TEST_CASE("imatrix: a file that is cut, or lies about its counts, is refused") {
  const std::string bytes = legacy_file();
  const std::size_t end = bytes.size() - 9;  // what follows the entries is not looked at
  for (std::size_t size = 0; size < end; ++size) CHECK(imatrix_complaint(bytes.substr(0, size)).starts_with("[imatrix] "));
  CHECK(imatrix_complaint(bytes.substr(0, end)).empty());
  constexpr int huge = std::numeric_limits<int>::max();
  CHECK(imatrix_complaint(imatrix_bytes(huge) + bytes).find("claims 2147483647 entries") != std::string::npos);
  CHECK(imatrix_complaint(imatrix_bytes(-1) + bytes).find("claims -1 entries") != std::string::npos);
  CHECK(imatrix_complaint(imatrix_bytes(1) + imatrix_bytes(huge) + bytes).find("ends inside a name") != std::string::npos);
  CHECK(imatrix_complaint(imatrix_bytes(1) + imatrix_bytes(1) + "a" + imatrix_bytes(1) + imatrix_bytes(huge) + bytes)
            .find("ends inside an entry") != std::string::npos);
  CHECK(imatrix_complaint(imatrix_bytes(1) + legacy_entry("a", 1, {std::nanf("")})).find("not finite") != std::string::npos);
  CHECK(imatrix_complaint(imatrix_bytes(2) + legacy_entry("a", 1, {1}) + legacy_entry("a", 1, {1})).find("occurs twice") !=
        std::string::npos);
}

TEST_CASE("imatrix: damaged files are read or refused, never more") {
  const test::TemporaryFolder folder;
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    test::write_file(folder / "x", test::damaged(legacy_file(), random));
    const std::string complaint = test::complaint([&] { gguf::ImportanceMatrix::open(folder / "x"); });
    CHECK((complaint.empty() || complaint.starts_with("[imatrix] ") || complaint.starts_with("[gguf] ")));
  }
}
