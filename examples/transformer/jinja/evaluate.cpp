#include <transformer/jinja/evaluator.hpp>

#include <lowrank/error.hpp>

#include <transformer/jinja/filters.hpp>
#include <transformer/jinja/globals.hpp>
#include <transformer/jinja/members.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>

namespace transformer::jinja {

Value Evaluator::evaluate(const Expression& e, const ScopePtr& scope) {
  const Run::Deeper deeper(run_);
  run_.step();
  run_.at = e.at;
  const auto part = [&](std::size_t i) { return evaluate(*e.parts[i], scope); };
  switch (e.kind) {
    case ExpressionKind::literal:
      return e.value;
    case ExpressionKind::name:
      return evaluate_name(e, scope);
    case ExpressionKind::list:
      return run_.list(evaluate_all(e, scope));
    case ExpressionKind::tuple:
      return run_.tuple(evaluate_all(e, scope));
    case ExpressionKind::dict:
      return evaluate_dict(e, scope);
    case ExpressionKind::attribute: {
      const Value value = part(0);
      run_.at = e.at;
      return member(run_, value, e.text);
    }
    case ExpressionKind::item:
      return evaluate_item(e, scope);
    case ExpressionKind::slice:
      run_.fail("a slice among other indices is not supported");
    case ExpressionKind::call:
      return evaluate_call(e, scope);
    case ExpressionKind::filter:
      return evaluate_filter(e, scope, nullptr);
    case ExpressionKind::test: {
      const Value value = part(0);
      const Arguments arguments = evaluate_arguments(e, scope);
      run_.at = e.at;
      return Value::boolean(apply_test(run_, e.text, value, arguments));
    }
    case ExpressionKind::negation:
      return Value::boolean(!is_true(part(0)));
    case ExpressionKind::minus:
      return negative(run_, part(0));
    case ExpressionKind::plus:
      return negative(run_, negative(run_, part(0)));
    case ExpressionKind::both: {
      Value left = part(0);
      return is_true(left) ? part(1) : left;
    }
    case ExpressionKind::either: {
      Value left = part(0);
      return is_true(left) ? left : part(1);
    }
    case ExpressionKind::arithmetic: {
      const Value left = part(0), right = part(1);
      run_.at = e.at;
      return arithmetic(run_, e.operators[0], left, right);
    }
    case ExpressionKind::comparison:
      return evaluate_comparison(e, scope);
    case ExpressionKind::concatenation:
      return evaluate_concatenation(e, scope);
    case ExpressionKind::condition:
      return evaluate_condition(e, scope);
  }
  return {};
}

Value Evaluator::evaluate_name(const Expression& e, const ScopePtr& scope) {
  for (const Scope* at = scope.get(); at != nullptr; at = at->parent.get())
    if (const Value* found = at->find(e.text)) return *found;
  if (const auto found = global(e.text)) return *found;
  return Value::undefined(lowrank::concat("the variable ", e.text, " is not defined"));
}

Value Evaluator::evaluate_dict(const Expression& e, const ScopePtr& scope) {
  Entries entries;
  for (std::size_t i = 0; i < e.parts.size(); i += 2) {
    Value key = evaluate(*e.parts[i], scope), value = evaluate(*e.parts[i + 1], scope);
    run_.check(key.is_text() || key.is_number() || key.is(Kind::none) || key.is(Kind::tuple), "a key of type ", key.type_name());
    bool known = false;
    for (auto& entry : entries)
      if (is_same_key(entry.first, key)) {
        entry.second = value;
        known = true;
      }
    if (!known) entries.emplace_back(std::move(key), std::move(value));
  }
  return run_.dict(std::move(entries));
}

Value Evaluator::evaluate_item(const Expression& e, const ScopePtr& scope) {
  const Value value = evaluate(*e.parts[0], scope);
  const Expression& key = *e.parts[1];
  if (key.kind == ExpressionKind::slice) {
    const auto bound = [&](std::size_t i) { return key.parts[i] ? evaluate(*key.parts[i], scope) : Value(); };
    const Value first = bound(0), last = bound(1), step = bound(2);
    run_.at = e.at;
    return slice(run_, value, first, last, step);
  }
  const Value index = evaluate(key, scope);
  run_.at = e.at;
  return item(run_, value, index);
}

Arguments Evaluator::evaluate_arguments(const Expression& e, const ScopePtr& scope) {
  Arguments arguments;
  for (std::size_t i = 1; i < e.parts.size(); ++i) arguments.positional.push_back(evaluate(*e.parts[i], scope));
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value, scope));
  return arguments;
}

Value Evaluator::evaluate_call(const Expression& e, const ScopePtr& scope) {
  const Value callee = evaluate(*e.parts[0], scope);
  const Arguments arguments = evaluate_arguments(e, scope);
  run_.at = e.at;
  check_defined(run_, callee);
  run_.check(callee.is(Kind::function), "a value of type ", callee.type_name(), " cannot be called");
  return callee.as_function().call(run_, arguments);
}

Value Evaluator::evaluate_filter(const Expression& e, const ScopePtr& scope, const Value* input) {
  Value value;
  if (!e.parts[0])
    value = *input;
  else
    value = input ? evaluate_filter(*e.parts[0], scope, input) : evaluate(*e.parts[0], scope);
  const Arguments arguments = evaluate_arguments(e, scope);
  run_.at = e.at;
  return apply_filter(run_, e.text, value, arguments);
}

Value Evaluator::evaluate_comparison(const Expression& e, const ScopePtr& scope) {
  Value left = evaluate(*e.parts[0], scope);
  for (std::size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.parts[i + 1], scope);
    run_.at = e.at;
    if (!comparison(run_, e.operators[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Evaluator::evaluate_concatenation(const Expression& e, const ScopePtr& scope) {
  std::string text;
  for (const ExpressionPtr& part : e.parts) {
    const std::string piece = to_text(run_, evaluate(*part, scope));
    run_.charge(piece.size());
    text += piece;
  }
  return Value::text(std::move(text));
}

Value Evaluator::evaluate_condition(const Expression& e, const ScopePtr& scope) {
  if (is_true(evaluate(*e.parts[1], scope))) return evaluate(*e.parts[0], scope);
  if (e.parts[2]) return evaluate(*e.parts[2], scope);
  return Value::undefined("a condition without else does not hold");
}

Items Evaluator::evaluate_all(const Expression& e, const ScopePtr& scope) {
  Items items;
  for (const ExpressionPtr& part : e.parts) items.push_back(evaluate(*part, scope));
  return items;
}

}  // namespace transformer::jinja
