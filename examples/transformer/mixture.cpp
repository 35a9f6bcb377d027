#include <transformer/mixture.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace transformer {

namespace {

using lowrank::GgmlType;

constexpr std::array<Mixture, 9> all_mixtures{{{"q2_k_m", GgmlType::q2_k, 10},
                                               {"q2_k_s", GgmlType::q2_k, 21},
                                               {"q3_k_s", GgmlType::q3_k, 11},
                                               {"q3_k_m", GgmlType::q3_k, 12},
                                               {"q3_k_l", GgmlType::q3_k, 13},
                                               {"q4_k_s", GgmlType::q4_k, 14},
                                               {"q4_k_m", GgmlType::q4_k, 15},
                                               {"q5_k_s", GgmlType::q5_k, 16},
                                               {"q5_k_m", GgmlType::q5_k, 17}}};

bool is_in(const std::string& name, std::string_view part) { return name.find(part) != std::string::npos; }
bool is_values(const std::string& name) { return is_in(name, "attn_v.weight") || is_in(name, "attn_qkv.weight"); }
bool is_down(const std::string& name) { return is_in(name, "ffn_down"); }

/// N of blk.N.…, or -1.
int layer_of(const std::string& name) {
  constexpr std::string_view prefix = "blk.";
  return name.starts_with(prefix) ? std::atoi(name.c_str() + prefix.size()) : -1;
}

/// How many of the layers come before this one.
int rank_in(const std::vector<int>& layers, int layer) {
  return static_cast<int>(std::lower_bound(layers.begin(), layers.end(), layer) - layers.begin());
}

bool gets_more_bits(int i, int n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

/// A number of the metadata; of an array, one for each layer, the first.
lowrank::Index first_number(const lowrank::gguf::File& file, const std::string& key, lowrank::Index fallback) {
  const auto* value = file.find(key);
  if (!value) return fallback;
  if (!std::holds_alternative<lowrank::gguf::Array>(*value)) return file.get<lowrank::Index>(key);
  const auto numbers = file.get<std::vector<lowrank::Index>>(key);
  return numbers.empty() ? fallback : numbers.front();
}

}  // namespace

std::span<const Mixture> mixtures() { return all_mixtures; }

const Mixture* find_mixture(std::string_view name) {
  const auto* const found = std::find_if(all_mixtures.begin(), all_mixtures.end(), [name](const Mixture& m) { return m.name == name; });
  return found == all_mixtures.end() ? nullptr : found;
}

MixtureRule::MixtureRule(const lowrank::gguf::File& file, const Mixture& mixture) : mixture_(mixture) {
  for (const auto& tensor : file.tensors()) {
    if (is_values(tensor.name)) values_.push_back(layer_of(tensor.name));
    if (is_down(tensor.name)) down_.push_back(layer_of(tensor.name));
  }
  std::sort(values_.begin(), values_.end());
  std::sort(down_.begin(), down_.end());
  const auto architecture = file.get_or<std::string>("general.architecture", "");
  layers_ = static_cast<int>(std::clamp<lowrank::Index>(first_number(file, architecture + ".block_count", 0), 0, 1 << 20));
  const auto heads = first_number(file, architecture + ".attention.head_count", 1);
  const auto kv_heads = first_number(file, architecture + ".attention.head_count_kv", heads);
  shares_keys_ = kv_heads > 0 && heads / kv_heads >= 4;
  is_70b_ = architecture == "llama" && layers_ == 80 && heads != kv_heads;
}

GgmlType MixtureRule::of_values(int i) const {
  const std::string_view name = mixture_.name;
  if (name == "q2_k_m") return shares_keys_ ? GgmlType::q4_k : GgmlType::q3_k;
  if (name == "q2_k_s" && shares_keys_) return GgmlType::q4_k;
  if (name == "q3_k_m") return i < 2 ? GgmlType::q5_k : GgmlType::q4_k;
  if (name == "q3_k_l") return GgmlType::q5_k;
  if (name == "q4_k_s" && i < 4) return GgmlType::q5_k;
  if (name.ends_with("_m") && gets_more_bits(i, static_cast<int>(values_.size()))) return GgmlType::q6_k;
  return mixture_.type;
}

GgmlType MixtureRule::of_down(int i) const {
  const std::string_view name = mixture_.name;
  if (name == "q2_k_m") return GgmlType::q3_k;
  if (name == "q2_k_s" && i < layers_ / 8) return GgmlType::q4_k;
  if (name == "q3_k_m") return i < layers_ / 16 ? GgmlType::q5_k : GgmlType::q4_k;
  if (name == "q3_k_l") return GgmlType::q5_k;
  if (name == "q4_k_s" && i < layers_ / 8) return GgmlType::q5_k;
  if (name.ends_with("_m") && gets_more_bits(i, layers_)) return GgmlType::q6_k;
  return mixture_.type;
}

GgmlType MixtureRule::operator()(const std::string& tensor) const {
  const int layer = layer_of(tensor);
  if (is_values(tensor)) {
    const GgmlType type = of_values(rank_in(values_, layer));
    return is_70b_ && (type == GgmlType::q3_k || type == GgmlType::q4_k) ? GgmlType::q5_k : type;
  }
  if (is_down(tensor)) return of_down(rank_in(down_, layer));
  if (!is_in(tensor, "attn_output.weight")) return mixture_.type;
  const std::string_view name = mixture_.name;
  return name == "q2_k_m" ? GgmlType::q3_k : name == "q3_k_m" ? GgmlType::q4_k : name == "q3_k_l" ? GgmlType::q5_k : mixture_.type;
}

}  // namespace transformer
