#pragma once

/// A model of a given shape for measuring a QLoRA step: base in NF4 with double quantization, table and head in bfloat16, updates on all
/// linear layers. Its layers share their weights on the host; on a device each has its own.

#include <cstdlib>

#include <lowrank/quant.hpp>

#include <transformer/adapters.hpp>
#include <transformer/train.hpp>

namespace shaped {

using namespace lowrank;
using transformer::Transformer;

/// What the command line of the programs here names; the default is 65B, 1 x 512, rank 16.
struct Shape {
  transformer::ModelConfig config;
  Index sequences = 1, tokens = 512, rank = 16;
};

/// HIDDEN INTERMEDIATE HEADS KV_HEADS LAYERS VOCABULARY [SEQUENCES TOKENS [RANK]]
inline Shape read_shape(int argc, char** argv) {
  const auto number = [&](int i, Index otherwise) { return i < argc ? static_cast<Index>(std::strtoll(argv[i], nullptr, 10)) : otherwise; };
  Shape shape;
  transformer::ModelConfig& c = shape.config;
  c.hidden = number(1, 8192), c.intermediate = number(2, 22016), c.heads = number(3, 64), c.kv_heads = number(4, 64);
  c.layers = number(5, 80), c.vocabulary = number(6, 32000);
  shape.sequences = number(7, 1), shape.tokens = number(8, 512), shape.rank = number(9, 16);
  c.head_size = c.hidden / c.heads, c.context = shape.tokens, c.rope.head_size = c.head_size;
  return shape;
}

inline Parameter<float> ones(Index n) {
  Parameter<float> parameter;
  parameter.value.setOnes(n, 1);
  parameter.trainable = false;
  return parameter;
}

/// four_bits(out, in) and bfloat16_rows(out, in) make the matrices.
template <class FourBits, class Brain>
Transformer make_model(const transformer::ModelConfig& c, const FourBits& four_bits, const Brain& bfloat16_rows) {
  Transformer model;
  model.config = c;
  model.embedding = AdaptedLinear(AnyLinear(bfloat16_rows(c.vocabulary, c.hidden)));
  model.separate_head = AdaptedLinear(AnyLinear(bfloat16_rows(c.vocabulary, c.hidden)));
  transformer::Block block;
  for (const transformer::NormPlace place : transformer::all_norm_places)
    if (c.has(place)) block.norm(place) = ones(c.norm_size(place));
  for (const transformer::Projection p : c.projections())
    block.maps.emplace_back(AnyLinear(four_bits(c.out_features(p), c.in_features(p))));
  model.blocks.assign(static_cast<std::size_t>(c.layers), block);
  model.final_norm = ones(c.hidden);
  model.set_compute(Compute::bf16);
  return model;
}

inline transformer::LoraSet make_updates(const Transformer& model, Index rank) {
  LoraConfig lora;
  lora.rank = rank;
  lora.target_modules = transformer::parse_targets("all-linear");
  return transformer::new_lora(model, lora, LoraInit::kaiming, 0);
}

/// `count` sequences of tokens + 1 ids below the vocabulary.
inline std::vector<transformer::Example> make_examples(const Shape& shape, Index count) {
  Random random(7, 0);
  std::vector<transformer::Example> examples;
  for (Index i = 0; i < count; ++i) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.tokens + 1));
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random.below(shape.config.vocabulary));
    examples.push_back({std::move(ids)});
  }
  return examples;
}

}  // namespace shaped
