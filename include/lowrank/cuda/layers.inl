#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <lowrank/cuda/kernels/list.hpp>
#include <lowrank/cuda/product.hpp>
#include <lowrank/cuda/weight.hpp>
#include <lowrank/error.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::vector<Var<float, Cuda>> forward_together(std::span<const LayerUse> uses, const Var<float, Cuda>& x) {
  std::vector<detail::GroupLayer<float>> layers;
  for (const LayerUse& use : uses) {
    check<ValueError>(!use.layer->base.weight_trainable(), "linear",
                      "the layer's weight is trainable; on a GPU weights are frozen and updates train: call set_trainable(false)");
    layers.push_back(detail::group_layer(use.layer->base, use.update, use.ranges, x.cols(), x.tape() != nullptr));
  }
  const detail::GroupPlans<float> plans(layers, {.is_recorded = x.tape() != nullptr});
  const LayerGroup<float> group(plans.layers, x.rows(), x.cols(), Compute::bf16);
  std::vector<std::shared_ptr<cuda::LayerPass>> passes;
  Index room = 0, place = 0;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    passes.push_back(std::make_shared<cuda::LayerPass>(uses[i].layer->base, group, i));
    room += passes.back()->room();
  }
  const auto input = std::make_shared<const cuda::Rounded>(x.value(), room);
  std::vector<Var<float, Cuda>> outputs;
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const auto& pass = passes[i];
    auto y = record(
        pass->forward(input, place), {x},
        [pass, witnesses = plans.witnesses](auto& flow) {
          for (const auto& witness : witnesses) witness.check_unchanged();
          pass->backward(flow);
        },
        pass->trains());
    outputs.push_back(std::move(y).kept_as(uses[i].layer->base.compute()));
    place += pass->room();
  }
  return outputs;
}

LOWRANK_INLINE Var<float, Cuda> add_embedding_update(Var<float, Cuda>, std::span<const std::int32_t>, Index, LoraWeights<float>&) {
  fail<ValueError>("embedding_lora", "an update of the token table does not run on a GPU yet; leave embed_tokens out, or use the CPU");
}

LOWRANK_INLINE Var<float, Cuda> embed(AnyLinear& table, Tape<float, Cuda>* tape, std::span<const std::int32_t> ids) {
  for (std::size_t t = 0; t < ids.size(); ++t)
    check<ValueError>(ids[t] >= 0 && ids[t] < table.out_features(), "embedding", "id ", ids[t], " at token ", t, " is outside [0, ",
                      table.out_features(), "); the ids belong to another vocabulary");
  check<ValueError>(!table.weight_trainable(), "embedding", "the token table is trainable; on a GPU it is frozen: use the CPU");
  auto& machine = cuda::Machine::current();
  cuda::DeviceActivation x(table.in_features(), static_cast<Index>(ids.size()));
  const cuda::Memory numbers = machine.uploaded(ids.data(), ids.size_bytes(), true);
  machine.launch(cuda::EmbeddingForward{cuda::on_device(table), reinterpret_cast<const std::int32_t*>(numbers.get()),
                                        cuda::detail::narrow(x.cols()), x.data()});
  return tape ? tape->input(std::move(x)) : Var<float, Cuda>(std::move(x));
}

}  // namespace lowrank::inline LOWRANK_ABI
