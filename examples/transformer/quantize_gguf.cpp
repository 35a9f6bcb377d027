#include <transformer/quantize_gguf.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>

namespace transformer {

namespace {

using lowrank::GgmlType;
using lowrank::Index;
namespace gguf = lowrank::gguf;

bool is_dense(GgmlType type) { return type == GgmlType::f32 || type == GgmlType::f16 || type == GgmlType::bf16; }

/// llama.cpp's number for a file that is mostly of a type; the K formats without a suffix are its _S, _M for Q2_K.
std::uint32_t file_type(GgmlType type) {
  constexpr std::array<std::pair<GgmlType, std::uint32_t>, 18> numbers{{{GgmlType::f32, 0},
                                                                        {GgmlType::f16, 1},
                                                                        {GgmlType::q4_0, 2},
                                                                        {GgmlType::q4_1, 3},
                                                                        {GgmlType::q8_0, 7},
                                                                        {GgmlType::q5_0, 8},
                                                                        {GgmlType::q5_1, 9},
                                                                        {GgmlType::q2_k, 10},
                                                                        {GgmlType::q3_k, 11},
                                                                        {GgmlType::q4_k, 14},
                                                                        {GgmlType::q5_k, 16},
                                                                        {GgmlType::q6_k, 18},
                                                                        {GgmlType::iq4_nl, 25},
                                                                        {GgmlType::iq4_xs, 30},
                                                                        {GgmlType::bf16, 32},
                                                                        {GgmlType::tq1_0, 36},
                                                                        {GgmlType::tq2_0, 37},
                                                                        {GgmlType::mxfp4, 38}}};
  const auto* const found = std::find_if(numbers.begin(), numbers.end(), [type](const auto& entry) { return entry.first == type; });
  return found == numbers.end() ? 1u : found->second;
}

void set(gguf::Metadata& metadata, const std::string& key, gguf::Value value) {
  const auto found = std::find_if(metadata.begin(), metadata.end(), [&](const auto& entry) { return entry.first == key; });
  if (found == metadata.end())
    metadata.emplace_back(key, std::move(value));
  else
    found->second = std::move(value);
}

/// The type that each matrix should have.
class Wanted {
 public:
  Wanted(const gguf::File& file, const QuantizeOptions& options)
      : head_(file.find_tensor("output.weight") ? "output.weight" : "token_embd.weight"),
        type_(options.mixture ? options.mixture->type : options.type),
        head_stays_(options.pure || is_dense(type_) || type_ == GgmlType::q8_0) {
    if (options.mixture && !options.pure) rule_.emplace(file, *options.mixture);
  }
  GgmlType type() const { return type_; }
  GgmlType operator()(const std::string& name) const {
    if (name == head_ && !head_stays_) return GgmlType::q6_k;
    return rule_ ? (*rule_)(name) : type_;
  }

 private:
  std::string head_;
  GgmlType type_;
  bool head_stays_;
  std::optional<MixtureRule> rule_;
};

}  // namespace

bool is_quantizable(const std::string& name, const std::vector<Index>& shape) {
  constexpr std::string_view left_alone[] = {
      "_norm.weight", "ffn_gate_inp.weight", "position_embd", "token_types", "altup",    "laurel",     "per_layer_model_proj",
      "ssm_conv1d",   "shortconv.conv",      "time_mix_",     "attn_rel_b",  ".rel_pos", ".patch_embd"};
  const auto is_in_name = [&](std::string_view part) { return name.find(part) != std::string::npos; };
  return shape.size() >= 2 && name.ends_with("weight") && std::none_of(std::begin(left_alone), std::end(left_alone), is_in_name);
}

std::vector<QuantizedTensor> quantize_gguf(const std::filesystem::path& source, const std::filesystem::path& out,
                                           const QuantizeOptions& options) {
  std::error_code failure;
  lowrank::check<lowrank::ValueError>(!std::filesystem::equivalent(source, out, failure), "quantize",
                                      "--out is the model itself; choose another");
  const auto file = gguf::File::open(source);
  const Wanted wanted_of(file, options);
  std::vector<gguf::Tensor> tensors;
  std::vector<QuantizedTensor> changed;
  for (const gguf::Tensor& tensor : file.tensors()) {
    tensors.push_back(tensor);
    if (!is_quantizable(tensor.name, tensor.shape)) continue;
    const GgmlType wanted = wanted_of(tensor.name), stored = gguf::type_for_columns(wanted, tensor.cols());
    if (stored == tensor.type) continue;
    const bool is_single = tensor.shape.size() == 2;  // experts, stacked, have an importance each
    const auto importance = options.importance && is_single ? options.importance->of(tensor.name, tensor.cols()) : std::span<const float>();
    const lowrank::AnyMatrix matrix = gguf::matrix(tensor, "quantize");
    gguf::Tensor saved = gguf::save_matrix(matrix, tensor.name, stored, importance).tensor;
    saved.shape = tensor.shape;
    changed.push_back({tensor.name, tensor.type, wanted, stored, !importance.empty(), tensor.size(), saved.bytes.size()});
    tensors.back() = std::move(saved);
  }
  gguf::Metadata metadata = file.metadata();
  set(metadata, "general.file_type", options.mixture ? options.mixture->file_type : file_type(options.type));
  set(metadata, "general.quantization_version", std::uint32_t{2});
  gguf::write(out, metadata, tensors);
  return changed;
}

}  // namespace transformer
