#include <transformer/merge_model.hpp>

#include <lowrank/io/bitsandbytes_write.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/ops/decompose.hpp>
#include <lowrank/quant.hpp>

#include <transformer/companions.hpp>
#include <transformer/folder_tensors.hpp>

namespace transformer {

namespace {

namespace fs = std::filesystem;
using lowrank::AnyMatrix;
using lowrank::GgmlType;
using lowrank::StoredTensor;

/// W' of a layer, decoded from W and the update; its type is forgotten, so that each encoder is compiled once.
class MergedMatrix : public lowrank::MergedSource<AnyMatrix> {
 public:
  using MergedSource::MergedSource;
  static std::size_t bytes() { return 0; }
};

/// Every layer that a set changes, with what to store and how it went.
class Merger {
 public:
  Merger(const Llama& model, const LoraSet& set, const MergeOptions& options) : model_(model), set_(set), options_(options) {
    lowrank::check<lowrank::ValueError>(!set.embedding && set.copies.empty(), "merge",
                                        "the adapter changes the token table or brings full copies of layers, which is not merged here; "
                                        "merge it in PEFT");
    if (options.residual_rank > 0) result_.residual.slots.resize(set.slots.size());
  }

  bool changes(Index slot) const { return set_.slots[static_cast<std::size_t>(slot)].has_value(); }

  /// W' of a slot.
  AnyMatrix merged(Index slot) const {
    const LoraWeights<float>& update = *set_.slots[static_cast<std::size_t>(slot)];
    lowrank::check<lowrank::ValueError>(update.bias.empty(), "merge", slot_path(model_.config, slot),
                                        ": the update has a bias and the base none, so no weight can hold it");
    return AnyMatrix(MergedMatrix(weight(slot), update.view(), gain(slot)));
  }

  /// Notes how a slot went.
  template <lowrank::Source Stored>
  void note(Index slot, const AnyMatrix& merged, const Stored& stored) {
    result_.layers.push_back({slot_path(model_.config, slot), merge_report(weight(slot), merged, stored)});
    if (options_.residual_rank == 0) return;
    lowrank::Weight<float> rest(merged.rows(), merged.cols()), q(merged.rows(), merged.cols());
    merged.decode(0, rest.rows(), 0, rest.cols(), rest.data(), rest.cols());
    stored.decode(0, q.rows(), 0, q.cols(), q.data(), q.cols());
    rest -= q;
    const Index rank = std::min({options_.residual_rank, rest.rows(), rest.cols()});
    const lowrank::Svd svd = lowrank::leading_svd(rest, rank);
    const Eigen::VectorXd roots = svd.s.cwiseSqrt();  // half of each singular value for each factor
    const std::string path = slot_path(model_.config, slot);
    result_.residual.slots[static_cast<std::size_t>(slot)] =
        LoraWeights<float>{.a = detail::trainable(path + ".lora_A.weight", (roots.asDiagonal() * svd.v.transpose()).cast<float>()),
                           .b = detail::trainable(path + ".lora_B.weight", (svd.u * roots.asDiagonal()).cast<float>())};
  }

  /// The weight of a slot as the model holds it.
  const AnyMatrix& weight(Index slot) const {
    const auto* layer = model_.layer(slot).base.get_if<lowrank::SourceLinear<AnyMatrix>>();
    lowrank::check<lowrank::Error>(layer != nullptr, "merge", "the model's layers were converted; open it in its native format");
    return layer->weight();
  }
  const MergeOptions& options() const { return options_; }
  MergedModel& result() { return result_; }

 private:
  lowrank::Vector<float> gain(Index slot) const {
    const LoraWeights<float>& update = *set_.slots[static_cast<std::size_t>(slot)];
    if (!update.is_dora()) return {};
    return model_.layer(slot).base.visit(
        [&](const auto& base) { return lowrank::dora_gain(update.magnitude.value, lowrank::dora_norms(base, update)); });
  }

