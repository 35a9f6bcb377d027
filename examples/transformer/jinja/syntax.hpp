#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/value.hpp>

/// A template's parts, as the parser finds them and the evaluator goes through them.

namespace transformer::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    literal,        ///< value
    name,           ///< text: the variable
    list,           ///< parts: the items
    tuple,          ///< likewise
    dict,           ///< parts: key, value, key, value …
    attribute,      ///< parts[0].text
    item,           ///< parts[0][parts[1]]
    slice,          ///< parts[0]:parts[1]:parts[2], each may be null
    call,           ///< parts[0](parts[1] …, named)
    filter,         ///< parts[0] | text(parts[1] …, named); parts[0] is null in a block
    test,           ///< parts[0] is text(parts[1] …, named)
    negation,       ///< not parts[0]
    minus,          ///< -parts[0]
    plus,           ///< +parts[0]
    both,           ///< parts[0] and parts[1]
    either,         ///< parts[0] or parts[1]
    arithmetic,     ///< parts[0] operators[0] parts[1]
    comparison,     ///< parts[0] operators[0] parts[1] operators[1] parts[2] …
    concatenation,  ///< parts[0] ~ parts[1] ~ …
    condition       ///< parts[0] if parts[1] else parts[2], which may be null
  };

  Kind kind;
  Position at;
  std::string text = {};
  Value value = {};
  std::vector<ExpressionPtr> parts = {};
  std::vector<std::pair<std::string, ExpressionPtr>> named = {};
  std::vector<Operator> operators = {};
  int depth = 1;  ///< expressions in each other
};

struct Statement;
using Block = std::vector<Statement>;

struct Branch {
  ExpressionPtr condition;  ///< null: else
  Block body;
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  ///< null: none
};

struct Statement {
  enum class Kind {
    data,        ///< text
    output,      ///< {{ value }}
    branches,    ///< if
    loop,        ///< for target in value if condition: body, or else otherwise
    assign,      ///< set target = value
    capture,     ///< set target | value: body
    macro,       ///< text(parameters): body
    filter,      ///< filter value: body
    scope,       ///< with targets[i] = values[i]: body
    generation,  ///< body, the assistant's words
    leave_loop,
    next_item
  };

  Kind kind;
  Position at;
  std::string text = {};
  ExpressionPtr target = {}, value = {}, condition = {};
  std::vector<Branch> branches = {};
  std::vector<Parameter> parameters = {};
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments = {};
  Block body = {}, otherwise = {};
};

using ExpressionKind = Expression::Kind;
using StatementKind = Statement::Kind;

}  // namespace transformer::jinja
