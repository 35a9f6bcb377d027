#include <transformer/jinja/parse_expression.hpp>

#include <algorithm>

namespace transformer::jinja {

ExpressionParser::Deeper::Deeper(ExpressionParser& parser) : parser_(parser) {
  if (parser.depth_ >= max_depth) fail_at(parser.now().at, "the template nests more than ", max_depth, " deep");
  ++parser.depth_;
}

bool ExpressionParser::skip_sign(std::string_view sign) {
  const bool found = now().is_sign(sign);
  if (found) take();
  return found;
}

bool ExpressionParser::skip_name(std::string_view name) {
  const bool found = now().is_name(name);
  if (found) take();
  return found;
}

void ExpressionParser::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) fail_unexpected(lowrank::concat('"', sign, '"'));
}

std::string ExpressionParser::expect_name() {
  if (now().kind != Token::Kind::name) fail_unexpected("a name");
  return take().text;
}

void ExpressionParser::fail_unexpected(std::string_view expected) const {
  const auto found = [&]() -> std::string {
    switch (now().kind) {
      case Token::Kind::data:
        return "text";
      case Token::Kind::output_begin:
      case Token::Kind::block_begin:
        return "the begin of a tag";
      case Token::Kind::output_end:
        return "\"}}\"";
      case Token::Kind::block_end:
        return "\"%}\"";
      case Token::Kind::end:
        return "the end of the template";
      default:
        return lowrank::concat('"', lowrank::printable(now().text, 40), '"');
    }
  };
  fail_at(now().at, "expected ", expected, ", found ", found());
}

ExpressionParser::Made ExpressionParser::make(ExpressionKind kind, Position at, std::string text) {
  auto made = std::make_unique<Expression>();
  made->kind = kind;
  made->at = at;
  made->text = std::move(text);
  return made;
}

/// A whole expression. A chain such as a + b + … nests too, without any recursion here.
ExpressionPtr ExpressionParser::finish(Made made) {
  for (const ExpressionPtr& part : made->parts)
    if (part) made->depth = std::max(made->depth, part->depth + 1);
  for (const auto& [name, part] : made->named) made->depth = std::max(made->depth, part->depth + 1);
  if (made->depth > max_depth) fail_at(made->at, "the template nests more than ", max_depth, " deep");
  return made;
}

