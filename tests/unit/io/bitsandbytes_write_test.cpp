#include <doctest/doctest.h>

#include <limits>

#include <lowrank/io/bitsandbytes_write.hpp>
#include <lowrank/nn/frozen_linear.hpp>
#include <lowrank/quant.hpp>

#include "support/files.hpp"

using namespace lowrank;
using safetensors::File;

namespace {

StoredMatrix<float> ramp(Index rows, Index cols) {
  Buffer bytes = Buffer::allocate(static_cast<std::size_t>(rows * cols) * sizeof(float));
  for (Index i = 0; i < rows * cols; ++i) bytes.mutable_as<float>()[i] = static_cast<float>(i % 23 - 11) / 7.0f;
  return {rows, cols, std::move(bytes)};
}

std::string state_of(const std::vector<StoredTensor>& tensors) {
  const Buffer& bytes = tensors.back().bytes;
  return {bytes.as<char>(), bytes.size()};
}

}  // namespace

TEST_CASE("bitsandbytes: a saved model is read and written back byte by byte") {
  const std::string golden = LOWRANK_GOLDEN_DIR "/tiny_llama_nf4/model.safetensors";
  const File file = File::open(golden);
  std::vector<StoredTensor> all;
  for (const auto& tensor : file.tensors()) {
    const auto at = tensor.name.find(".weight");
    const std::string prefix = tensor.name.substr(0, at);
    if (at == std::string::npos || !bitsandbytes::contains(file, prefix)) {
      all.push_back(tensor);
    } else if (tensor.name == prefix + ".weight") {
      for (StoredTensor& part :
           bitsandbytes::tensors(bitsandbytes::load(file, prefix), prefix, bitsandbytes::quant_state(file, prefix).dtype))
        all.push_back(std::move(part));
    }
  }
  const test::TemporaryFolder folder;
  safetensors::write(folder / "x", all, file.metadata());
  CHECK(test::read_file(folder / "x") == test::read_file(golden));
}

TEST_CASE("bitsandbytes: every format is read back as it was written") {
  const test::TemporaryFolder folder;
  const StoredMatrix<float> w = ramp(5, 37);  // an odd count, and blocks that straddle rows
  for (const char* type : {"nf4", "fp4"})
    for (const Index block : {32, 64, 128, 4096})
      for (const bool nested : {false, true}) {
        CAPTURE(type);
        CAPTURE(block);
        CAPTURE(nested);
        const auto matrix = bitsandbytes::quantize(w, type, block, nested);
        const auto tensors = bitsandbytes::tensors(matrix, "p", "bfloat16");
        safetensors::write(folder / "x", tensors);
        const File file = File::open(folder / "x");
        const auto state = bitsandbytes::quant_state(file, "p");
        CHECK(state.quant_type == type);
        CHECK(state.block == block);
        CHECK(state.is_nested == nested);
        CHECK(state.dtype == "bfloat16");
        const auto again = bitsandbytes::load(file, "p");
        CHECK(again.index() == matrix.index());
        const auto dense = [](const auto& held) { return std::visit([](const auto& m) { return dequantize(m); }, held); };
        CHECK(dense(again) == dense(matrix));
        safetensors::write(folder / "y", bitsandbytes::tensors(again, "p", state.dtype));
        CHECK(test::read_file(folder / "x") == test::read_file(folder / "y"));
      }
}

TEST_CASE("bitsandbytes: the JSON beside a weight has Python's form") {
  CHECK(state_of(bitsandbytes::tensors(bitsandbytes::quantize(ramp(2, 32), "fp4", 64, false), "p", "float16")) ==
        R"({"quant_type": "fp4", "blocksize": 64, "dtype": "float16", "shape": [2, 32]})");
  bitsandbytes::QuantState state{"nf4", 64, 3, 40, "bfloat16", true, 0.0f};
  const auto offset = [&](float value) {
    state.nested_offset = value;
    const std::string text = bitsandbytes::quant_state_text(state);
    return text.substr(text.rfind(' ') + 1);
  };
  CHECK(bitsandbytes::quant_state_text(state) == R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [3, 40], )"
                                                 R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.0})");
  CHECK(offset(0.1f) == "0.10000000149011612}");  // as Python prints the double of each float
  CHECK(offset(2) == "2.0}");
  CHECK(offset(0.0001f) == "9.999999747378752e-05}");
  CHECK(offset(0.00012207031f) == "0.0001220703125}");
  CHECK(offset(1e-20f) == "9.999999682655225e-21}");
  CHECK(offset(1e15f) == "999999986991104.0}");
  CHECK(offset(3e20f) == "3.000000060122632e+20}");
}

TEST_CASE("bitsandbytes: what could not be read again is not written") {
  const auto matrix = quantize<Nf4<64>>(ramp(2, 32));
  CHECK_THROWS_WITH_AS(bitsandbytes::tensors(matrix, "p", "int8"), doctest::Contains("the dtype is \"int8\""), ValueError);
  CHECK_THROWS_WITH_AS(bitsandbytes::tensors(QuantizedMatrix<Nf4<64>>(), "p"), doctest::Contains("a weight of [0, 0]"), ShapeError);
  CHECK_THROWS_WITH_AS(bitsandbytes::quantize(ramp(2, 32), "nf4", 48, true), doctest::Contains("\"nf4\" with blocks of 48"), ValueError);
  CHECK_THROWS_WITH_AS(bitsandbytes::quantize(ramp(2, 32), "int4", 64, true), doctest::Contains("no format \"int4\""), ValueError);
  Buffer bytes = Buffer::allocate(256);
  bytes.mutable_as<float>()[40] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(bitsandbytes::quantize(StoredMatrix<float>(2, 32, bytes), "nf4", 64, true), ValueError);
}
