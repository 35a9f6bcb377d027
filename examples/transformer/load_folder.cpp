#include <transformer/load_folder.hpp>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/bitsandbytes.hpp>
#include <lowrank/io/finite.hpp>
#include <lowrank/io/json.hpp>
#include <lowrank/io/safetensors_folder.hpp>
#include <lowrank/io/safetensors_matrix.hpp>
#include <lowrank/nn/any_linear.hpp>

#include <transformer/architecture.hpp>
#include <transformer/data.hpp>
#include <transformer/folder.hpp>
#include <transformer/packed_folder.hpp>

namespace transformer {

namespace {

using lowrank::StoredTensor;

/// Fields of config.json that change no logits.
bool is_harmless(const std::string& key) {
  static const std::set<std::string> keys = {"architectures",
                                             "_name_or_path",
                                             "transformers_version",
                                             "torch_dtype",
                                             "dtype",
                                             "initializer_range",
                                             "use_cache",
                                             "cache_implementation",
                                             "attention_dropout",
                                             "attn_pdrop",
                                             "resid_pdrop",
                                             "embd_pdrop",
                                             "bos_token_id",
                                             "eos_token_id",
                                             "pad_token_id",
                                             "pretraining_tp",
                                             "_attn_implementation",
                                             "attn_implementation",
                                             "auto_map",
                                             "return_dict",
                                             "output_attentions",
                                             "output_hidden_states",
                                             "quantization_config",
                                             "unsloth_version",
                                             "unsloth_fixed",
                                             "rope_interleaved",
                                             "task_specific_params",
                                             "tokenizer_class",
                                             "max_length",
                                             "temperature",
                                             "top_k",
                                             "top_p",
                                             "repetition_penalty",
                                             "do_sample",
                                             "id2label",
                                             "label2id",
                                             "problem_type",
                                             "torchscript",
                                             "use_bfloat16",
                                             "chunk_size_feed_forward",
                                             "finetuning_task",
                                             "is_decoder",
                                             "cross_attention_hidden_size",
                                             "tie_encoder_decoder",
                                             "_sliding_window_pattern"};
  return keys.contains(key);
}

lowrank::Column<float> folder_vector(FolderTensors& tensors, const std::string& name, Index size) {
  const std::vector<float> values = lowrank::to_floats(tensors.take(name, {size}));
  const lowrank::Column<float> result = Eigen::Map<const lowrank::Column<float>>(values.data(), size);
  lowrank::check<lowrank::FormatError>(result.allFinite(), "load_folder", "tensor ", name,
                                       " holds numbers that are not finite; the file is damaged");
  return result;
}

/// name.weight [rows, cols], dense or in 4 bits of bitsandbytes, GPTQ or AWQ, with name.bias where there is one.
lowrank::AnyLinear folder_linear(FolderTensors& tensors, const std::string& name, Index rows, Index cols) {
  using namespace lowrank;
  const std::string weight = name + ".weight";
  Column<float> bias;
  if (tensors.has(name + ".bias")) bias = folder_vector(tensors, name + ".bias", rows);
  if (auto packed = take_packed(tensors, name, rows, cols)) return AnyLinear(std::move(*packed), std::move(bias));
  const auto& file = tensors.file_of(weight);
  if (bitsandbytes::contains(file, name)) {
    tensors.mark(weight);
    AnyMatrix matrix = bitsandbytes::load_weight(file, name);
    check<FormatError>(matrix.rows() == rows && matrix.cols() == cols, "load_folder", weight, " is [", matrix.rows(), ", ", matrix.cols(),
                       "] but config.json asks for [", rows, ", ", cols, ']');
    return AnyLinear(std::move(matrix), std::move(bias));
  }
  const StoredTensor& tensor = tensors.take(weight, {rows, cols});
  const auto wrong = first_row_not_finite(tensor);
  check<FormatError>(!wrong, "load_folder", path_text(file.path()), ": tensor ", weight, " holds numbers in row ", wrong.value_or(0),
                     " that are not finite; the file is damaged");
  return AnyLinear(safetensors::matrix(tensor, "load_folder"), std::move(bias));
}

/// A norm's weight; families that store w − 1 get the 1 back.
Parameter<float> folder_norm(FolderTensors& tensors, const std::string& name, Index size, bool adds_one) {
  Parameter<float> weight;
  weight.name = name;
  weight.value = folder_vector(tensors, name, size);
  if (adds_one) weight.value.array() += 1.0f;
  weight.trainable = false;
  return weight;
}

/// Throws FormatError where config.json and the tensors do not agree on the bias of a map.
void check_bias(const Fields& fields, const Architecture& family, Projection p, const std::string& name, bool has_bias) {
  const bool is_mlp = p >= Projection::gate;
  const char* const key = is_mlp ? "mlp_bias" : "attention_bias";
  const Biases rule = is_mlp ? family.mlp_bias : family.attention_bias;
  const bool by_key = rule == Biases::by_key && fields.flag(key).value_or(false);
  const bool wanted = rule == Biases::query_key_value ? p <= Projection::value : by_key;
  if (has_bias == wanted) return;
  const std::string says = rule == Biases::by_key ? lowrank::concat(key, ' ', wanted ? "true" : "false")
                                                  : lowrank::concat("the model_type ", family.type, ", whose ", module_name(p),
                                                                    wanted ? " has a bias" : " has none");
  lowrank::fail<lowrank::FormatError>("load_folder", fields.file(), " says ", says, ", but the weights have ", has_bias ? "a " : "no ",
                                      lowrank::name_text(name + ".bias"), "; the two must agree");
}

/// Fields of config.json.
Fields folder_fields(const std::filesystem::path& folder) {
  const std::string path = (folder / "config.json").string();
  if (!std::filesystem::exists(path))
    lowrank::fail<lowrank::FormatError>("load_folder", lowrank::path_text(folder),
                                        std::filesystem::exists(folder / "model.safetensors")
                                            ? " has no config.json, which says what the model is"
                                            : lowrank::safetensors::instead_of_model(folder));
  return Fields(lowrank::json::parse(read_text(path), "load_folder", path), "load_folder", path);
}

ModelConfig config_of(const Fields& fields) {
  ModelConfig config = read_config(find_architecture(fields, fields.text("model_type").value_or("")), fields);
  for (const char* flag : {"attention_bias", "mlp_bias"}) static_cast<void>(fields.find(flag));  // see check_bias
  for (const std::string& key : fields.unread())
    if (!is_harmless(key)) config.unread.push_back(key);
  return config;
}

/// Whether two tables of a folder are the same bytes.
bool are_equal(const FolderTensors& tensors, const std::string& a, const std::string& b) {
  const StoredTensor &left = tensors.file_of(a).at(a), &right = tensors.file_of(b).at(b);
  const auto x = left.bytes.bytes(), y = right.bytes.bytes();
  return left.dtype == right.dtype && left.shape == right.shape && std::equal(x.begin(), x.end(), y.begin(), y.end());
}

/// The token table and the head. A head that config.json calls tied may be there a second time; one that is another is the head, as in
/// transformers; and where it is there alone, it is the token table, too.
void load_tables(FolderTensors& tensors, Transformer& model) {
  ModelConfig& c = model.config;
  const std::string table = "model.embed_tokens", head = "lm_head";
  const bool has_table = tensors.has(table + ".weight"), has_head = tensors.has(head + ".weight");
  const bool head_serves = c.tied_head && !has_table && has_head;
  model.embedding = AdaptedLinear(folder_linear(tensors, head_serves ? head : table, c.vocabulary, c.hidden));
  if (head_serves) return;
  if (c.tied_head && has_head && are_equal(tensors, table + ".weight", head + ".weight")) return tensors.mark(head + ".weight");
  if (c.tied_head && !has_head) return;
  c.tied_head = false;
  model.separate_head = AdaptedLinear(folder_linear(tensors, head, c.vocabulary, c.hidden));
}

}  // namespace

ModelConfig folder_config(const std::filesystem::path& folder) { return config_of(folder_fields(folder)); }

Transformer load_folder(const std::filesystem::path& folder) {
  const Fields fields = folder_fields(folder);
  Transformer model;
  model.config = config_of(fields);
  const ModelConfig& c = model.config;
  const Architecture& family = architecture_of(c);
  FolderTensors tensors(folder);
  load_tables(tensors, model);
  for (Index i = 0; i < c.layers; ++i) {
    const std::string prefix = lowrank::concat("model.layers.", i, '.');
    Block block;
    for (const NormName& norm : family.norms)
      block.norm(norm.place) = folder_norm(tensors, prefix + norm.folder + ".weight", c.norm_size(norm.place), family.norms_add_one);
    for (const Projection p : c.projections()) {
      const std::string name = prefix + module_name(p);
      check_bias(fields, family, p, name, tensors.has(name + ".bias"));
      block.maps.emplace_back(folder_linear(tensors, name, c.out_features(p), c.in_features(p)));
    }
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = folder_norm(tensors, "model.norm.weight", c.hidden, family.norms_add_one);
  tensors.finish();
  return model;
}

}  // namespace transformer
