#pragma once

#include <functional>
#include <numeric>
#include <span>
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

LOWRANK_INLINE Index ModuleTensors::in() const {
  const auto& shape = a().shape;
  Index in = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) in *= shape[i];
  return in;
}

LOWRANK_INLINE std::vector<Index> ModuleTensors::kernel() const {
  const StoredTensor* factor = find(a_name());
  if (factor == nullptr || factor->shape.size() <= 2) return {};
  return {factor->shape.begin() + 2, factor->shape.end()};
}

LOWRANK_INLINE std::vector<Index> shape_in_file(std::string_view name, std::vector<Index> shape, const std::vector<Index>& kernel) {
  if (kernel.empty()) return shape;
  const std::vector<Index> ones(kernel.size(), 1);
  const bool is_a = name.ends_with("lora_A.weight");
  if (is_a || name.ends_with("lora_B.weight")) {
    if (is_a) shape.at(1) /= std::accumulate(kernel.begin(), kernel.end(), Index{1}, std::multiplies<>());
    shape.insert(shape.end(), (is_a ? kernel : ones).begin(), (is_a ? kernel : ones).end());
  } else if (name.ends_with("lora_magnitude_vector")) {
    shape.insert(shape.begin(), 1);
    shape.insert(shape.end(), ones.begin(), ones.end());
  }
  return shape;
}

LOWRANK_INLINE ModuleTensors with_kernel(ModuleTensors lora, const std::vector<Index>& kernel) {
  for (auto& [name, tensor] : lora.tensors) tensor.shape = shape_in_file(name, std::move(tensor.shape), kernel);
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

LOWRANK_INLINE std::string describe(const Adapter& adapter) {
  return concat("Adapter ", printable(adapter.config.peft_type, 40), " rank ", adapter.config.rank, ", alpha ", adapter.config.alpha, ", ",
                adapter.layers.size(), adapter.layers.size() == 1 ? " layer, " : " layers, ", adapter.parameter_count(), " parameters, ",
                bytes_text(adapter.bytes()));
}

LOWRANK_INLINE std::string name_in_file(std::string_view path, std::string_view tensor) {
  return concat(path, tensor.starts_with('_') ? "" : ".", tensor);
}

LOWRANK_INLINE Weight<float> to_weight(const StoredTensor& tensor) {
  const auto& shape = tensor.shape;
  check<ShapeError>(!shape.empty(), "to_weight", tensor.name, " is a number alone but must have rows, or be a vector");
  const std::vector<float> values = to_floats(tensor);
  const Index rows = shape.size() == 1 ? 1 : shape.front();
  return ConstWeightMap<float>(values.data(), rows, rows == 0 ? 0 : tensor.size() / rows);
}

LOWRANK_INLINE StoredTensor from_weight(std::string name, const Weight<float>& w) {
  return make_tensor<float>(std::move(name), {w.rows(), w.cols()}, std::span(w.data(), static_cast<std::size_t>(w.size())));
}

}  // namespace lowrank::inline LOWRANK_ABI
