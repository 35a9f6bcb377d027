#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/nn/parameter.hpp>
#include <lowrank/update/set.hpp>

#include <transformer/load.hpp>
#include <transformer/model.hpp>

namespace transformer {

using lowrank::Adapter;
using lowrank::LoraConfig;
using lowrank::ParameterRef;

/// --targets: all-linear, names between commas, or a regular expression.
lowrank::ModuleNames parse_targets(const std::string& text);

/// Slots of linear layers that a configuration names. all-linear means those of the blocks; the head only where it is named.
std::vector<Index> target_slots(const Transformer& model, const LoraConfig& config);

namespace detail {

/// GGUF files hold the rows of q and k so that the two numbers of a pair are neighbours: row 2j + p there is row p · size/2 + j of the
/// Hugging Face layout. B's rows follow.
inline lowrank::Weight<float> reorder_rows(const lowrank::Weight<float>& b, Index head_size, bool to_halves) {
  lowrank::Weight<float> out(b.rows(), b.cols());
  for (Index row = 0; row < b.rows(); ++row) {
    const Index head = row / head_size * head_size, j = row % head_size / 2, p = row % 2;
    const Index halves = head + p * (head_size / 2) + j;
    to_halves ? out.row(halves) = b.row(row) : out.row(row) = b.row(halves);
  }
  return out;
}

inline bool has_interleaved_rows(const Transformer& model, Index slot) {
  if (slot >= model.head_slot() || model.config.rope.pairs != lowrank::RopePairs::interleaved) return false;
  const Projection projection = model.config.projection_of(slot);
  return projection == Projection::query || projection == Projection::key;
}

}  // namespace detail

/// Fresh updates of what the configuration names, by its method; A drawn from the seed.
LoraSet new_lora(const Transformer& model, const LoraConfig& config, lowrank::LoraInit init, std::uint64_t seed);

/// A loaded adapter in the order of the model's slots, its rows in that of the model's weights; times a number, where that has a meaning.
LoraSet bind(const Transformer& model, const Adapter& adapter, double weight = 1);

/// Tokens that the model has with a set, whose tables may have more of them than the model's own.
Index vocabulary(const Transformer& model, const LoraSet* set);

/// The set as an adapter in the Hugging Face layout, ready to be saved.
Adapter to_adapter(const Transformer& model, const LoraSet& set, LoraConfig config);

/// The set as LoRA at a rank or with a share of the energy, in the Hugging Face layout (lowrank::to_lora).
lowrank::FittedAdapter to_lora(const Transformer& model, const LoraSet& set, const lowrank::RankChoice& choice);

/// A hash (FNV-1a) over the names and the bytes of an adapter's tensors.
std::uint64_t fingerprint(const Adapter& adapter);

/// What training an adapter changes.
inline std::vector<ParameterRef<float>> parameters(Transformer&, LoraSet& set) { return lowrank::parameters(set); }

inline Index bytes(const LoraSet& set) { return parameter_count(set) * static_cast<Index>(sizeof(float)); }

/// Adapters by name on one base; what is active is a pointer, so that a swap copies nothing.
///
/// Threads may run the model with sets of one AdapterSet at the same time; adding, removing and activating are for one thread alone.
class AdapterSet {
 public:
  /// Throws ValueError for a name that is taken.
  LoraSet& add(const std::string& name, LoraSet set) {
    const auto [entry, fresh] = sets_.emplace(name, std::move(set));
    lowrank::check<lowrank::ValueError>(fresh, "adapter_set", "there is an adapter named ", name, " already; remove it first");
    return entry->second;
  }
  /// Makes the adapter the one that requests use. Throws ValueError for an unknown name.
  void activate(const std::string& name) {
    active_ = &at(name);
    names_ = {name};
  }
  /// Makes Σ scaleᵢ · adapterᵢ the one that requests use, exactly: their factors side by side. Throws ValueError for an unknown name, and
  /// where a sum has no meaning (DoRA, full copies).
  void activate(const std::vector<std::pair<std::string, double>>& scaled) {
    lowrank::check<lowrank::ValueError>(!scaled.empty(), "adapter_set", "no adapter is named; call deactivate() for the bare base");
    std::vector<LoraSet> parts;
    std::vector<std::string> names;
    for (const auto& [name, scale] : scaled) {
      parts.push_back(at(name));
      lowrank::scale(parts.back(), scale);
      names.push_back(name);
    }
    mixed_ = lowrank::sum(parts);
    active_ = &mixed_;
    names_ = std::move(names);
  }
  void deactivate() {
    active_ = nullptr;
    names_.clear();
  }
  bool is_active(const std::string& name) const { return std::find(names_.begin(), names_.end(), name) != names_.end(); }
  void remove(const std::string& name) {
    if (is_active(name)) deactivate();
    sets_.erase(name);
  }
  /// What to pass to the model; null for the bare base.
  LoraSet* active() const { return active_; }
  LoraSet& at(const std::string& name) {
    const auto found = sets_.find(name);
    lowrank::check<lowrank::ValueError>(found != sets_.end(), "adapter_set", "there is no adapter named ", name);
    return found->second;
  }
  std::size_t size() const { return sets_.size(); }

 private:
  std::map<std::string, LoraSet> sets_;
  LoraSet mixed_;
  LoraSet* active_ = nullptr;
  std::vector<std::string> names_;
};

}  // namespace transformer
