#include <transformer/jinja/parser.hpp>

#include <algorithm>
#include <initializer_list>

#include <transformer/jinja/parse_expression.hpp>

namespace transformer::jinja {

namespace {

class Parser {
 public:
  explicit Parser(std::string_view source) : read_(tokenize(source)) {}

  Block operator()() { return block({}); }

 private:
  using Names = std::initializer_list<std::string_view>;

  /// Statements up to {% name, of one of the names, which is the next token then; without names up to the end.
  Block block(Names ends) {
    const ExpressionParser::Deeper deeper(read_);
    const Position begin = read_.now().at;
    Block statements;
    while (true) {
      const Token token = read_.take();
      if (token.kind == Token::Kind::data) {
        statements.push_back({StatementKind::data, token.at, token.text});
      } else if (token.kind == Token::Kind::output_begin) {
        Statement output{StatementKind::output, token.at};
        output.value = read_.tuple();
        if (read_.now().kind != Token::Kind::output_end) read_.fail_unexpected("\"}}\"");
        read_.take();
        statements.push_back(std::move(output));
      } else if (token.kind == Token::Kind::block_begin) {
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view name) { return read_.now().is_name(name); })) return statements;
        statements.push_back(statement(token.at));
        end_tag();
      } else {
        if (ends.size() > 0) fail_at(begin, "what begins here never ends; close it with {% ", *(ends.end() - 1), " %}");
        return statements;
      }
    }
  }

  void end_tag() {
    if (read_.now().kind != Token::Kind::block_end) read_.fail_unexpected("\"%}\"");
    read_.take();
  }

  /// The body of a statement, and the name of the tag that ends it.
  Block body(Names ends) {
    end_tag();
    return block(ends);
  }

  Block last_body(std::string_view end) {
    Block statements = body({end});
    read_.take();
    return statements;
  }

  Statement statement(Position at) {
    const std::string name = read_.expect_name();
    if (name == "if") return branches(at);
    if (name == "for") return loop(at);
    if (name == "set") return assignment(at);
    if (name == "macro") return macro(at);
    if (name == "filter") return filter(at);
    if (name == "with") return scope(at);
    if (name == "generation") return generation(at);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail_at(at, "{% ", name, " %} is outside of a loop");
      return {name == "break" ? StatementKind::leave_loop : StatementKind::next_item, at};
    }
    for (const char* known : {"else", "elif", "endif", "endfor", "endset", "endmacro", "endfilter", "endwith", "endgeneration", "endraw"})
      if (name == known) fail_at(at, "{% ", name, " %} closes nothing that is open here");
    fail_at(at, "the statement `", name, "` is not supported");
  }

  Statement branches(Position at) {
    Statement made{StatementKind::branches, at};
    while (true) {
      ExpressionPtr condition = read_.tuple(false);
      Block then = body({"elif", "else", "endif"});
      made.branches.push_back({std::move(condition), std::move(then)});
      const std::string word = read_.expect_name();
      if (word == "else") made.branches.push_back({nullptr, last_body("endif")});
      if (word != "elif") return made;
    }
  }

  Statement loop(Position at) {
    Statement made{StatementKind::loop, at};
    made.target = read_.target(false);
    if (!read_.skip_name("in")) read_.fail_unexpected("\"in\"");
    made.value = read_.tuple(false);
    if (read_.skip_name("if")) made.condition = read_.expression();
    if (read_.now().is_name("recursive")) fail_at(read_.now().at, "`recursive` loops are not supported");
    ++loops_;
    made.body = body({"else", "endfor"});
    --loops_;
    if (read_.expect_name() == "else") made.otherwise = last_body("endfor");
    return made;
  }

  Statement assignment(Position at) {
    Statement made{StatementKind::assign, at};
    made.target = read_.target(true);
    if (read_.skip_sign("=")) {
      made.value = read_.tuple();
      return made;
    }
    made.kind = StatementKind::capture;
    made.value = read_.filters_of_block(false);
    made.body = last_body("endset");
    return made;
  }

  Statement macro(Position at) {
    Statement made{StatementKind::macro, at, read_.expect_name()};
    read_.expect_sign("(");
    for (bool first = true; !read_.now().is_sign(")"); first = false) {
      if (!first) read_.expect_sign(",");
      Parameter parameter{read_.expect_name(), nullptr};
      if (read_.skip_sign("="))
        parameter.fallback = read_.expression();
      else if (!made.parameters.empty() && made.parameters.back().fallback)
        fail_at(read_.now().at, "the parameter ", parameter.name, " needs a default, as the one before it has one");
      made.parameters.push_back(std::move(parameter));
    }
    read_.expect_sign(")");
    made.body = function_body("endmacro");
    return made;
  }

  /// A body that a loop around it cannot be left from.
  Block function_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block statements = last_body(end);
    loops_ = loops;
    return statements;
  }

  Statement filter(Position at) {
    Statement made{StatementKind::filter, at};
    made.value = read_.filters_of_block(true);
    made.body = last_body("endfilter");
    return made;
  }

  Statement scope(Position at) {
    Statement made{StatementKind::scope, at};
    while (read_.now().kind != Token::Kind::block_end) {
      if (!made.assignments.empty()) read_.expect_sign(",");
      ExpressionPtr target = read_.target(false);
      read_.expect_sign("=");
      made.assignments.emplace_back(std::move(target), read_.expression());
    }
    made.body = last_body("endwith");
    return made;
  }

  Statement generation(Position at) {
    Statement made{StatementKind::generation, at};
    made.body = function_body("endgeneration");
    return made;
  }

  ExpressionParser read_;
  int loops_ = 0;
};

}  // namespace

Block parse(std::string_view source) { return Parser(source)(); }

}  // namespace transformer::jinja
