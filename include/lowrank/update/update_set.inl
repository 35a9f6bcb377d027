#pragma once

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE std::vector<ModuleShape> module_shapes(const ModelLayers& layers) {
  std::vector<ModuleShape> shapes;
  for (const auto& [path, layer, is_embedding, kernel] : layers) {
    const Index in = layer->in_features(), out = layer->out_features();
    shapes.push_back({path, is_embedding ? out : in, is_embedding ? in : out});
  }
  return shapes;
}

}  // namespace lowrank::inline LOWRANK_ABI