ExpressionPtr ExpressionParser::joined(ExpressionKind kind, Position at, ExpressionPtr left, ExpressionPtr right) {
  Made made = make(kind, at);
  made->parts.push_back(std::move(left));
  if (right) made->parts.push_back(std::move(right));
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::computed(Operator op, Position at, ExpressionPtr left, ExpressionPtr right) {
  Made made = make(ExpressionKind::arithmetic, at);
  made->operators = {op};
  made->parts.push_back(std::move(left));
  made->parts.push_back(std::move(right));
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::expression(bool with_condition) {
  const Deeper deeper(*this);
  const Position at = now().at;
  ExpressionPtr value = either();
  while (with_condition && skip_name("if")) {
    Made made = make(ExpressionKind::condition, at);
    made->parts.push_back(std::move(value));
    made->parts.push_back(either());
    made->parts.push_back(skip_name("else") ? expression() : nullptr);
    value = finish(std::move(made));
  }
  return value;
}

bool ExpressionParser::ends_tuple() const {
  return now().kind == Token::Kind::output_end || now().kind == Token::Kind::block_end || now().is_sign(")") || now().is_name("recursive");
}

ExpressionPtr ExpressionParser::tuple(bool with_condition) {
  const Position at = now().at;
  ExpressionPtr first = expression(with_condition);
  if (!now().is_sign(",")) return first;
  Made made = make(ExpressionKind::tuple, at);
  made->parts.push_back(std::move(first));
  while (skip_sign(",") && !ends_tuple()) made->parts.push_back(expression(with_condition));
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::either() {
  const Position at = now().at;
  ExpressionPtr left = both();
  while (skip_name("or")) left = joined(ExpressionKind::either, at, std::move(left), both());
  return left;
}

ExpressionPtr ExpressionParser::both() {
  const Position at = now().at;
  ExpressionPtr left = negation();
  while (skip_name("and")) left = joined(ExpressionKind::both, at, std::move(left), negation());
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const Position at = now().at;
  if (!skip_name("not")) return comparison();
  const Deeper deeper(*this);
  return joined(ExpressionKind::negation, at, negation());
}

bool ExpressionParser::comparing(Operator& op) {
  static constexpr std::pair<std::string_view, Operator> signs[] = {{"==", Operator::equal},  {"!=", Operator::not_equal},
                                                                    {"<", Operator::less},    {"<=", Operator::less_equal},
                                                                    {">", Operator::greater}, {">=", Operator::greater_equal}};
  for (const auto& [sign, meaning] : signs)
    if (skip_sign(sign)) {
      op = meaning;
      return true;
    }
  op = Operator::in;
  if (skip_name("in")) return true;
  if (!now().is_name("not") || !following().is_name("in")) return false;
  op = Operator::not_in;
  take();
  take();
  return true;
}

ExpressionPtr ExpressionParser::comparison() {
  const Position at = now().at;
  ExpressionPtr left = sum();
  Operator op = Operator::equal;
  if (!comparing(op)) return left;
  Made made = make(ExpressionKind::comparison, at);
  made->parts.push_back(std::move(left));
  do {
    made->operators.push_back(op);
    made->parts.push_back(sum());
  } while (comparing(op));
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (true) {
    const Position at = now().at;
    if (skip_sign("+"))
      left = computed(Operator::add, at, std::move(left), concatenation());
    else if (skip_sign("-"))
      left = computed(Operator::subtract, at, std::move(left), concatenation());
    else
      return left;
  }
}

ExpressionPtr ExpressionParser::concatenation() {
  const Position at = now().at;
  ExpressionPtr first = product();
  if (!now().is_sign("~")) return first;
  Made made = make(ExpressionKind::concatenation, at);
  made->parts.push_back(std::move(first));
  while (skip_sign("~")) made->parts.push_back(product());
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (true) {
    const Position at = now().at;
    if (skip_sign("*"))
      left = computed(Operator::multiply, at, std::move(left), power());
    else if (skip_sign("/"))
      left = computed(Operator::divide, at, std::move(left), power());
    else if (skip_sign("//"))
      left = computed(Operator::floor_divide, at, std::move(left), power());
    else if (skip_sign("%"))
      left = computed(Operator::modulo, at, std::move(left), power());
    else
      return left;
  }
}

/// To the left, as Jinja reads it.
ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary();
  while (true) {
    const Position at = now().at;
    if (!skip_sign("**")) return left;
    left = computed(Operator::power, at, std::move(left), unary());
  }
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Deeper deeper(*this);
  const Position at = now().at;
  ExpressionPtr value;
  if (skip_sign("-"))
    value = joined(ExpressionKind::minus, at, unary(false));
  else if (skip_sign("+"))
    value = joined(ExpressionKind::plus, at, unary(false));
  else
    value = primary();
  value = postfix(std::move(value));
  return with_filters ? filters(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::primary() {
  const Position at = now().at;
  if (now().kind == Token::Kind::name) return named();
  if (now().kind == Token::Kind::number) {
    Made made = make(ExpressionKind::literal, at);
    made->value = take().number;
    return made;
  }
  if (now().kind == Token::Kind::string) {
    Made made = make(ExpressionKind::literal, at);
    std::string text;
    while (now().kind == Token::Kind::string) text += take().text;
    made->value = Value::text(std::move(text));
    return made;
  }
  if (now().is_sign("(")) return parenthesized();
  if (now().is_sign("[")) return list();
  if (now().is_sign("{")) return dict();
  fail_unexpected("an expression");
}

ExpressionPtr ExpressionParser::named() {
  const Token token = take();
  Made made = make(ExpressionKind::literal, token.at, token.text);
  if (token.text == "true" || token.text == "True")
    made->value = Value::boolean(true);
  else if (token.text == "false" || token.text == "False")
    made->value = Value::boolean(false);
  else if (token.text != "none" && token.text != "None")
    made->kind = ExpressionKind::name;
  return made;
}

ExpressionPtr ExpressionParser::parenthesized() {
  const Position at = take().at;
  if (skip_sign(")")) return make(ExpressionKind::tuple, at);
  ExpressionPtr value = tuple();
  expect_sign(")");
  return value;
}

ExpressionPtr ExpressionParser::list() {
  Made made = make(ExpressionKind::list, take().at);
  while (!now().is_sign("]")) {
    if (!made->parts.empty()) expect_sign(",");
    if (now().is_sign("]")) break;
    made->parts.push_back(expression());
  }
  expect_sign("]");
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::dict() {
  Made made = make(ExpressionKind::dict, take().at);
  while (!now().is_sign("}")) {
    if (!made->parts.empty()) expect_sign(",");
    if (now().is_sign("}")) break;
    made->parts.push_back(expression());
    expect_sign(":");
    made->parts.push_back(expression());
  }
  expect_sign("}");
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  while (true) {
    if (now().is_sign(".") || now().is_sign("["))
      value = subscript(std::move(value));
    else if (now().is_sign("("))
      value = call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr value) {
  const Position at = now().at;
  if (skip_sign(".")) {
    if (now().kind == Token::Kind::name) {
      Made made = make(ExpressionKind::attribute, at, take().text);
      made->parts.push_back(std::move(value));
      return finish(std::move(made));
    }
    if (now().kind != Token::Kind::number || !now().number.is(Kind::integer)) fail_unexpected("a name or a number");
    return joined(ExpressionKind::item, at, std::move(value), primary());
  }
  expect_sign("[");
  ExpressionPtr key = index();
  if (now().is_sign(",")) {
    Made made = make(ExpressionKind::tuple, at);
    made->parts.push_back(std::move(key));
    while (skip_sign(",")) made->parts.push_back(index());
    key = finish(std::move(made));
  }
  expect_sign("]");
  return joined(ExpressionKind::item, at, std::move(value), std::move(key));
}

ExpressionPtr ExpressionParser::index() {
  const auto is_left_out = [&] { return now().is_sign(":") || now().is_sign("]") || now().is_sign(","); };
  Made slice = make(ExpressionKind::slice, now().at);
  ExpressionPtr first = now().is_sign(":") ? nullptr : expression();
  if (!skip_sign(":")) return first;
  slice->parts.push_back(std::move(first));
  slice->parts.push_back(is_left_out() ? nullptr : expression());
  slice->parts.push_back(skip_sign(":") && !is_left_out() ? expression() : nullptr);
  return finish(std::move(slice));
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  Made made = make(ExpressionKind::call, now().at);
  made->parts.push_back(std::move(callee));
  arguments(*made);
  return finish(std::move(made));
}

void ExpressionParser::arguments(Expression& call) {
  expect_sign("(");
  for (bool first = true; !now().is_sign(")"); first = false) {
    if (!first) expect_sign(",");
    if (now().is_sign(")")) break;
    if (now().is_sign("*") || now().is_sign("**")) fail_at(now().at, "the arguments * and ** of a call are not supported");
    if (now().kind == Token::Kind::name && following().is_sign("=")) {
      std::string name = take().text;
      take();
      call.named.emplace_back(std::move(name), expression());
    } else {
      if (!call.named.empty()) fail_at(now().at, "an argument without name follows one with a name");
      call.parts.push_back(expression());
    }
  }
  expect_sign(")");
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr value) {
  while (true) {
    if (now().is_sign("|"))
      value = filter(std::move(value));
    else if (now().is_name("is"))
      value = test(std::move(value));
    else if (now().is_sign("("))
      value = call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr value) {
  skip_sign("|");
  Made made = make(ExpressionKind::filter, now().at);
  made->text = expect_name();
  made->parts.push_back(std::move(value));
  if (now().is_sign("(")) arguments(*made);
  return finish(std::move(made));
}

ExpressionPtr ExpressionParser::filters_of_block(bool needs_first) {
  ExpressionPtr value = needs_first ? filter(nullptr) : nullptr;
  while (now().is_sign("|")) value = filter(std::move(value));
  return value;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value) {
  Made made = make(ExpressionKind::test, take().at);
  const Position at = made->at;
  const bool negated = skip_name("not");
  made->text = expect_name();
  made->parts.push_back(std::move(value));
  const bool is_word = now().is_name("else") || now().is_name("or") || now().is_name("and");
  if (now().is_name("is")) fail_at(now().at, "tests cannot be chained with \"is\"; join them with \"and\"");
  if (now().is_sign("("))
    arguments(*made);
  else if ((now().kind == Token::Kind::name && !is_word) || now().kind == Token::Kind::string || now().kind == Token::Kind::number ||
           now().is_sign("[") || now().is_sign("{"))
    made->parts.push_back(postfix(primary()));
  ExpressionPtr tested = finish(std::move(made));
  return negated ? joined(ExpressionKind::negation, at, std::move(tested)) : std::move(tested);
}

ExpressionPtr ExpressionParser::target_item(bool allows_member) {
  const Deeper deeper(*this);
  const Position at = now().at;
  if (skip_sign("(")) {
    ExpressionPtr inner = target(allows_member);
    expect_sign(")");
    return inner;
  }
  const std::string name = expect_name();
  for (const char* constant : {"true", "false", "none", "True", "False", "None"})
    if (name == constant) fail_at(at, "cannot assign to ", name);
  Made made = make(ExpressionKind::name, at, name);
  if (!allows_member || !skip_sign(".")) return made;
  Made member = make(ExpressionKind::attribute, at, expect_name());
  member->parts.push_back(std::move(made));
  return finish(std::move(member));
}

ExpressionPtr ExpressionParser::target(bool allows_member) {
  const Position at = now().at;
  ExpressionPtr first = target_item(allows_member);
  if (!now().is_sign(",")) return first;
  Made made = make(ExpressionKind::tuple, at);
  made->parts.push_back(std::move(first));
  while (skip_sign(",") && now().kind != Token::Kind::block_end && !now().is_name("in") && !now().is_sign(")"))
    made->parts.push_back(target_item(allows_member));
  return finish(std::move(made));
}

}  // namespace transformer::jinja
