#include <transformer/merge_model.hpp>

#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include <lowrank/adapters/recompress.hpp>
#include <lowrank/io/bitsandbytes_write.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/ops/decompose.hpp>

#include <transformer/architecture.hpp>
#include <transformer/data.hpp>
#include <transformer/folder.hpp>
#include <transformer/merged_weight.hpp>

namespace transformer {

namespace {

namespace fs = std::filesystem;
using lowrank::AnyMatrix;
using lowrank::GgmlType;
using lowrank::StoredTensor;

/// Every layer that a set changes, with what to store and how it went.
class Merger {
 public:
  Merger(const Transformer& model, const LoraSet& set, const MergeOptions& options)
      : model_(model), set_(set), options_(options), bare_{std::vector<lowrank::AnyUpdate>(set.slots.size())} {
    if (options.residual_rank > 0) result_.residual.slots.resize(set.slots.size());
    const auto add_norm = [&](Index place, const std::string& folder_name, const std::string& gguf_name) {
      if (const auto copy = set.norms.find(place); copy != set.norms.end()) norms_[folder_name] = norms_[gguf_name] = &copy->second;
    };
    for (const lowrank::NamedNorm& norm : model.named_norms()) {
      const Index i = norm.place / static_cast<Index>(norm_places);
      std::string gguf_name = "output_norm.weight";
      for (const NormName& name : architecture_of(model.config).norms)
        if (i < model.config.layers && norm.place % static_cast<Index>(norm_places) == static_cast<Index>(name.place))
          gguf_name = lowrank::concat("blk.", i, '.', name.gguf, ".weight");
      add_norm(norm.place, norm.path + ".weight", gguf_name);
    }
  }

  /// The copy of a norm by its tensor's name in a folder or a GGUF file, or null.
  const Parameter<float>* norm(const std::string& tensor) const {
    const auto found = norms_.find(tensor);
    return found == norms_.end() ? nullptr : found->second;
  }

  /// Whether the set's tables have another number of tokens than the model's.
  Index tokens() const { return vocabulary(model_, &set_); }
  bool grows() const { return tokens() != model_.config.vocabulary; }
  bool changes(Index slot) const { return changes_weight(set_, slot); }
  /// Whether a head that is the token table must become one of its own: one of them changes, or both do.
  bool unties() const { return !model_.separate_head && (changes(model_.head_slot()) || changes(model_.embedding_slot())); }

  AnyMatrix merged(Index slot) const { return merged_weight(model_, set_, slot); }
  /// The bias where the set changes it, else nothing.
  std::optional<lowrank::Column<float>> bias(Index slot) const {
    return changes_bias(model_, set_, slot) ? std::optional(merged_bias(model_, set_, slot)) : std::nullopt;
  }
  /// Throws ValueError for a bias that has no place.
  void check_biases() const {
    const Index head = model_.head_slot();
    lowrank::check<lowrank::ValueError>(!bias(head) || !model_.head().base.bias().empty(), "merge", path(head),
                                        ": the update has a bias, and no format of a Transformer has one there");
  }

  std::string path(Index slot) const { return model_.config.path(slot); }

  /// Notes how a slot went.
  void note(Index slot, const AnyMatrix& merged, const AnyMatrix& stored) {
    const AnyMatrix before = merged_weight(model_, bare_, slot);
    if (before.rows() != merged.rows()) return;  // a table of another number of tokens is no update
    result_.layers.push_back({path(slot), std::string(stored.format()), merge_report(before, merged, stored)});
    if (options_.residual_rank == 0) return;
    lowrank::Weight<float> rest(merged.rows(), merged.cols()), q(merged.rows(), merged.cols());
    merged.decode(0, rest.rows(), 0, rest.cols(), rest.data(), rest.cols());
    stored.decode(0, q.rows(), 0, q.cols(), q.data(), q.cols());
    rest -= q;
    keep_residual(slot, lowrank::leading_svd(rest, std::min({options_.residual_rank, rest.rows(), rest.cols()})));
  }

