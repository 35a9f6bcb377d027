#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include <lowrank/core/random.hpp>
#include <lowrank/io/gptq.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>

#include "support/damage.hpp"
#include "support/files.hpp"
#include "support/golden.hpp"

using namespace lowrank;

namespace {

using PackedTensors = std::map<std::string, StoredTensor>;

/// The parts of one case of packed_int4.safetensors as those of a layer "p".
PackedTensors packed_case(const test::GoldenFile& golden, const std::string& name) {
  PackedTensors tensors;
  for (const char* part : {"qweight", "qzeros", "scales", "g_idx"}) {
    const std::string from = name + "." + part;
    if (!golden.contains(from)) continue;
    const auto bytes = golden.bytes(from);
    Buffer buffer = Buffer::allocate(bytes.size());
    std::copy(bytes.begin(), bytes.end(), buffer.mutable_as<std::uint8_t>());
    const std::string to = std::string("p.") + part;
    tensors[to] = {to, golden.dtype(from) == "F16" ? DType::f16 : DType::i32, golden.shape(from), buffer};
  }
  return tensors;
}

AnyMatrix load_packed(const PackedTensors& tensors, const gptq::Packing& packing) {
  const auto find = [&](const std::string& name) { return tensors.contains(name) ? &tensors.at(name) : nullptr; };
  return gptq::load_weight(find, "p", packing, "the folder");
}

void check_packed(const std::string& name, const gptq::Packing& packing, bool has_blocks) {
  CAPTURE(name);
  const test::GoldenFile golden(LOWRANK_GOLDEN_DIR "/packed_int4.safetensors");
  const AnyMatrix w = load_packed(packed_case(golden, name), packing);
  const std::vector<float> expected = golden.floats(name + ".weight");
  const auto shape = golden.shape(name + ".weight");
  REQUIRE(w.rows() == shape[0]);
  REQUIRE(w.cols() == shape[1]);
  CHECK((w.view().kind() == WeightView::Kind::blocks) == has_blocks);
  CHECK(w.format() == (packing.is_awq ? "awq" : "gptq"));
  Weight<float> decoded(w.rows(), w.cols());
  w.decode(0, w.rows(), 0, w.cols(), decoded.data(), w.cols());
  CHECK(std::equal(expected.begin(), expected.end(), decoded.data()));

  const AnyLinear layer{w, Column<float>()};
  for (const Index tokens : {1, 5, 40}) {
    const Activation<float> x = Activation<float>::Random(w.cols(), tokens), g = Activation<float>::Random(w.rows(), tokens);
    CHECK((layer.product(x) - decoded * x).norm() <= 1e-5f * (decoded * x).norm());
    CHECK((layer.transposed_product(g) - decoded.transpose() * g).norm() <= 1e-5f * (decoded.transpose() * g).norm());
  }
}

std::string packing_complaint(const std::string& json) {
  return test::complaint([&] { gptq::packing(json, "config.json"); });
}

}  // namespace

TEST_CASE("gptq: weights of GPTQ and AWQ are what a reference of their packing says") {
  check_packed("gptq", {.group = 32}, true);
  check_packed("gptq_v2", {.group = 64, .is_zero_less_one = false}, true);
  check_packed("gptq_v2", {.group = -1, .is_zero_less_one = false}, true);
  check_packed("act_order", {.group = 32}, false);
  check_packed("ragged", {.group = 32}, false);
  check_packed("small", {.group = 16}, false);
  check_packed("awq", {.is_awq = true, .group = 64}, true);
}

