#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <lowrank/adapters/adapter.hpp>
#include <lowrank/adapters/config.hpp>
#include <lowrank/adapters/path_pattern.hpp>
#include <lowrank/update/registry.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A module of a model that an adapter may change: its path and the sizes of its weight [out, in] (an embedding: [dim, vocabulary]).
struct ModuleShape {
  std::string path;
  Index in = 0, out = 0;
};

namespace detail {

/// Whether a path is a name, or ends with a dot and the name.
bool ends_with_name(std::string_view path, std::string_view name);

/// Whether one of the dotted parts of a path, or several in a row, are that name.
bool contains_name(std::string_view path, std::string_view name);

bool is_all_linear(const ModuleNames& names);

/// Whether modules_to_save names a module by PEFT's rule: its path, or that of a module around it, ends with one of the names.
bool names_saved(std::span<const std::string> names, std::string_view path);

/// Rows of the whole weight that an adapter brings for a module, or nothing.
std::optional<Index> rows_saved(const Adapter& adapter, std::string_view path);

/// A list of names or a regular expression, compiled.
class NameMatcher {
 public:
  NameMatcher(const ModuleNames& names, std::string_view field);
  bool is_none() const { return std::holds_alternative<std::monostate>(names_); }
  bool is_list() const { return std::holds_alternative<std::vector<std::string>>(names_); }
  bool is_exact(std::string_view path) const;
  bool matches(std::string_view path) const;

 private:
  const std::vector<std::string>& list() const { return std::get<std::vector<std::string>>(names_); }

  ModuleNames names_;
  bool all_;
  std::optional<PathPattern> pattern_;
};

}  // namespace detail

/// Whether a configuration names a module, by PEFT's rules.
///
/// Excluded modules and modules_to_save never match; then a list matches equal paths or dotted ends (the latter in the chosen layers
/// only), a regular expression whole paths, "all-linear" everything. Throws ValueError for expressions that cannot be read.
class TargetMatcher {
 public:
  explicit TargetMatcher(const LoraConfig& config);

  bool operator()(std::string_view path) const;

 private:
  /// The first number among the path's parts is the layer; without layers_pattern it has two parts or more before it.
  bool in_chosen_layer(std::string_view path) const;
  bool names_layers(std::size_t part, std::string_view before) const;

  detail::NameMatcher targets_, excluded_;
  std::vector<std::string> saved_;
  std::vector<Index> layers_;
  std::vector<PathPattern> layer_lists_;
};

/// Exceptions by module (rank_pattern, alpha_pattern): the first key for which `(.*\.)?(KEY)$` matches the path decides.
template <class T>
class PatternTable {
 public:
  PatternTable(const Patterns<T>& patterns, std::string_view field) : field_(field) {
    for (const auto& [key, value] : patterns) rows_.push_back({key, value, PathPattern::ending(key, field)});
  }

  /// The exception for a module, or the general value.
  T value(std::string_view path, T general) const {
    for (const Row& row : rows_)
      if (row.pattern.matches(path)) return row.value;
    return general;
  }

  /// A sentence when two keys match a module and disagree: then their order matters, which sorting the file would change.
  std::optional<std::string> overlap(std::string_view path) const {
    const Row* first = nullptr;
    for (const Row& row : rows_) {
      if (!row.pattern.matches(path)) continue;
      if (!first) first = &row;
      if (row.value != first->value)
        return concat(field_, ": \"", first->key, "\" (", first->value, ") and \"", row.key, "\" (", row.value, ") both match ", path,
                      "; the first one counts");
    }
    return std::nullopt;
  }

 private:
  struct Row {
    std::string key;
    T value;
    PathPattern pattern;
  };
  std::string field_;
  std::vector<Row> rows_;
};

/// The values of a method's configuration for one module: standard values, those of the configuration, and its exceptions for that path;
/// `rank_pattern` is the exception of the rank, where there is one.
/// Throws ValueError for a method that nobody has registered.
MethodFields method_fields(const LoraConfig& config, std::string_view path);

/// The registered method of a configuration. Throws ValueError where there is none.
const Method& method_of(const LoraConfig& config);
/// Makes it that of the method with that name, as the command line spells it. Throws ValueError, with all names, for another.
void set_method(LoraConfig& config, std::string_view name);

namespace detail {

std::string_view last_part(std::string_view path);

/// The last parts of the paths that differ, nearest to the name first, as "a, b, c".
std::string near_names(std::string_view name, std::span<const ModuleShape> modules);

}  // namespace detail

/// Paths of the modules that a configuration names, in the model's order. Every name of a list, every chosen layer and every key of the
/// patterns must match something.
///
/// Throws ValueError, with the nearest names that the model has, when one of them or the whole selection matches nothing.
std::vector<std::string> select_targets(const LoraConfig& config, std::span<const ModuleShape> modules);

/// Throws ShapeError unless the adapter fits a model with these modules, naming the first one that is unknown, of another size, or named
/// by the configuration but without tensors in the adapter.
void check_fits(const Adapter& adapter, std::span<const ModuleShape> modules);

}  // namespace lowrank::inline LOWRANK_ABI

#if !defined(LOWRANK_COMPILED)
#include <lowrank/adapters/target.inl>
#endif