  const Transformer& model() const { return model_; }
  const MergeOptions& options() const { return options_; }
  MergedModel& result() { return result_; }

 private:
  /// U S Vᵀ as an update, half of each singular value for each factor; (B A)ᵀ of the token table.
  void keep_residual(Index slot, const lowrank::Svd& svd) {
    const Eigen::VectorXd roots = svd.s.cwiseSqrt();
    lowrank::Weight<float> a = (roots.asDiagonal() * svd.v.transpose()).cast<float>(), b = (svd.u * roots.asDiagonal()).cast<float>();
    const bool is_table = slot == model_.embedding_slot();
    if (is_table) std::tie(a, b) = std::pair(lowrank::Weight<float>(b.transpose()), lowrank::Weight<float>(a.transpose()));
    LoraWeights<float> update{.a = {path(slot) + (is_table ? ".lora_embedding_A" : ".lora_A.weight"), std::move(a)},
                              .b = {path(slot) + (is_table ? ".lora_embedding_B" : ".lora_B.weight"), std::move(b)}};
    result_.residual.slots[static_cast<std::size_t>(slot)] = std::move(update);
  }

  const Transformer& model_;
  const LoraSet& set_;
  const MergeOptions& options_;
  const LoraSet bare_;  // no update, no copy
  std::map<std::string, const Parameter<float>*> norms_;
  MergedModel result_;
};

// ---- GGUF

GgmlType target_type(const std::string& to, GgmlType own) {
  if (to == "same") return own;
  const auto type = lowrank::gguf::writable_type(to);
  lowrank::check<lowrank::ValueError>(type.has_value(), "merge", "--to ", to, " is no type that is written");
  return type.value_or(own);
}

lowrank::gguf::Tensor merged_tensor(Merger& merger, Index slot, const std::string& name, GgmlType own) {
  const AnyMatrix merged = merger.merged(slot);
  const GgmlType type = lowrank::gguf::type_for_columns(target_type(merger.options().to, own), merged.cols());
  lowrank::check<lowrank::ValueError>(lowrank::gguf::is_writable(type), "merge", "tensor ", name, " is ", lowrank::ggml_traits(own).name,
                                      ", which is only read here; choose another type with --to, such as q8_0 or bf16");
  const auto* importance = merger.options().importance;
  auto saved = lowrank::gguf::save_matrix(merged, name, type, importance ? importance->of(name, merged.cols()) : std::span<const float>());
  merger.note(slot, merged, saved.matrix);
  return std::move(saved.tensor);
}

/// Slots by the names of their tensors, without ".weight" and ".bias".
std::map<std::string, Index> gguf_slots(const Transformer& model) {
  std::map<std::string, Index> slots{{"output", model.head_slot()}, {"token_embd", model.embedding_slot()}};
  const ModelConfig& c = model.config;
  for (Index i = 0; i < c.head_slot(); ++i) slots[lowrank::concat("blk.", c.layer_of(i), '.', gguf_name(c.projection_of(i)))] = i;
  return slots;
}

lowrank::gguf::Tensor merged_or_same(Merger& merger, const std::map<std::string, Index>& slots, const lowrank::gguf::Tensor& tensor) {
  if (const Parameter<float>* norm = merger.norm(tensor.name)) {
    const std::span numbers(norm->value.data(), static_cast<std::size_t>(norm->size()));
    return {tensor.name, GgmlType::f32, tensor.shape, lowrank::make_tensor(tensor.name, tensor.shape, numbers).bytes};
  }
  const std::size_t dot = tensor.name.rfind('.');
  const auto slot = slots.find(tensor.name.substr(0, dot));
  if (slot == slots.end()) return tensor;
  if (tensor.name.ends_with(".weight"))
    return merger.changes(slot->second) ? merged_tensor(merger, slot->second, tensor.name, tensor.type) : tensor;
  const auto bias = merger.bias(slot->second);
  if (!bias || !tensor.name.ends_with(".bias")) return tensor;
  const std::span numbers(bias->data(), static_cast<std::size_t>(bias->size()));
  return {tensor.name, GgmlType::f32, tensor.shape, lowrank::make_tensor(tensor.name, tensor.shape, numbers).bytes};
}

void merge_gguf(Merger& merger, const fs::path& source, const fs::path& out) {
  lowrank::check<lowrank::ValueError>(!merger.options().search, "merge",
                                      "--search finds scales of NF4 and FP4, which a GGUF file does not have; leave it away");
  lowrank::check<lowrank::ValueError>(
      !merger.grows(), "merge",
      "the adapter brings tables of another number of tokens, which the file's tokenizer does not have; merge it into "
      "the model's folder, and convert that");
  const auto file = lowrank::gguf::File::open(source);
  const auto slots = gguf_slots(merger.model());
  std::vector<lowrank::gguf::Tensor> tensors;
  for (const auto& tensor : file.tensors()) tensors.push_back(merged_or_same(merger, slots, tensor));
  for (const auto& [name, slot] : slots) {  // biases where the base has none
    const auto bias = merger.bias(slot);
    if (!bias || file.find_tensor(name + ".bias")) continue;
    const std::span numbers(bias->data(), static_cast<std::size_t>(bias->size()));
    tensors.push_back({name + ".bias", GgmlType::f32, {bias->size()}, lowrank::make_tensor(name, {bias->size()}, numbers).bytes});
  }
  if (merger.unties()) {
    lowrank::gguf::Tensor head = file.tensor("token_embd.weight");
    head.name = "output.weight";
    const Index slot = merger.model().head_slot();
    tensors.push_back(merger.changes(slot) ? merged_tensor(merger, slot, head.name, head.type) : head);
  }
  lowrank::gguf::write(out, file.metadata(), tensors);
}

// ---- Hugging Face folders

/// Whether a layer of a folder is stored in few bits.
bool is_quantized(const FolderTensors& folder, const std::string& path) {
  const bool is_packed = folder.has(path + ".qweight");
  return is_packed || (folder.has(path + ".weight") && lowrank::bitsandbytes::contains(folder.file_of(path + ".weight"), path));
}

/// The parts in which a merged weight is stored as `prefix`: one dense tensor, or what bitsandbytes keeps of it. The model's own is that
/// of `own` in the file.
std::vector<StoredTensor> merged_parts(Merger& merger, Index slot, const lowrank::safetensors::File& file, const std::string& own,
                                       const std::string& prefix) {
  const std::string& to = merger.options().to;
  const AnyMatrix merged = merger.merged(slot);
  if (to == "same" && lowrank::bitsandbytes::contains(file, own)) {
    const lowrank::bitsandbytes::QuantState state = lowrank::bitsandbytes::quant_state(file, own);
    const auto search = merger.options().search ? std::optional(lowrank::Search{}) : std::nullopt;
    auto saved = lowrank::bitsandbytes::save_weight(merged, state, prefix, search);
    merger.note(slot, merged, saved.matrix);
    return std::move(saved.tensors);
  }
  const bool is_packed = file.contains(own + ".qweight");
  lowrank::check<lowrank::ValueError>(!is_packed || to != "same", "merge", prefix,
                                      " is packed as GPTQ or AWQ do, which is only read here; --to bf16 writes the model dense");
  const auto dtype = is_packed ? lowrank::DType::bf16 : file.at(own + ".weight").dtype;
  const auto dense = [&]<class Element>(Element, lowrank::DType stored) {
    const auto matrix = lowrank::round_to<Element>(merged);
    if (merger.changes(slot)) merger.note(slot, merged, AnyMatrix(matrix));
    return std::vector<StoredTensor>{{prefix + ".weight", stored, {merged.rows(), merged.cols()}, matrix.buffer()}};
  };
  if (to == "f32" || (to == "same" && dtype == lowrank::DType::f32)) return dense(float{}, lowrank::DType::f32);
  if (to == "f16" || (to == "same" && dtype == lowrank::DType::f16)) return dense(lowrank::Half{}, lowrank::DType::f16);
  lowrank::check<lowrank::ValueError>(to == "same" || to == "bf16", "merge", "--to ", to,
                                      " is for GGUF files; a folder's layers become same, f32, f16 or bf16");
  return dense(lowrank::BFloat16{}, lowrank::DType::bf16);
}

/// Modules by their paths, with their slots.
std::map<std::string, Index> folder_slots(const Merger& merger) {
  std::map<std::string, Index> slots;
  for (Index s = 0; s <= merger.model().embedding_slot(); ++s) slots[merger.path(s)] = s;
  return slots;
}

void check_search(const Merger& merger, const FolderTensors& folder) {
  if (!merger.options().search) return;
  bool any = false;
  for (const auto& [path, slot] : folder_slots(merger))
    any = any || (merger.changes(slot) && !folder.has(path + ".qweight") && is_quantized(folder, path));
  lowrank::check<lowrank::ValueError>(any && merger.options().to == "same", "merge",
                                      "--search finds scales of NF4 and FP4, and no layer that changes is stored so; leave it away");
}

/// Where the path of a module ends in a tensor's name: MODULE.weight, MODULE.bias, or of 4 bits MODULE.weight.absmax …, MODULE.qweight …
std::size_t end_of_path(const std::string& name) {
  for (const std::string_view packed : {".qweight", ".qzeros", ".scales", ".g_idx"})
    if (name.ends_with(packed)) return name.size() - packed.size();
  return std::min(name.find(".weight"), name.rfind(".bias"));
}

/// Appends what becomes of one tensor of the model's files.
void append_merged(Merger& merger, const std::map<std::string, Index>& slots, const FolderTensors& folder,
                   const lowrank::safetensors::File& file, const StoredTensor& tensor, std::vector<StoredTensor>& tensors) {
  if (const Parameter<float>* norm = merger.norm(tensor.name)) {
    const float base = architecture_of(merger.model().config).norms_add_one ? 1.0f : 0.0f;  // files have w − 1
    return tensors.push_back(
        lowrank::detail::to_tensor(tensor.name, lowrank::Column<float>(norm->value.col(0).array() - base), tensor.dtype, true));
  }
  const std::size_t end = end_of_path(tensor.name);
  const std::string path = tensor.name.substr(0, end), part = end == std::string::npos ? "" : tensor.name.substr(end);
  const auto slot = slots.find(path);
  if (path == "lm_head" && merger.unties()) return;  // a second copy of the table
  if (slot == slots.end()) return tensors.push_back(tensor);
  if (part == ".bias") {
    const auto bias = merger.bias(slot->second);
    if (!bias) return tensors.push_back(tensor);
    return tensors.push_back(lowrank::detail::to_tensor(tensor.name, *bias, tensor.dtype, true));
  }
  const bool becomes_dense = merger.options().to != "same" && is_quantized(folder, path);
  if (!merger.changes(slot->second) && !becomes_dense) return tensors.push_back(tensor);
  if (part != ".weight" && part != ".qweight") return;  // made anew with the weight
  for (StoredTensor& made : merged_parts(merger, slot->second, file, path, path)) tensors.push_back(std::move(made));
}

/// Biases where the base has none. config.json asks for them in all projections of attention, or of the MLP, or in none of them.
struct NewBiases {
  bool attention = false, mlp = false;

