#pragma once

/// What the registry says of a method.

#include <algorithm>
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

/// Where a tensor has the layer's outputs. A file may keep the rows of a weight in another order than a model; then these follow.
enum class Outputs {
  none,
  rows,
  columns,
  mixed,  ///< neither: the tensor cannot follow
};

/// A tensor that a method has for each module, by its name in files behind the module's path.
struct MethodTensor {
  std::string_view name;
  Outputs outputs = Outputs::none;
};

/// A method as files and the command line know it. What it points at lives as long as the program.
struct Method {
  std::string_view peft_type;             ///< "LORA", "VERA" …
  std::string_view name;                  ///< as the command line spells it
  std::string_view flag;                  ///< the field that chooses it by being true among methods of one peft_type, or empty
  std::vector<Field> (*fields)();         ///< every key of its configuration beside those that all methods have
  std::span<const MethodTensor> tensors;  ///< that a module may have
  std::size_t required;                   ///< so many of the first every module has (of an embedding the lora_embedding pair instead)

  /// A fresh update of a layer by the fields of its configuration, resolved for its path; of a loaded one (UpdateSite::shapes) the numbers
  /// take the place of what is drawn. Throws ValueError, ShapeError.
  AnyUpdate (*make)(const UpdateSite& site, const MethodFields& fields, const SharedTensors& shared);

  std::span<const std::string_view> shared = {};  ///< names of tensors that all modules use
  std::string_view saves_shared = {};             ///< the field that says whether files hold them; empty: they do
  /// Makes them, for all sites at once; null where there are none.
  void (*share)(std::span<const UpdateSite> sites, const MethodFields& fields, SharedTensors& shared) = nullptr;
  std::string_view alias = {};  ///< another peft_type under which files of it go; these have the last of the required tensors

  /// What it says of a module's tensor of that name, or null.
  const MethodTensor* find(std::string_view tensor) const {
    const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const MethodTensor& own) { return own.name == tensor; });
    return found == tensors.end() ? nullptr : &*found;
  }
};

}  // namespace lowrank::inline LOWRANK_ABI
