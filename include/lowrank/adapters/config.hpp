#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/error.hpp>
#include <lowrank/update/fields.hpp>
#include <lowrank/update/lora_scale.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Modules by name: nothing; a list of paths or of their dotted ends; or one regular expression for whole paths ("all-linear" for every
/// linear module but the output head).
using ModuleNames = std::variant<std::monostate, std::vector<std::string>, std::string>;

/// Exceptions by module, in the order in which they are tried: regular expression for the path's dotted end, and value.
template <class T>
using Patterns = std::vector<std::pair<std::string, T>>;

/// What an adapter is, as PEFT's LoraConfig says it; defaults are PEFT's. Other methods have their own keys in `fields`.
struct LoraConfig {
  std::string peft_type = "LORA";
  MethodFields fields = {};  // of the method alone, by PEFT's keys; what is absent has PEFT's standard value
  Index rank = 8;            // "r"
  double alpha = 8;          // "lora_alpha"
  double dropout = 0;        // "lora_dropout", on the adapter's input, in training only
  bool use_rslora = false;
  bool lora_bias = false;       // B has a bias of its own
  bool fan_in_fan_out = false;  // the base stores its weight as [in, out]; A and B do not change
  std::string bias = "none";    // which biases of the base are trained: none, all, lora_only
  ModuleNames target_modules = {}, exclude_modules = {};
  std::vector<Index> layers_to_transform = {};   // empty: all
  std::vector<std::string> layers_pattern = {};  // names of the list of layers that those numbers count
  Patterns<Index> rank_pattern = {};
  Patterns<double> alpha_pattern = {};
  std::vector<std::string> modules_to_save = {};  // trained as full copies: every module whose path, or that of one around it, ends so
  /// "trainable_token_indices": tokens whose rows are trained, by the end of their table's path; "" is the token table.
  std::map<std::string, std::vector<Index>> trained_tokens = {};
  bool ensure_weight_tying = false;            // a head that is the token table follows its copy or its update
  std::optional<std::string> base_model = {};  // "base_model_name_or_path"
  std::optional<std::string> task_type = {};
  std::string needs_base = {};  // a format such as "nf4": the update makes up for rounding to it, and is right over such a base only
  std::string made_by = {};     // the version of this library that wrote the file; of a fresh adapter, and of others' files, empty
  std::map<std::string, std::string> json = {};  // every key of the file it came from, as JSON: what is not above is written back unchanged
};

}  // namespace lowrank::inline LOWRANK_ABI