  const Llama& model_;
  const LoraSet& set_;
  const MergeOptions& options_;
  MergedModel result_;
};

// ---- GGUF

GgmlType target_type(const std::string& to, GgmlType own) {
  if (to == "same") return own;
  if (to == "f32") return GgmlType::f32;
  if (to == "f16") return GgmlType::f16;
  if (to == "bf16") return GgmlType::bf16;
  if (to == "q4_0") return GgmlType::q4_0;
  return to == "q4_1" ? GgmlType::q4_1 : GgmlType::q8_0;
}

lowrank::gguf::Tensor merged_tensor(Merger& merger, Index slot, const std::string& name, GgmlType own) {
  const GgmlType type = target_type(merger.options().to, own);
  const AnyMatrix merged = merger.merged(slot);
  lowrank::gguf::Tensor tensor{name, type, {merged.rows(), merged.cols()}, {}};
  const auto quantized = [&]<class Format>(Format) {
    const auto matrix = lowrank::quantize<Format>(merged);
    merger.note(slot, merged, matrix);
    tensor.bytes = matrix.storage().blocks();
  };
  const auto dense = [&]<class Element>(Element) {
    const auto matrix = lowrank::round_to<Element>(merged);
    merger.note(slot, merged, matrix);
    tensor.bytes = matrix.buffer();
  };
  switch (type) {
    case GgmlType::f32:
      dense(float{});
      break;
    case GgmlType::f16:
      dense(lowrank::half{});
      break;
    case GgmlType::bf16:
      dense(lowrank::bfloat16{});
      break;
    case GgmlType::q4_0:
      quantized(lowrank::Q4_0{});
      break;
    case GgmlType::q4_1:
      quantized(lowrank::Q4_1{});
      break;
    case GgmlType::q8_0:
      quantized(lowrank::Q8_0{});
      break;
    default:
      lowrank::fail<lowrank::ValueError>("merge", "tensor ", name, " is ", lowrank::ggml_traits(own).name,
                                         ", which is only read here; choose another type with --to, such as q8_0 or bf16");
  }
  return tensor;
}

void merge_gguf(const Llama& model, Merger& merger, const fs::path& source, const fs::path& out) {
  const auto file = lowrank::gguf::File::open(source);
  std::map<std::string, Index> slots;
  for (Index s = 0; s < model.head_slot(); ++s)
    slots[lowrank::concat("blk.", s / projections, '.', gguf_name(static_cast<Projection>(s % projections)), ".weight")] = s;
  slots["output.weight"] = model.head_slot();
  std::vector<lowrank::gguf::Tensor> tensors;
  bool has_head = false;
  for (const auto& tensor : file.tensors()) {
    const auto slot = slots.find(tensor.name);
    has_head |= tensor.name == "output.weight";
    const bool is_changed = slot != slots.end() && merger.changes(slot->second);
    tensors.push_back(is_changed ? merged_tensor(merger, slot->second, tensor.name, tensor.type) : tensor);
  }
  if (!has_head && merger.changes(model.head_slot())) {  // a tied head becomes one of its own
    for (const auto& tensor : file.tensors())
      if (tensor.name == "token_embd.weight") tensors.push_back(merged_tensor(merger, model.head_slot(), "output.weight", tensor.type));
  }
  lowrank::gguf::write(out, file.metadata(), tensors);
}

// ---- Hugging Face folders

/// The parts in which a merged weight is stored: one dense tensor, or what bitsandbytes keeps of it.
std::vector<StoredTensor> merged_parts(Merger& merger, Index slot, const lowrank::safetensors::File& file, const std::string& prefix) {
  const std::string& to = merger.options().to;
  const AnyMatrix merged = merger.merged(slot);
  const bool is_quantized = lowrank::bitsandbytes::contains(file, prefix);
  if (to == "same" && is_quantized) {
    const lowrank::bitsandbytes::QuantState state = lowrank::bitsandbytes::quant_state(file, prefix);
    const auto matrix = lowrank::bitsandbytes::quantize(merged, state.quant_type, state.block, state.is_nested);
    std::visit([&](const auto& held) { merger.note(slot, merged, held); }, matrix);
    return lowrank::bitsandbytes::tensors(matrix, prefix, state.dtype);
  }
  lowrank::check<lowrank::ValueError>(!is_quantized, "merge", prefix, " is in 4 bits, as config.json says of all layers; leave --to away");
  const auto own = file.at(prefix + ".weight").dtype;
  const auto dense = [&]<class Element>(Element, lowrank::DType dtype) {
    const auto matrix = lowrank::round_to<Element>(merged);
    merger.note(slot, merged, matrix);
    return std::vector<StoredTensor>{{prefix + ".weight", dtype, {merged.rows(), merged.cols()}, matrix.buffer()}};
  };
  if (to == "f32" || (to == "same" && own == lowrank::DType::f32)) return dense(float{}, lowrank::DType::f32);
  if (to == "f16" || (to == "same" && own == lowrank::DType::f16)) return dense(lowrank::half{}, lowrank::DType::f16);
  lowrank::check<lowrank::ValueError>(to == "same" || to == "bf16", "merge", "--to ", to,
                                      " is for GGUF files; a folder's layers become same, f32, f16 or bf16");
  return dense(lowrank::bfloat16{}, lowrank::DType::bf16);
}

void merge_folder(const Llama& model, Merger& merger, const fs::path& source, const fs::path& out) {
  const FolderTensors folder(source);
  std::vector<StoredTensor> tensors;
  const auto slot_of = [&](const std::string& name) {
    for (Index s = 0; s < model.slots(); ++s) {
      const std::string path = slot_path(model.config, s);
      if (merger.changes(s) && name.starts_with(path + '.')) return s;
    }
    return Index{-1};
  };
  const bool stays_tied = !merger.changes(model.head_slot());
  lowrank::check<lowrank::ValueError>(
      stays_tied || model.separate_head, "merge",
      "the adapter changes lm_head, which shares its weight with the token table in this model; untie it first");
  for (const auto& file : folder.files()) {
    for (const StoredTensor& tensor : file.tensors()) {
      const Index s = slot_of(tensor.name);
      const std::string prefix = s < 0 ? "" : slot_path(model.config, s);
      if (s >= 0 && tensor.name != prefix + ".weight" && tensor.name != prefix + ".bias") continue;  // a part of the 4-bit weight
      if (s < 0 || tensor.name != prefix + ".weight") {
        tensors.push_back(tensor);
        continue;
      }
      for (StoredTensor& part : merged_parts(merger, s, file, prefix)) tensors.push_back(std::move(part));
    }
  }
  fs::create_directories(out);
  lowrank::safetensors::write(out / "model.safetensors", tensors, {{"format", "pt"}});
  copy_companions(source, out);
  copy_whole(source / "config.json", out / "config.json");
}

}  // namespace

MergedModel merge_model(const Llama& model, const LoraSet& set, const fs::path& source, const fs::path& out, const MergeOptions& options) {
  std::error_code failure;
  lowrank::check<lowrank::ValueError>(!fs::equivalent(source, out, failure), "merge", "--out is the model itself; choose another");
  Merger merger(model, set, options);
  fs::is_directory(source) ? merge_folder(model, merger, source, out) : merge_gguf(model, merger, source, out);
  return std::move(merger.result());
}

}  // namespace transformer
