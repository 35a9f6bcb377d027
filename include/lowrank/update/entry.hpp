#pragma once

/// What the registry says of a method.

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/matrix.hpp>
#include <lowrank/update/fields.hpp>

namespace lowrank::inline LOWRANK_ABI {

class AnyUpdate;    // update/any_update.hpp
struct UpdateSite;  // the same

/// Tensors that all modules of an adapter share, by the names that files give them.
using SharedTensors = std::map<std::string, std::shared_ptr<const Weight<float>>, std::less<>>;

/// A method as files and the command line know it.
struct Method {
  std::string_view peft_type;                 ///< "LORA", "VERA" …
  std::string_view name;                      ///< as the command line spells it
  std::string_view flag;                      ///< the field that chooses it by being true among methods of one peft_type, or empty
  std::vector<Field> (*fields)();             ///< every key of its configuration beside those that all methods have
  std::span<const std::string_view> tensors;  ///< names that a module's tensors may have, behind the module's path
  std::size_t required;                       ///< so many of the first every module has (of an embedding the lora_embedding pair instead)
  std::span<const std::string_view> shared;   ///< names of tensors that all modules use

  /// A fresh update of a layer by the fields of its configuration, resolved for its path. Throws ValueError.
  AnyUpdate (*make)(const UpdateSite& site, const MethodFields& fields, const SharedTensors& shared) = nullptr;
  /// Makes what the modules share, for all sites at once; null where they share nothing.
  void (*share)(std::span<const UpdateSite> sites, const MethodFields& fields, SharedTensors& shared) = nullptr;
  bool trains = true;  ///< false: its updates are used, merged and converted, not trained
};

}  // namespace lowrank::inline LOWRANK_ABI