TEST_CASE("gptq: what config.json says of the packing") {
  const auto config = [](const std::string& inside) { return gptq::packing("{\"quantization_config\": {" + inside + "}}", "config.json"); };
  const auto plain = config(R"("quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": true)");
  REQUIRE(plain.has_value());
  CHECK(plain->group == -1);
  CHECK(plain->is_zero_less_one);
  CHECK_FALSE(plain->is_awq);
  CHECK_FALSE(config(R"("quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2")")->is_zero_less_one);
  CHECK(config(R"("quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true, "version": "gemm")")->is_awq);
  CHECK_FALSE(config(R"("quant_method": "bitsandbytes", "bits": 4)").has_value());
  CHECK_FALSE(gptq::packing("{}", "config.json").has_value());
  CHECK(gptq::packing(R"({"bits": 4, "group_size": 128, "desc_act": false})", "quantize_config.json")->group == 128);

  CHECK(packing_complaint(R"({"quantization_config": {"quant_method": "gptq", "bits": 3, "group_size": 128}})") ==
        "[gptq] config.json: bits of quantization_config is 3 but 4 is read");
  CHECK(packing_complaint(R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 0}})").find("group_size") !=
        std::string::npos);
  CHECK(packing_complaint(R"({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8, "checkpoint_format": "marlin"}})")
            .find("\"marlin\" but gptq or gptq_v2 is read") != std::string::npos);
  CHECK(packing_complaint(R"({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemv"}})")
            .find("gemm") != std::string::npos);
  CHECK(packing_complaint("[]").starts_with("[gptq] "));
}

TEST_CASE("gptq: parts that do not belong together are refused") {
  const test::GoldenFile golden(LOWRANK_GOLDEN_DIR "/packed_int4.safetensors");
  const auto complaint = [&](const char* name, const gptq::Packing& packing, const auto& change) {
    PackedTensors tensors = packed_case(golden, name);
    change(tensors);
    return test::complaint([&] { load_packed(tensors, packing); });
  };
  const auto nothing = [](PackedTensors&) {};
  CHECK(complaint("gptq", {.group = 64}, nothing).find("are not those of one GPTQ weight with 4 bits and groups of 64") !=
        std::string::npos);
  CHECK(complaint("gptq", {.is_awq = true, .group = 32}, nothing).find("are not those of one AWQ weight") != std::string::npos);
  for (const char* part : {"p.qweight", "p.qzeros", "p.scales"})
    CHECK(complaint("gptq", {.group = 32}, [&](PackedTensors& t) { t.erase(part); }).find("no tensor") != std::string::npos);
  const auto set_group = [](std::int32_t number) {
    return [number](PackedTensors& t) { t.at("p.g_idx").bytes.mutable_as<std::int32_t>()[3] = number; };
  };
  CHECK(complaint("act_order", {.group = 32}, set_group(4)).find("input 3 is of group 4 but there are 4") != std::string::npos);
  CHECK(complaint("act_order", {.group = 32}, set_group(-1)).find("is of group -1") != std::string::npos);
  CHECK(complaint("gptq", {.group = 32}, [](PackedTensors& t) {
          t.at("p.scales").bytes.mutable_as<std::uint16_t>()[5] = 0x7C00;
        }).find("not finite") != std::string::npos);
  for (const Index size : {Index{0}, Index{-1}, Index{1} << 60, Index{1} << 62})
    for (const char* part : {"p.qweight", "p.qzeros", "p.scales"})
      for (const std::size_t axis : {0, 1})
        CHECK(complaint("gptq", {.group = 32}, [&](PackedTensors& t) { t.at(part).shape[axis] = size; }).starts_with("[gptq] "));
}

TEST_CASE("gptq: damaged files are read or refused, never more") {
  const test::TemporaryFolder folder;
  const test::GoldenFile golden(LOWRANK_GOLDEN_DIR "/packed_int4.safetensors");
  std::vector<StoredTensor> tensors;
  for (const auto& [name, tensor] : packed_case(golden, "small")) tensors.push_back(tensor);
  safetensors::write(folder / "whole", tensors);
  const std::string bytes = test::read_file(folder / "whole");
  Random random(11);
  for (int i = 0; i < 1500; ++i) {
    test::write_file(folder / "x", test::damaged(bytes, random));
    const std::string complaint = test::complaint([&] {
      const auto file = safetensors::File::open(folder / "x");
      const AnyMatrix w = gptq::load_weight([&](const std::string& name) { return file.find(name); }, "p", {.group = 16}, "x");
      std::vector<float> row(static_cast<std::size_t>(w.cols()));
      for (Index r = 0; r < w.rows(); ++r) w.decode(r, 1, 0, w.cols(), row.data(), w.cols());
    });
    CHECK((complaint.empty() || complaint.starts_with("[gptq] ") || complaint.starts_with("[safetensors] ")));
  }
}
