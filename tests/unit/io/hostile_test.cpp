#include <doctest/doctest.h>

#include <lowrank/core/random.hpp>
#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/quant.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"

using namespace lowrank;

// Valid files, damaged at random (always the same way): a reader either accepts them or throws lowrank::Error. Everything else, such as
// std::bad_alloc, std::length_error, a crash or what a sanitizer finds, is a defect.

namespace {

/// Damages a file's bytes `rounds` times; damage is kept to the first `head` bytes half of the time, where the structure is.
template <class Read>
void survive(const std::string& name, const std::string& bytes, std::size_t head, int rounds, const Read& read) {
  const test::TemporaryFolder folder;
  Random random(20'24, head);
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::size_t split = round % 4 == 0 ? bytes.size() : std::min(head, bytes.size());
    test::write_file(folder / name, test::damaged(bytes.substr(0, split), random) + bytes.substr(split));
    const std::string complaint = test::complaint([&] { read(folder.path()); });
    accepted += complaint.empty();
    if (!complaint.empty() && !complaint.starts_with('[')) FAIL_CHECK(complaint);
  }
  CHECK(accepted < rounds / 2);
}

}  // namespace

TEST_CASE("damaged safetensors files are read or refused, nothing else") {
  const std::string bytes = test::read_file(LOWRANK_GOLDEN_DIR "/adapters/lora_qv_r4/adapter_model.safetensors");
  survive("x", bytes, 1024, 3000, [](const auto& folder) {
    const auto file = safetensors::File::open(folder / "x");
    for (const auto& tensor : file.tensors()) test::touch(tensor.bytes.bytes());
  });
}

TEST_CASE("damaged GGUF files are read or refused, nothing else") {
  const test::TemporaryFolder folder;
  const gguf::Metadata metadata{{"general.architecture", std::string("llama")},
                                {"general.alignment", std::uint32_t{32}},
                                {"tokens", gguf::Array{std::vector<std::string>{"a", "bc", "def"}}},
                                {"nested", gguf::Array{std::vector<gguf::Array>{{std::vector<float>{1, 2}}, {std::vector<bool>{true}}}}},
                                {"scores", gguf::Array{std::vector<double>{1, 2, 3}}},
                                {"count", std::int64_t{7}}};
  const std::vector<gguf::Tensor> tensors{{"a", GgmlType::f32, {3, 4}, Buffer::allocate(48)},
                                          {"b", GgmlType::q4_1, {2, 64}, Buffer::allocate(80)},
                                          {"c", GgmlType::q8_0, {32}, Buffer::allocate(34)}};
  gguf::write(folder / "x", metadata, tensors);
  const std::string bytes = test::read_file(folder / "x");
  survive("x", bytes, 400, 4000, [](const auto& place) {
    const auto file = gguf::File::open(place / "x");
    for (const auto& tensor : file.tensors()) test::touch(tensor.bytes.bytes());
    file.template get_or<std::vector<std::string>>("tokens", {});
    file.template get_or<Index>("count", 0);
  });
}

TEST_CASE("damaged PEFT configurations and tensors are read or refused, nothing else") {
  const std::string golden = LOWRANK_GOLDEN_DIR "/adapters/patterns/";
  const std::string config = test::read_file(golden + "adapter_config.json"),
                    tensors = test::read_file(golden + "adapter_model.safetensors");
  const auto load = [](const auto& folder) { peft::load(folder); };
  survive("adapter_config.json", config, config.size(), 1500, [&](const auto& folder) {
    test::write_file(folder / "adapter_model.safetensors", tensors);
    load(folder);
  });
  survive("adapter_model.safetensors", tensors, 4096, 1000, [&](const auto& folder) {
    test::write_file(folder / "adapter_config.json", config);
    load(folder);
  });
}

TEST_CASE("damaged bitsandbytes checkpoints are read or refused, nothing else") {
  const test::TemporaryFolder folder;
  const auto model = safetensors::File::open(LOWRANK_GOLDEN_DIR "/tiny_llama_nf4/model.safetensors");
  const std::string prefix = "model.layers.0.self_attn.k_proj";
  std::vector<StoredTensor> layer;
  for (const auto& tensor : model.tensors())
    if (tensor.name.starts_with(prefix)) layer.push_back(tensor);
  safetensors::write(folder / "x", layer);
  const std::string bytes = test::read_file(folder / "x");
  survive("x", bytes, bytes.size(), 2000, [&](const auto& place) {
    std::visit([](const auto& matrix) { dequantize(matrix); }, bitsandbytes::load(safetensors::File::open(place / "x"), prefix));
  });
}
