#include <transformer/load_gguf.hpp>

#include <cmath>
#include <filesystem>
#include <set>
#include <string>

#include <lowrank/io/finite.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>

namespace transformer {

namespace {

/// Reads the tensors of a file by name, checks each shape, and knows afterwards which were left over.
class GgufReader {
 public:
  explicit GgufReader(const lowrank::gguf::File& file) : file_(file) {}

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  /// name.weight [rows, cols], with name.bias [rows] where the file has one.
  lowrank::AnyLinear linear(const std::string& name, Index rows, Index cols) {
    const auto& tensor = take(name + ".weight", {rows, cols});
    const auto wrong = lowrank::first_row_not_finite(tensor);
    lowrank::check<lowrank::FormatError>(!wrong, "load_gguf", file_.path().string(), ": tensor ", tensor.name, " holds numbers in row ",
                                         wrong.value_or(0), " that are not finite; the file is damaged");
    return lowrank::AnyLinear(lowrank::gguf::matrix(tensor, "load_gguf"),
                              has(name + ".bias") ? vector(name + ".bias", rows) : lowrank::Column<float>{});
  }
  lowrank::Column<float> vector(const std::string& name, Index size) {
    const auto& tensor = take(name, {size});
    lowrank::check<lowrank::FormatError>(is_dense(tensor.type), "load_gguf", file_.path().string(), ": tensor ", name, " is ",
                                         lowrank::ggml_traits(tensor.type).name, " but vectors must be F32, F16 or BF16");
    const std::vector<float> values = lowrank::gguf::to_floats(tensor);
    const lowrank::Column<float> result = Eigen::Map<const lowrank::Column<float>>(values.data(), size);
    lowrank::check<lowrank::FormatError>(result.allFinite(), "load_gguf", file_.path().string(), ": tensor ", name,
                                         " holds numbers that are not finite; the file is damaged");
    return result;
  }
  Parameter<float> norm(const std::string& name, Index size) {
    Parameter<float> weight;
    weight.name = name;
    weight.value = vector(name, size);
    weight.trainable = false;
    return weight;
  }

  /// Throws FormatError if the file has a tensor that nobody asked for.
  void finish() const {
    for (const auto& tensor : file_.tensors())
      lowrank::check<lowrank::FormatError>(taken_.contains(tensor.name), "load_gguf", file_.path().string(), ": unexpected tensor ",
                                           lowrank::name_text(tensor.name), "; this is not the plain Llama architecture");
  }

 private:
  static bool is_dense(lowrank::GgmlType type) {
    return type == lowrank::GgmlType::f32 || type == lowrank::GgmlType::f16 || type == lowrank::GgmlType::bf16;
  }
  const lowrank::gguf::Tensor& take(const std::string& name, const std::vector<Index>& shape) {
    const auto& tensor = file_.tensor(name);
    lowrank::check<lowrank::FormatError>(tensor.shape == shape, "load_gguf", file_.path().string(), ": tensor ", name, " is ",
                                         lowrank::shape_text(tensor.shape), " but the metadata asks for ", lowrank::shape_text(shape));
    taken_.insert(name);
    return tensor;
  }

