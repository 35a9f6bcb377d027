#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/jinja/run.hpp>
#include <transformer/jinja/syntax.hpp>

namespace transformer::jinja {

/// Variables, and where others are looked for. The body of a loop, macro or captured block has its own; that of an if does not.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables = {};

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

/// Goes through a template's statements once and collects what they print.
class Evaluator {
 public:
  Evaluator(Run& run, std::vector<std::pair<std::string, Value>> variables);
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;
  /// A macro and the variables around it refer to each other in a circle: those are emptied.
  ~Evaluator();

  void execute(const Block& statements);

  std::string& text() { return text_; }
  /// Bytes of the text that stood inside {% generation %}.
  const std::vector<std::pair<std::size_t, std::size_t>>& generated() const { return generated_; }

 private:
  enum class Flow { on, leave_loop, next_item };
  using ScopePtr = std::shared_ptr<Scope>;

  Flow execute(const Block& statements, const ScopePtr& scope);
  Flow execute(const Statement& statement, const ScopePtr& scope);
  Flow execute_branches(const Statement& statement, const ScopePtr& scope);
  Flow execute_loop(const Statement& statement, const ScopePtr& scope);
  Items chosen_items(const Statement& statement, const ScopePtr& scope);
  Flow execute_capture(const Statement& statement, const ScopePtr& scope);
  Flow execute_generation(const Statement& statement, const ScopePtr& scope);
  Flow execute_scope(const Statement& statement, const ScopePtr& scope);
  void define_macro(const Statement& statement, const ScopePtr& scope);
  Value call_macro(const Statement& macro, const ScopePtr& scope, const Arguments& given);
  void assign(const Expression& target, Value value, const ScopePtr& scope);
  void print(std::string_view text);
  ScopePtr inner(const ScopePtr& scope) { return std::make_shared<Scope>(Scope{scope}); }

  Value evaluate(const Expression& expression, const ScopePtr& scope);
  Value evaluate_name(const Expression& expression, const ScopePtr& scope);
  Value evaluate_dict(const Expression& expression, const ScopePtr& scope);
  Value evaluate_item(const Expression& expression, const ScopePtr& scope);
  Value evaluate_call(const Expression& expression, const ScopePtr& scope);
  Value evaluate_filter(const Expression& expression, const ScopePtr& scope, const Value* input);
  Value evaluate_comparison(const Expression& expression, const ScopePtr& scope);
  Value evaluate_concatenation(const Expression& expression, const ScopePtr& scope);
  Value evaluate_condition(const Expression& expression, const ScopePtr& scope);
  Items evaluate_all(const Expression& expression, const ScopePtr& scope);
  Arguments evaluate_arguments(const Expression& expression, const ScopePtr& scope);

  Run& run_;
  ScopePtr root_;
  std::vector<ScopePtr> held_by_macros_;
  std::string text_;
  int captures_ = 0;  // blocks around whose text goes elsewhere
  std::vector<std::pair<std::size_t, std::size_t>> generated_;
};

}  // namespace transformer::jinja
