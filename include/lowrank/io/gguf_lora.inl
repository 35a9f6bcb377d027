#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <lowrank/io/adapter_parts.hpp>
#include <lowrank/io/gguf_write.hpp>
#include <lowrank/quant/matrix.hpp>
#include <lowrank/quant/q8_0.hpp>

namespace lowrank::inline LOWRANK_ABI::gguf {

namespace detail {

/// Rows of q and k: the numbers that RoPE turns together are neighbours in GGUF (row 2j + p of a head), half a head apart in Hugging Face
/// files (row p · size/2 + j).
LOWRANK_INLINE StoredTensor reorder_rows(const StoredTensor& b, Index heads, bool to_gguf) {
  if (heads == 0) return b;
  const Index rows = b.shape[0], cols = b.shape[1], size = rows / heads, half = size / 2;
  return lowrank::detail::rearranged(b, rows, cols, [&](Index i, Index j) {
    const Index head = i / size * size, k = i % size;
    return (head + (to_gguf ? k % 2 * half + k / 2 : k % half * 2 + k / half)) * cols + j;
  });
}

LOWRANK_INLINE void check_base(const LoraBase& base) {
  for (const LoraModule& m : base.modules)
    check<ValueError>(m.heads == 0 || (m.heads > 0 && m.out % m.heads == 0 && m.out / m.heads % 2 == 0), "gguf_lora", m.path, " has ",
                      m.out, " rows, which do not divide into ", m.heads, " heads of even size; correct the table of modules");
}

LOWRANK_INLINE std::string shape_of(const ModuleTensors& layer) {
  return concat("A ", shape_text(layer.a().shape), ", B ", shape_text(layer.b().shape));
}

// ---- Writing -----------------------------------------------------------------------------------------------------------------------

LOWRANK_INLINE GgmlType stored_type(DType dtype) {
  return dtype == DType::f16 ? GgmlType::f16 : dtype == DType::bf16 ? GgmlType::bf16 : GgmlType::f32;
}

/// The tensor under that name; what GGUF adapters do not hold (F64), in F32. The bytes are shared where they stay.
LOWRANK_INLINE Tensor to_gguf(const StoredTensor& tensor, std::string name) {
  if (tensor.dtype == DType::f32 || tensor.dtype == DType::f16 || tensor.dtype == DType::bf16)
    return {std::move(name), stored_type(tensor.dtype), tensor.shape, tensor.bytes};
  return to_gguf(make_tensor<float>(tensor.name, tensor.shape, to_floats(tensor)), std::move(name));
}

/// factor · B, in F32 unless the factor is 1.
LOWRANK_INLINE StoredTensor scaled(const StoredTensor& b, double factor) {
  if (factor == 1) return b;
  std::vector<float> values = to_floats(b);
  for (float& x : values) x = static_cast<float>(factor * static_cast<double>(x));
  return make_tensor<float>(b.name, b.shape, values);
}

/// What the file cannot say is refused, by name.
LOWRANK_INLINE void check_savable(const Adapter& adapter, const std::string& file) {
  constexpr std::string_view operation = "gguf::save_adapter";
  check<ValueError>(!adapter.layers.empty(), operation, file, ": the adapter changes no module");
  check<ValueError>(adapter.config.needs_base.empty(), operation, file, ": the adapter makes up for rounding to ",
                    adapter.config.needs_base, " and is right over such a base only, which no GGUF file is; keep it as a folder for PEFT");
  check<ValueError>(adapter.saved.empty(), operation, file, ": the adapter brings a full copy, ",
                    adapter.saved.empty() ? std::string() : name_text(adapter.saved.front().name),
                    ", which GGUF adapters cannot hold; train it without modules_to_save and biases, or merge it into the model");
  for (const auto& [path, layer] : adapter.layers) {
    for (const auto& [name, tensor] : layer.tensors)
      check<ValueError>(
          name == layer.a_name() || name == layer.b_name(), operation, file, ": ", path, " has the tensor ", name,
          ", but GGUF adapters hold a product of two factors and nothing beside it; merge it into the model, or convert it to LoRA");
    const auto &a = layer.a(), &b = layer.b();
    check<ShapeError>(a.shape.size() == 2 && b.shape.size() == 2 && b.shape[1] == layer.rank() && layer.rank() > 0, operation, file, ": ",
                      path, " has ", shape_of(layer), " but A must be [r, in] and B [out, r]");
    check<ValueError>(is_finite(layer.scale), operation, file, ": ", path, " has the scale ", layer.scale, "; it must be finite");
  }
}

/// scale · r of most layers, so that few need their quotient in B; the first of equals.
LOWRANK_INLINE float common_alpha(const Adapter& adapter, const std::string& file) {
  std::map<float, int> counts;
  for (const auto& [path, layer] : adapter.layers)
    if (const auto alpha = static_cast<float>(layer.scale * static_cast<double>(layer.rank())); alpha != 0) ++counts[alpha];
  check<ValueError>(!counts.empty(), "gguf::save_adapter", file, ": every scale is 0, so the adapter does nothing");
  return std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; })->first;
}