  const lowrank::gguf::File& file_;
  std::set<std::string> taken_;
};

}  // namespace

LlamaConfig gguf_config(const lowrank::gguf::File& file) {
  using lowrank::FormatError;
  const auto architecture = file.get<std::string>("general.architecture");
  lowrank::check<FormatError>(architecture == "llama", "load_gguf", file.path().string(), " has the architecture ",
                              lowrank::name_text(architecture), "; llama is supported");
  const auto kind = file.get_or<std::string>("general.type", "model");
  lowrank::check<FormatError>(kind == "model", "load_gguf", file.path().string(), " is of the type ", lowrank::name_text(kind),
                              "; give a model");
  lowrank::check<FormatError>(file.get_or<Index>("llama.expert_count", 0) == 0, "load_gguf", file.path().string(),
                              " is a mixture of experts; dense models are supported");
  LlamaConfig config;
  config.hidden = file.get<Index>("llama.embedding_length");
  config.layers = file.get<Index>("llama.block_count");
  config.heads = file.get<Index>("llama.attention.head_count");
  config.kv_heads = file.get_or<Index>("llama.attention.head_count_kv", config.heads);
  lowrank::check<FormatError>(config.heads > 0, "load_gguf", file.path().string(), ": llama.attention.head_count is ", config.heads,
                              "; it must be positive");
  config.head_size = file.get_or<Index>("llama.attention.key_length", config.hidden / config.heads);
  config.intermediate = file.get<Index>("llama.feed_forward_length");
  config.context = file.get<Index>("llama.context_length");
  config.norm_epsilon = file.get<float>("llama.attention.layer_norm_rms_epsilon");
  config.vocabulary = file.tensor("token_embd.weight").rows();
  config.tied_head = file.find_tensor("output.weight") == nullptr;
  config.rope = {config.head_size, file.get_or<float>("llama.rope.freq_base", 10000.0f), lowrank::RopePairs::interleaved, {}};
  config.validate();
  lowrank::check<FormatError>(config.rope.base > 0 && std::isfinite(config.rope.base), "load_gguf", file.path().string(),
                              ": llama.rope.freq_base is ", config.rope.base, "; it must be positive");

  const Index turned = file.get_or<Index>("llama.rope.dimension_count", config.head_size);
  lowrank::check<FormatError>(turned == config.head_size, "load_gguf", file.path().string(), ": RoPE turns ", turned, " of ",
                              config.head_size, " numbers of a head; all are supported");
  const auto scaling = file.get_or<std::string>("llama.rope.scaling.type", "none");
  lowrank::check<FormatError>(scaling == "none" || scaling == "linear", "load_gguf", file.path().string(), ": RoPE scaling ",
                              lowrank::name_text(scaling), "; none and linear are supported");
  if (scaling == "linear") {
    const auto factor = file.get<float>("llama.rope.scaling.factor");
    lowrank::check<FormatError>(factor > 0 && std::isfinite(factor), "load_gguf", file.path().string(), ": llama.rope.scaling.factor is ",
                                factor, "; it must be positive");
    config.rope.frequency_factors.assign(static_cast<std::size_t>(config.head_size / 2), factor);
  }
  return config;
}

Llama load_gguf(const lowrank::gguf::File& file) {
  Llama model;
  model.config = gguf_config(file);
  LlamaConfig& c = model.config;
  GgufReader reader(file);
  if (reader.has("rope_freqs.weight")) {
    const auto factors = reader.vector("rope_freqs.weight", c.head_size / 2);
    lowrank::check<lowrank::FormatError>((factors.array() > 0).all(), "load_gguf", file.path().string(),
                                         ": rope_freqs.weight must be positive");
    c.rope.frequency_factors.assign(factors.begin(), factors.end());
  }
  model.embedding = AdaptedLinear(reader.linear("token_embd", c.vocabulary, c.hidden));
  for (Index i = 0; i < c.layers; ++i) {
    const std::string block = lowrank::concat("blk.", i, '.');
    const auto map = [&](Projection p, Index out, Index in) { return AdaptedLinear(reader.linear(block + gguf_name(p), out, in)); };
    model.blocks.push_back({reader.norm(block + "attn_norm.weight", c.hidden), reader.norm(block + "ffn_norm.weight", c.hidden),
                            map(Projection::query, c.query_width(), c.hidden), map(Projection::key, c.kv_width(), c.hidden),
                            map(Projection::value, c.kv_width(), c.hidden), map(Projection::output, c.hidden, c.query_width()),
                            map(Projection::gate, c.intermediate, c.hidden), map(Projection::up, c.intermediate, c.hidden),
                            map(Projection::down, c.hidden, c.intermediate)});
  }
  model.final_norm = reader.norm("output_norm.weight", c.hidden);
  if (!c.tied_head) model.separate_head = AdaptedLinear(reader.linear("output", c.vocabulary, c.hidden));
  reader.finish();
  return model;
}

Llama load_gguf(const std::filesystem::path& path) { return load_gguf(lowrank::gguf::File::open(path)); }

}  // namespace transformer
