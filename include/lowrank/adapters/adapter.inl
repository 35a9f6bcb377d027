#pragma once

#include <utility>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_INLINE const StoredTensor* ModuleTensors::find(std::string_view name) const {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &found->second;
}

LOWRANK_INLINE const StoredTensor& ModuleTensors::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  check<ValueError>(tensor != nullptr, "adapter", "a module has no tensor ", name,
                    "; its update is no product of two factors, or not of this kind: convert it to LoRA first");
  return *tensor;
}

LOWRANK_INLINE std::optional<std::string_view> ModuleTensors::beyond_sum() const {
  for (const auto& [name, tensor] : tensors)
    if (name != a_name() && name != b_name() && name != bias_name) return name;
  return std::nullopt;
}

LOWRANK_INLINE ModuleTensors lora_tensors(StoredTensor a, StoredTensor b, double scale, bool is_embedding) {
  ModuleTensors lora{{}, scale, is_embedding};
  lora.tensors.emplace(lora.a_name(), std::move(a));
  lora.tensors.emplace(lora.b_name(), std::move(b));
  return lora;
}

LOWRANK_INLINE Index Adapter::parameter_count() const {
  Index count = 0;
  visit([&](const StoredTensor& tensor) { count += tensor.size(); });
  return count;
}

LOWRANK_INLINE std::size_t Adapter::bytes() const {
  std::size_t size = 0;
  visit([&](const StoredTensor& tensor) { size += tensor.bytes.size(); });
  return size;
}

LOWRANK_INLINE std::string name_in_file(std::string_view path, std::string_view tensor) {
  return concat(path, tensor.starts_with('_') ? "" : ".", tensor);
}

LOWRANK_INLINE Weight<float> to_weight(const StoredTensor& tensor) {
  check<ShapeError>(tensor.shape.size() == 1 || tensor.shape.size() == 2, "to_weight", tensor.name, " is ", shape_text(tensor.shape),
                    " but must be a matrix or a vector");
  const std::vector<float> values = to_floats(tensor);
  const Index cols = tensor.shape.back();
  return ConstWeightMap<float>(values.data(), cols == 0 ? 0 : tensor.size() / cols, cols);
}

LOWRANK_INLINE StoredTensor from_weight(std::string name, const Weight<float>& w) {
  return make_tensor<float>(std::move(name), {w.rows(), w.cols()}, std::span(w.data(), static_cast<std::size_t>(w.size())));
}

}  // namespace lowrank::inline LOWRANK_ABI