LOWRANK_INLINE const LoraModule& module_of(const LoraBase& base, const std::string& path, const ModuleTensors& layer,
                                           const std::string& file) {
  const auto found = std::find_if(base.modules.begin(), base.modules.end(), [&](const auto& m) { return m.path == path; });
  check<ShapeError>(found != base.modules.end(), "gguf::save_adapter", file, ": the adapter changes ", path,
                    ", which the base does not have as a tensor of its own; was it trained on another base?");
  check<ShapeError>(found->in == layer.in() && found->out == layer.out() && found->is_embedding == layer.is_embedding, "gguf::save_adapter",
                    file, ": ", path, " has ", shape_of(layer), " but W is [", found->out, ", ", found->in,
                    "] in the base; was it trained on another base?");
  return *found;
}

}  // namespace detail

LOWRANK_INLINE void check_adapter(const Adapter& adapter, const LoraBase& base, const std::filesystem::path& path) {
  const std::string file = path_text(path);
  detail::check_base(base);
  detail::check_savable(adapter, file);
  for (const auto& [name, layer] : adapter.layers) detail::module_of(base, name, layer, file);
}

LOWRANK_INLINE void save_adapter(const Adapter& adapter, const LoraBase& base, const std::filesystem::path& path) {
  check_adapter(adapter, base, path);
  const std::string file = path_text(path);
  const float alpha = detail::common_alpha(adapter, file);
  std::vector<Tensor> tensors;
  for (const auto& [name, layer] : adapter.layers) {
    const LoraModule& module = detail::module_of(base, name, layer, file);
    const auto own = static_cast<float>(layer.scale * static_cast<double>(layer.rank()));
    const StoredTensor b = detail::scaled(layer.b(), static_cast<double>(own) / static_cast<double>(alpha));
    const StoredTensor a = module.is_embedding ? lowrank::detail::transposed(layer.a()) : layer.a();
    tensors.push_back(detail::to_gguf(a, module.tensor + ".lora_a"));
    tensors.push_back(detail::to_gguf(detail::reorder_rows(b, module.heads, true), module.tensor + ".lora_b"));
  }
  const Metadata metadata{{"general.architecture", base.architecture},
                          {"general.type", std::string("adapter")},
                          {"adapter.type", std::string("lora")},
                          {"adapter.lora.alpha", alpha}};
  write(path, metadata, tensors);
}