  static bool is_attention(const ModelConfig& config, Index slot) { return config.projection_of(slot) <= Projection::output; }
  /// Throws ValueError for a family whose config.json cannot say that there are biases.
  NewBiases(const Merger& merger, const FolderTensors& folder) {
    const ModelConfig& config = merger.model().config;
    const Architecture& family = architecture_of(config);
    for (Index s = 0; s < config.head_slot(); ++s) {
      if (!merger.bias(s) || folder.has(merger.path(s) + ".bias")) continue;
      const bool in_attention = is_attention(config, s);
      lowrank::check<lowrank::ValueError>((in_attention ? family.attention_bias : family.mlp_bias) == Biases::by_key, "merge",
                                          merger.path(s), ": the update has a bias, and models of the type ", family.type,
                                          " have none there; use the adapter without merging it");
      (in_attention ? attention : mlp) = true;
    }
  }
  void append(const Merger& merger, const FolderTensors& folder, std::vector<StoredTensor>& tensors) const {
    const auto dtype = folder.file_of("model.norm.weight").at("model.norm.weight").dtype;
    for (Index s = 0; s < merger.model().head_slot(); ++s) {
      const std::string name = merger.path(s) + ".bias";
      if (!(is_attention(merger.model().config, s) ? attention : mlp) || folder.has(name)) continue;
      const auto bias = merger.bias(s).value_or(lowrank::Column<float>::Zero(merger.model().layer(s).out_features()));
      tensors.push_back(lowrank::detail::to_tensor(name, bias, dtype, true));
    }
  }
};

/// config.json, saying what is no longer as it was: a tied head, the type of the numbers, biases, layers in few bits.
void write_config(const Merger& merger, const NewBiases& biases, const fs::path& from, const fs::path& to) {
  const std::string& type = merger.options().to;
  if (!merger.unties() && type == "same" && !biases.attention && !biases.mlp && !merger.grows()) return copy_whole(from, to);
  auto config = lowrank::json::parse(read_text(from), "merge", from.string());
  if (merger.unties()) config["tie_word_embeddings"] = false;
  if (merger.grows()) config["vocab_size"] = merger.tokens();
  if (biases.attention) config["attention_bias"] = true;
  if (biases.mlp) config["mlp_bias"] = true;
  if (type != "same") config.erase("quantization_config");
  const char* dtype = type == "f32" ? "float32" : type == "f16" ? "float16" : "bfloat16";
  for (const char* key : {"dtype", "torch_dtype"})
    if (type != "same" && config.contains(key)) config[key] = dtype;
  lowrank::AtomicFile file(to, "merge");
  file.write(lowrank::json::text_of(config, 2) + "\n");
  file.commit();
}

/// The head that was the token table, as a tensor of its own.
void append_head(Merger& merger, const FolderTensors& folder, std::vector<StoredTensor>& tensors) {
  const Index slot = merger.model().head_slot();
  const std::string table = merger.path(merger.model().embedding_slot()), head = merger.path(slot);
  const auto& file = folder.file_of(table + ".weight");
  if (merger.changes(slot)) {
    for (StoredTensor& part : merged_parts(merger, slot, file, table, head)) tensors.push_back(std::move(part));
  } else {
    tensors.push_back(file.at(table + ".weight"));
    tensors.back().name = head + ".weight";
  }
}

void merge_folder(Merger& merger, const fs::path& source, const fs::path& out) {
  const FolderTensors folder(source);
  check_search(merger, folder);
  lowrank::check<lowrank::ValueError>(!fs::exists(out / "model.safetensors.index.json"), "merge", lowrank::path_text(out),
                                      " holds a model in several files already; choose another --out");
  const auto slots = folder_slots(merger);
  std::vector<StoredTensor> tensors;
  for (const auto& file : folder.files())
    for (const StoredTensor& tensor : file.tensors()) append_merged(merger, slots, folder, file, tensor, tensors);
  if (merger.unties()) append_head(merger, folder, tensors);
  const NewBiases biases(merger, folder);
  biases.append(merger, folder, tensors);
  fs::create_directories(out);
  lowrank::safetensors::write(out / "model.safetensors", tensors, {{"format", "pt"}});
  copy_companions(source, out);
  write_config(merger, biases, source / "config.json", out / "config.json");
}

}  // namespace

MergedModel merge_model(const Transformer& model, const LoraSet& set, const fs::path& source, const fs::path& out,
                        const MergeOptions& options) {
  std::error_code failure;
  lowrank::check<lowrank::ValueError>(!fs::equivalent(source, out, failure), "merge", "--out is the model itself; choose another");
  Merger merger(model, set, options);
  merger.check_biases();
  fs::is_directory(source) ? merge_folder(merger, source, out) : merge_gguf(merger, source, out);
  return std::move(merger.result());
}

}  // namespace transformer
