#include <transformer/load_gguf.hpp>

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/finite.hpp>
#include <lowrank/io/gguf.hpp>
#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/nn/any_linear.hpp>
#include <lowrank/nn/frozen_linear.hpp>

#include <transformer/architecture.hpp>

namespace transformer {

namespace {

/// Reads the tensors of a file by name, checks each shape, and knows afterwards which were left over.
class GgufReader {
 public:
  explicit GgufReader(const lowrank::gguf::File& file) : file_(file) {}

  std::string path() const { return file_.path().string(); }
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
      lowrank::check<lowrank::FormatError>(taken_.contains(tensor.name) || tensor.name.ends_with(".attn_rot_embd"), "load_gguf",
                                           file_.path().string(), ": unexpected tensor ", lowrank::name_text(tensor.name),
                                           "; the architecture that the file names has no such tensor");
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

/// RoPE factors that a file has as tensors: of all texts, or of short and of long ones.
void read_rope_factors(GgufReader& reader, ModelConfig& config) {
  const auto factors = [&](const char* name) {
    const auto values = reader.vector(name, config.rope.turned_size() / 2);
    lowrank::check<lowrank::FormatError>((values.array() > 0).all(), "load_gguf", reader.path(), ": ", name, " must be positive");
    return std::vector<double>(values.begin(), values.end());
  };
  if (reader.has("rope_freqs.weight")) {
    lowrank::check<lowrank::FormatError>(config.rope.frequency_factors.empty(), "load_gguf", reader.path(), ": rope_freqs.weight and ",
                                         config.architecture,
                                         ".rope.scaling.type both stretch the positions; "
                                         "which of the two counts is not known");
    config.rope.frequency_factors = factors("rope_freqs.weight");
  }
  if (!reader.has("rope_factors_long.weight")) return;
  config.rope.frequency_factors = factors("rope_factors_short.weight");
  config.growth.kind = RopeGrowth::Kind::long_factors;
  config.growth.long_factors = factors("rope_factors_long.weight");
}

}  // namespace

ModelConfig gguf_config(const lowrank::gguf::File& file) {
  using lowrank::FormatError;
  const auto kind = file.get_or<std::string>("general.type", "model");
  lowrank::check<FormatError>(kind == "model", "load_gguf", file.path().string(), " is of the type ", lowrank::name_text(kind),
                              kind == "adapter" ? "; give it as the adapter, and here the model that it was trained on" : "; give a model");
  const auto architecture = file.get<std::string>("general.architecture");
  const Fields fields = Fields::of_gguf(file, architecture);
  ModelConfig config = read_config(find_architecture(fields, architecture), fields, file.tensor("token_embd.weight").rows());
  config.tied_head = file.find_tensor("output.weight") == nullptr;
  static_cast<void>(fields.find("vocab_size"));  // the table's rows say it
  config.unread = fields.unread();
  return config;
}

Transformer load_gguf(const lowrank::gguf::File& file) {
  Transformer model;
  model.config = gguf_config(file);
  ModelConfig& c = model.config;
  GgufReader reader(file);
  read_rope_factors(reader, c);
  model.embedding = AdaptedLinear(reader.linear("token_embd", c.vocabulary, c.hidden));
  for (Index i = 0; i < c.layers; ++i) {
    const std::string prefix = lowrank::concat("blk.", i, '.');
    Block block;
    for (const NormName& norm : architecture_of(c).norms)
      block.norm(norm.place) = reader.norm(prefix + norm.gguf + ".weight", c.norm_size(norm.place));
    for (const Projection p : c.projections())
      block.maps.emplace_back(reader.linear(prefix + gguf_name(p), c.out_features(p), c.in_features(p)));
    model.blocks.push_back(std::move(block));
  }
  model.final_norm = reader.norm("output_norm.weight", c.hidden);
  if (!c.tied_head) model.separate_head = AdaptedLinear(reader.linear("output", c.vocabulary, c.hidden));
  reader.finish();
  return model;
}

Transformer load_gguf(const std::filesystem::path& path) { return load_gguf(lowrank::gguf::File::open(path)); }

}  // namespace transformer