namespace detail {

// ---- Reading -----------------------------------------------------------------------------------------------------------------------

/// A or B by itself: F32, F16 and BF16 as they are, Q8_0 dequantized to F32.
LOWRANK_INLINE StoredTensor from_gguf(const Tensor& tensor, const std::string& file) {
  const auto as = [&](DType dtype) { return StoredTensor{tensor.name, dtype, tensor.shape, tensor.bytes}; };
  check<FormatError>(tensor.shape.size() == 2, "gguf::load_adapter", file, ": ", name_text(tensor.name), " is ", shape_text(tensor.shape),
                     " but must be a matrix");
  StoredTensor stored;
  if (tensor.type == GgmlType::f32) {
    stored = as(DType::f32);
  } else if (tensor.type == GgmlType::f16) {
    stored = as(DType::f16);
  } else if (tensor.type == GgmlType::bf16) {
    stored = as(DType::bf16);
  } else {
    check<FormatError>(tensor.type == GgmlType::q8_0, "gguf::load_adapter", file, ": ", name_text(tensor.name), " is ",
                       ggml_traits(tensor.type).name, "; adapters are read in F32, F16, BF16 and Q8_0");
    stored = from_weight(tensor.name, dequantize(QuantizedMatrix<Q8_0>(tensor.rows(), tensor.cols(), tensor.bytes)));
  }
  lowrank::detail::check_finite(stored, "gguf::load_adapter", file);
  return stored;
}

struct Halves {
  const Tensor *a = nullptr, *b = nullptr;
};

/// A and B of every base tensor, in the order of their names. Other tensors are refused.
LOWRANK_INLINE std::map<std::string, Halves> pair_up(const File& file, const std::string& name) {
  std::map<std::string, Halves> pairs;
  for (const Tensor& tensor : file.tensors()) {
    const bool is_a = tensor.name.ends_with(".lora_a"), is_b = tensor.name.ends_with(".lora_b");
    check<FormatError>(is_a || is_b, "gguf::load_adapter", name, ": unexpected tensor ", name_text(tensor.name),
                       "; names must end in .lora_a or .lora_b");
    Halves& pair = pairs[tensor.name.substr(0, tensor.name.size() - 7)];
    (is_a ? pair.a : pair.b) = &tensor;
  }
  for (const auto& [base, pair] : pairs)
    check<FormatError>(pair.a && pair.b, "gguf::load_adapter", name, ": missing tensor ",
                       name_text(base + (pair.a ? ".lora_b" : ".lora_a")), "; its other half is there");
  check<FormatError>(!pairs.empty(), "gguf::load_adapter", name, ": no adapter tensor in it");
  return pairs;
}

/// Kind and architecture of the file are right; returns alpha, 0 when it has none.
LOWRANK_INLINE double check_metadata(const File& file, const std::string& architecture, const std::string& name) {
  const auto expect = [&](const char* key, const std::string& expected, std::string_view advice) {
    const auto value = file.get_or<std::string>(key, "");
    check<FormatError>(value == expected, "gguf::load_adapter", name, ": ", key,
                       value.empty() ? " is not there" : concat(" is ", name_text(value)), " but must be ", name_text(expected), advice);
  };
  expect("general.type", "adapter", "; is this a model? Give it as one, and a GGUF adapter here");
  expect("adapter.type", "lora", "; other adapters are not supported");
  expect("general.architecture", architecture, ", that of the base; the adapter was trained on another one");
  for (const auto& [key, value] : file.metadata()) {
    const bool is_known = key == "adapter.type" || key == "adapter.lora.alpha" || key == "adapter.lora.task_name" ||
                          key == "adapter.lora.prompt_prefix";  // the last two are names for people
    check<FormatError>(is_known || !key.starts_with("adapter."), "gguf::load_adapter", name, ": the key ", name_text(key),
                       " is not supported and may change what the adapter computes");
  }
  const auto alpha = static_cast<double>(file.get_or<float>("adapter.lora.alpha", 0.0f));
  check<FormatError>(is_finite(alpha), "gguf::load_adapter", name, ": adapter.lora.alpha is ", alpha, "; it must be finite");
  return alpha;
}

LOWRANK_INLINE ModuleTensors read_layer(const Halves& pair, const LoraModule& module, double alpha, const std::string& file) {
  const StoredTensor a = from_gguf(*pair.a, file), b = from_gguf(*pair.b, file);
  const Index rank = b.shape[1];
  const std::vector<Index> wanted = module.is_embedding ? std::vector{module.in, rank} : std::vector{rank, module.in};
  check<ShapeError>(a.shape == wanted, "gguf::load_adapter", file, ": ", name_text(pair.a->name), " is ", shape_text(a.shape),
                    " but must be ", shape_text(wanted), " for a W of [", module.out, ", ", module.in,
                    "]; was it trained on another base?");
  check<ShapeError>(b.shape[0] == module.out, "gguf::load_adapter", file, ": ", name_text(pair.b->name), " is ", shape_text(b.shape),
                    " but must be ", shape_text(std::vector{module.out, rank}), " for a W of [", module.out, ", ", module.in,
                    "]; was it trained on another base?");
  return lora_tensors(module.is_embedding ? lowrank::detail::transposed(a) : a, reorder_rows(b, module.heads, false),
                      alpha == 0 ? 1 : alpha / static_cast<double>(rank), module.is_embedding);
}

/// Whether every module that shares the last part of its path with a layer is a layer.
LOWRANK_INLINE bool is_complete(const Adapter& adapter, const LoraBase& base) {
  using lowrank::detail::last_part;
  std::set<std::string_view> names;
  for (const auto& [path, layer] : adapter.layers) names.insert(last_part(path));
  return std::all_of(base.modules.begin(), base.modules.end(),
                     [&](const auto& m) { return !names.contains(last_part(m.path)) || adapter.layers.contains(m.path); });
}

}  // namespace detail

LOWRANK_INLINE Adapter load_adapter(const File& source, const LoraBase& base) {
  const std::string file = path_text(source.path());
  detail::check_base(base);
  const double alpha = detail::check_metadata(source, base.architecture, file);
  std::map<std::string_view, const LoraModule*> modules;
  for (const LoraModule& module : base.modules) modules.emplace(module.tensor, &module);
  Adapter adapter;
  for (const auto& [tensor, pair] : detail::pair_up(source, file)) {
    const auto module = modules.find(tensor);
    check<ShapeError>(module != modules.end(), "gguf::load_adapter", file, ": ", name_text(pair.a->name), " changes ", name_text(tensor),
                      ", which the base does not have; was it trained on another base?");
    adapter.layers.emplace(module->second->path, detail::read_layer(pair, *module->second, alpha, file));
  }
  lowrank::detail::describe_layers(adapter, detail::is_complete(adapter, base));
  adapter.config.task_type = "CAUSAL_LM";
  return adapter;
}

LOWRANK_INLINE Adapter load_adapter(const std::filesystem::path& path, const LoraBase& base) {
  return load_adapter(File::open(path), base);
}

}  // namespace lowrank::inline LOWRANK_ABI::gguf
