#include <transformer/save_gguf.hpp>

#include <cstring>
#include <vector>

#include <lowrank/io/gguf_matrix.hpp>
#include <lowrank/io/gguf_write.hpp>

#include <transformer/architecture.hpp>
#include <transformer/merged_weight.hpp>
#include <transformer/open_adapter.hpp>
#include <transformer/tokenizer/utf8.hpp>

namespace transformer {

namespace {

lowrank::Buffer copy_of(const void* data, std::size_t size) {
  lowrank::Buffer buffer = lowrank::Buffer::allocate(size);
  if (size > 0) std::memcpy(buffer.mutable_as<std::byte>(), data, size);
  return buffer;
}

lowrank::gguf::Tensor gguf_floats(std::string name, std::vector<Index> shape, const float* values) {
  lowrank::gguf::Tensor tensor{std::move(name), lowrank::GgmlType::f32, std::move(shape), {}};
  tensor.bytes = copy_of(values, static_cast<std::size_t>(tensor.size()) * sizeof(float));
  return tensor;
}

lowrank::gguf::Value text_array(std::vector<std::string> items) { return lowrank::gguf::Array{std::move(items)}; }

/// The vocabulary of a byte-level model: 256 bytes, then end-of-text; no merges.
void add_byte_tokenizer(lowrank::gguf::Metadata& metadata) {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> kinds(256, 1);  // normal
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(byte_names().name(static_cast<unsigned char>(byte)));
  tokens.push_back("<|endoftext|>"), kinds.push_back(3);  // control
  metadata.insert(metadata.end(), {{"tokenizer.ggml.model", std::string("gpt2")},
                                   {"tokenizer.ggml.pre", std::string("gpt-2")},
                                   {"tokenizer.ggml.tokens", text_array(std::move(tokens))},
                                   {"tokenizer.ggml.token_type", lowrank::gguf::Array{std::move(kinds)}},
                                   {"tokenizer.ggml.merges", text_array({})},
                                   {"tokenizer.ggml.bos_token_id", std::uint32_t{256}},
                                   {"tokenizer.ggml.eos_token_id", std::uint32_t{256}},
                                   {"tokenizer.ggml.add_bos_token", false}});
}

lowrank::gguf::Metadata llama_metadata(const ModelConfig& c, const std::string& name) {
  const auto number = [](Index value) { return lowrank::gguf::Value(static_cast<std::uint32_t>(value)); };
  return {{"general.architecture", std::string("llama")},
          {"general.type", std::string("model")},
          {"general.name", name},
          {"general.license", std::string("apache-2.0")},
          {"general.file_type", std::uint32_t{3}},  // mostly Q4_1
          {"general.quantization_version", std::uint32_t{2}},
          {"llama.block_count", number(c.layers)},
          {"llama.context_length", number(c.context)},
          {"llama.embedding_length", number(c.hidden)},
          {"llama.feed_forward_length", number(c.intermediate)},
          {"llama.attention.head_count", number(c.heads)},
          {"llama.attention.head_count_kv", number(c.kv_heads)},
          {"llama.attention.layer_norm_rms_epsilon", c.norm_epsilon},
          {"llama.rope.freq_base", static_cast<float>(c.rope.base)},
          {"llama.rope.dimension_count", number(c.head_size)},
          {"llama.vocab_size", number(c.vocabulary)}};
}

}  // namespace

void save_byte_model(const Transformer& model, const std::string& name, const std::filesystem::path& path) {
  using lowrank::GgmlType;
  const ModelConfig& c = model.config;
  lowrank::check<lowrank::ValueError>(c.architecture == "llama", "save_byte_model", "the model is a ", c.architecture,
                                      "; a model from nothing is written as a llama");
  auto metadata = llama_metadata(c, name);
  add_byte_tokenizer(metadata);
  const auto matrix = [&](const std::string& tensor, GgmlType type, Index slot) {
    return lowrank::gguf::save_matrix(merged_weight(model, {}, slot), tensor, type).tensor;
  };
  std::vector<lowrank::gguf::Tensor> tensors{matrix("token_embd.weight", GgmlType::q8_0, model.embedding_slot())};
  for (Index i = 0; i < c.layers; ++i) {
    const Block& block = model.blocks[static_cast<std::size_t>(i)];
    const std::string prefix = lowrank::concat("blk.", i, '.');
    for (const NormName& norm : architecture_of(c).norms)
      tensors.push_back(gguf_floats(prefix + norm.gguf + ".weight", {c.norm_size(norm.place)}, block.norm(norm.place).value.data()));
    for (const Projection p : c.projections()) tensors.push_back(matrix(prefix + gguf_name(p) + ".weight", GgmlType::q4_1, c.slot(i, p)));
  }
  tensors.push_back(gguf_floats("output_norm.weight", {c.hidden}, model.final_norm.value.data()));
  lowrank::gguf::write(path, metadata, tensors);
}

void check_gguf_adapter(const Transformer& model, const LoraSet& set, const std::filesystem::path& path) {
  check_gguf_adapter(model.config, to_adapter(model, set, {}), path);
}

void save_gguf_adapter(const Transformer& model, const LoraSet& set, const std::filesystem::path& path) {
  save_gguf_adapter(model.config, to_adapter(model, set, {}), path);
}

}  // namespace transformer
