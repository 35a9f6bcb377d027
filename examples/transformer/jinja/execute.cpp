#include <transformer/jinja/evaluator.hpp>

#include <algorithm>

#include <transformer/jinja/filters.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>

namespace transformer::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const auto& [known, value] : variables)
    if (known == name) return &value;
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& [known, old] : variables)
    if (known == name) {
      old = std::move(value);
      return;
    }
  variables.emplace_back(name, std::move(value));
}

Evaluator::Evaluator(Run& run, std::vector<std::pair<std::string, Value>> variables)
    : run_(run), root_(std::make_shared<Scope>(Scope{nullptr, std::move(variables)})) {}

Evaluator::~Evaluator() {
  for (const ScopePtr& scope : held_by_macros_) scope->variables.clear();
}

void Evaluator::execute(const Block& statements) { execute(statements, inner(root_)); }

void Evaluator::print(std::string_view text) {
  run_.charge(text.size());
  text_ += text;
}

Evaluator::Flow Evaluator::execute(const Block& statements, const ScopePtr& scope) {
  const Run::Deeper deeper(run_);
  for (const Statement& statement : statements)
    if (const Flow flow = execute(statement, scope); flow != Flow::on) return flow;
  return Flow::on;
}

Evaluator::Flow Evaluator::execute(const Statement& s, const ScopePtr& scope) {
  run_.step();
  run_.at = s.at;
  switch (s.kind) {
    case StatementKind::data:
      print(s.text);
      break;
    case StatementKind::output:
      print(to_text(run_, evaluate(*s.value, scope)));
      break;
    case StatementKind::branches:
      return execute_branches(s, scope);
    case StatementKind::loop:
      return execute_loop(s, scope);
    case StatementKind::assign:
      assign(*s.target, evaluate(*s.value, scope), scope);
      break;
    case StatementKind::capture:
    case StatementKind::filter:
      return execute_capture(s, scope);
    case StatementKind::macro:
      define_macro(s, scope);
      break;
    case StatementKind::scope:
      return execute_scope(s, scope);
    case StatementKind::generation:
      return execute_generation(s, scope);
    case StatementKind::leave_loop:
      return Flow::leave_loop;
    case StatementKind::next_item:
      return Flow::next_item;
  }
  return Flow::on;
}

Evaluator::Flow Evaluator::execute_branches(const Statement& s, const ScopePtr& scope) {
  for (const Branch& branch : s.branches)
    if (!branch.condition || is_true(evaluate(*branch.condition, scope))) return execute(branch.body, scope);
  return Flow::on;
}

/// What a loop goes through, less what its condition leaves out.
Items Evaluator::chosen_items(const Statement& s, const ScopePtr& scope) {
  const Value value = evaluate(*s.value, scope);
  run_.at = s.at;
  Items items = iterate(run_, value);
  if (!s.condition) return items;
  std::erase_if(items, [&](const Value& item) {
    const ScopePtr body = inner(scope);
    assign(*s.target, item, body);
    return !is_true(evaluate(*s.condition, body));
  });
  return items;
}

Evaluator::Flow Evaluator::execute_loop(const Statement& s, const ScopePtr& scope) {
  const auto loop = std::make_shared<Loop>(Loop{chosen_items(s, scope)});
  Flow flow = Flow::on;
  for (; loop->index < loop->items.size() && flow != Flow::leave_loop; ++loop->index) {
    run_.step();
    const ScopePtr body = inner(scope);
    assign(*s.target, loop->items[loop->index], body);
    body->set("loop", Value::loop(loop));
    flow = execute(s.body, body);
  }
  return loop->items.empty() ? execute(s.otherwise, inner(scope)) : Flow::on;
}

/// Of set and filter with a body: its text goes through filters, then into a variable or on.
Evaluator::Flow Evaluator::execute_capture(const Statement& s, const ScopePtr& scope) {
  std::string around = std::exchange(text_, {});
  ++captures_;
  const Flow flow = execute(s.body, inner(scope));
  --captures_;
  Value value = Value::text(std::exchange(text_, std::move(around)));
  if (flow != Flow::on) return flow;
  if (s.value) value = evaluate_filter(*s.value, scope, &value);
  if (s.kind == StatementKind::capture)
    assign(*s.target, std::move(value), scope);
  else
    print(to_text(run_, value));
  return Flow::on;
}

Evaluator::Flow Evaluator::execute_generation(const Statement& s, const ScopePtr& scope) {
  run_.check(captures_ == 0, "{% generation %} inside a macro, set or filter is not supported");
  const std::size_t begin = text_.size();
  const Flow flow = execute(s.body, inner(scope));
  if (text_.size() > begin) generated_.emplace_back(begin, text_.size());
  return flow;
}

Evaluator::Flow Evaluator::execute_scope(const Statement& s, const ScopePtr& scope) {
  const ScopePtr body = inner(scope);
  for (const auto& [target, value] : s.assignments) assign(*target, evaluate(*value, scope), body);
  return execute(s.body, body);
}

void Evaluator::define_macro(const Statement& s, const ScopePtr& scope) {
  run_.charge(sizeof(Scope));
  if (held_by_macros_.empty() || held_by_macros_.back() != scope) held_by_macros_.push_back(scope);
  scope->set(s.text, Value::function(s.text, [this, &s, scope](Run&, const Arguments& given) { return call_macro(s, scope, given); }));
}

Value Evaluator::call_macro(const Statement& macro, const ScopePtr& scope, const Arguments& given) {
  const std::vector<Parameter>& parameters = macro.parameters;
  run_.check(given.positional.size() <= parameters.size(), "the macro ", macro.text, " takes ", parameters.size(),
             " arguments at most, not ", given.positional.size());
  for (const auto& named : given.named) {
    const std::string& name = named.first;
    const auto found = std::find_if(parameters.begin(), parameters.end(), [&](const Parameter& p) { return p.name == name; });
    run_.check(found != parameters.end(), "the macro ", macro.text, " has no argument ", name);
    run_.check(found - parameters.begin() >= static_cast<std::ptrdiff_t>(given.positional.size()), "the macro ", macro.text,
               " is given the argument ", name, " twice");
  }
  const ScopePtr body = inner(scope);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, fallback] = parameters[i];
    const auto found =
        std::find_if(given.named.begin(), given.named.end(), [&](const auto& named) { return named.first == parameters[i].name; });
    if (i < given.positional.size())
      body->set(name, given.positional[i]);
    else if (found != given.named.end())
      body->set(name, found->second);
    else
      body->set(name, fallback ? evaluate(*fallback, body) : Value::undefined("the parameter " + name + " was not given"));
  }
  std::string around = std::exchange(text_, {});
  ++captures_;
  execute(macro.body, body);
  --captures_;
  return Value::text(std::exchange(text_, std::move(around)));
}

void Evaluator::assign(const Expression& target, Value value, const ScopePtr& scope) {
  if (target.kind == ExpressionKind::name) return scope->set(target.text, std::move(value));
  if (target.kind == ExpressionKind::attribute) {
    const Value space = evaluate(*target.parts[0], scope);
    run_.at = target.at;
    run_.check(space.is(Kind::space), "only a namespace's members can be set, not those of a ", space.type_name());
    run_.charge(sizeof(Value));
    return space.as_space().set(target.text, std::move(value));
  }
  const Items items = iterate(run_, value);
  run_.at = target.at;
  run_.check(items.size() == target.parts.size(), "there are ", items.size(), " values for ", target.parts.size(), " names");
  for (std::size_t i = 0; i < items.size(); ++i) assign(*target.parts[i], items[i], scope);
}

}  // namespace transformer::jinja
