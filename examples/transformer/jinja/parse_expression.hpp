#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <transformer/jinja/lexer.hpp>
#include <transformer/jinja/syntax.hpp>

namespace transformer::jinja {

/// Most expressions, or statements, in each other.
inline constexpr int max_depth = 100;

/// Reads expressions from tokens, by recursive descent: one function a level of binding, the weakest first.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[index_]; }
  const Token& following() const { return tokens_[std::min(index_ + 1, tokens_.size() - 1)]; }
  Token take() { return tokens_[index_ + 1 < tokens_.size() ? index_++ : index_]; }
  bool skip_sign(std::string_view sign);
  bool skip_name(std::string_view name);
  void expect_sign(std::string_view sign);
  std::string expect_name();
  [[noreturn]] void fail_unexpected(std::string_view expected) const;

  /// An expression; `with_condition`: `a if b else c` is one.
  ExpressionPtr expression(bool with_condition = true);
  /// Expressions with commas between them are a tuple; it ends before a token of the names.
  ExpressionPtr tuple(bool with_condition = true);
  /// What an assignment writes to: names, a tuple of them, or with `allows_member` a namespace's member.
  ExpressionPtr target(bool allows_member);
  /// name(arguments) | …, in front of which a value will be.
  ExpressionPtr filters_of_block(bool needs_first);

  /// Counts what is nested, while it lives.
  class Deeper {
   public:
    explicit Deeper(ExpressionParser& parser);
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ~Deeper() { --parser_.depth_; }

   private:
    ExpressionParser& parser_;
  };

 private:
  using Made = std::unique_ptr<Expression>;

  static Made make(Expression::Kind kind, Position at, std::string text = {});
  static ExpressionPtr finish(Made made);
  static ExpressionPtr joined(Expression::Kind kind, Position at, ExpressionPtr left, ExpressionPtr right = {});
  static ExpressionPtr computed(Operator op, Position at, ExpressionPtr left, ExpressionPtr right);

  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  bool comparing(Operator& op);
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr named();
  ExpressionPtr parenthesized();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr subscript(ExpressionPtr value);
  ExpressionPtr index();
  ExpressionPtr call(ExpressionPtr callee);
  void arguments(Expression& call);
  ExpressionPtr filters(ExpressionPtr value);
  ExpressionPtr filter(ExpressionPtr value);
  ExpressionPtr test(ExpressionPtr value);
  ExpressionPtr target_item(bool allows_member);
  bool ends_tuple() const;

  std::vector<Token> tokens_;
  std::size_t index_ = 0;
  int depth_ = 0;
};

}  // namespace transformer::jinja
