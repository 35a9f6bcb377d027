#include <transformer/jinja/operators.hpp>

#include <algorithm>
#include <cmath>

#include <transformer/jinja/print.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

[[noreturn]] void fail_operands(const Run& run, const char* op, const Value& left, const Value& right) {
  check_defined(run, left);
  check_defined(run, right);
  run.fail("the operator ", op, " knows no ", left.type_name(), " and ", right.type_name());
}

void check_overflow(const Run& run, bool overflow) { run.check(!overflow, "a number is beyond 64 bits, which is not supported"); }

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }

std::int64_t whole_power(const Run& run, std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  bool overflow = false;
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  for (; exponent > 0 && !overflow; --exponent) overflow = __builtin_mul_overflow(result, base, &result);
  check_overflow(run, overflow);
  return result;
}

Value whole_arithmetic(const Run& run, Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  const bool divides = op == Operator::divide || op == Operator::floor_divide || op == Operator::modulo;
  run.check(!divides || b != 0, "division by zero");
  switch (op) {
    case Operator::add:
      check_overflow(run, __builtin_add_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::subtract:
      check_overflow(run, __builtin_sub_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::multiply:
      check_overflow(run, __builtin_mul_overflow(a, b, &result));
      return Value::integer(result);
    case Operator::divide:
      return Value::real(static_cast<double>(a) / static_cast<double>(b));
    case Operator::power:
      if (b >= 0) return Value::integer(whole_power(run, a, b));
      run.check(a != 0, "zero to a negative power");
      return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
    default:
      break;
  }
  if (b == -1) return op == Operator::modulo ? Value::integer(0) : whole_arithmetic(run, Operator::subtract, 0, a);
  const std::int64_t quotient = floor_quotient(a, b);
  return Value::integer(op == Operator::floor_divide ? quotient : a - quotient * b);
}

Value real_arithmetic(const Run& run, Operator op, double a, double b) {
  const bool divides = op == Operator::divide || op == Operator::floor_divide || op == Operator::modulo;
  run.check(!divides || b != 0, "division by zero");
  switch (op) {
    case Operator::add:
      return Value::real(a + b);
    case Operator::subtract:
      return Value::real(a - b);
    case Operator::multiply:
      return Value::real(a * b);
    case Operator::divide:
      return Value::real(a / b);
    case Operator::power:
      run.check(!(a == 0 && b < 0), "zero to a negative power");
      run.check(!(a < 0 && b != std::floor(b)), "a negative number to a broken power is complex");
      return Value::real(std::pow(a, b));
    default:
      break;
  }
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return Value::real(op == Operator::modulo ? rest : std::floor((a - rest) / b + 0.5));
}

Value joined(Run& run, const Value& left, const Value& right) {
  if (left.is_text()) {
    run.charge(left.as_text().size() + right.as_text().size());
    return Value::text(left.as_text() + right.as_text());
  }
  Items items = left.items();
  items.insert(items.end(), right.items().begin(), right.items().end());
  return left.is(Kind::list) ? run.list(std::move(items)) : run.tuple(std::move(items));
}

Value repeated(Run& run, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::uint64_t>(std::max<std::int64_t>(times, 0));
  const std::uint64_t size = value.is_text() ? value.as_text().size() : value.items().size() * sizeof(Value);
  run.check(size == 0 || count < (std::uint64_t{1} << 40) / size, "a text or list repeated ", times, " times is too large");
  run.charge(count * size);
  if (value.is_text()) {
    std::string text;
    if (size)
      for (std::uint64_t i = 0; i < count; ++i) text += value.as_text();
    return Value::text(std::move(text));
  }
  Items items;
  if (size)
    for (std::uint64_t i = 0; i < count; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is(Kind::list) ? run.list(std::move(items)) : run.tuple(std::move(items));
}

const char* arithmetic_name(Operator op) {
  static constexpr const char* names[] = {"+", "-", "*", "/", "//", "%", "**"};
  return names[static_cast<int>(op)];
}

bool is_text_or_sequence(const Value& value) { return value.is_text() || value.is_sequence(); }

bool same_items(Run& run, const Items& a, const Items& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!is_equal(run, a[i], b[i])) return false;
  return true;
}

bool same_entries(Run& run, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    run.step(b.entries.size());
    const Value* other = b.find(key);
    if (!other || !is_equal(run, value, *other)) return false;
  }
  return true;
}

bool same_number(const Value& a, const Value& b) {
  return a.is_whole() && b.is_whole() ? a.as_integer() == b.as_integer() : a.as_real() == b.as_real();
}

}  // namespace

void check_defined(const Run& run, const Value& value) {
  if (value.is_undefined()) run.fail(value.why_undefined());
}

bool is_true(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return value.as_integer() != 0;
    case Kind::real:
      return value.as_real() != 0;
    case Kind::text:
    case Kind::markup:
      return !value.as_text().empty();
    case Kind::list:
    case Kind::tuple:
      return !value.items().empty();
    case Kind::dict:
      return !value.as_dict().entries.empty();
    default:
      return true;
  }
}

bool is_same_key(const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) return same_number(left, right);
  if (left.is_text() && right.is_text()) return left.as_text() == right.as_text();
  if (left.is(Kind::tuple) && right.is(Kind::tuple))
    return std::equal(left.items().begin(), left.items().end(), right.items().begin(), right.items().end(), is_same_key);
  return left.is(Kind::none) && right.is(Kind::none);
}

bool is_equal(Run& run, const Value& left, const Value& right) {
  run.step();
  if (left.is_number() && right.is_number()) return same_number(left, right);
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::text:
    case Kind::markup:
      run.read(left.as_text().size());
      return left.as_text() == right.as_text();
    case Kind::list:
    case Kind::tuple:
      return same_items(run, left.items(), right.items());
    case Kind::dict:
      return same_entries(run, left.as_dict(), right.as_dict());
    case Kind::generator:
      return &left.as_generator() == &right.as_generator();
    case Kind::space:
      return &left.as_space() == &right.as_space();
    case Kind::loop:
      return &left.as_loop() == &right.as_loop();
    default:
      return &left.as_function() == &right.as_function();
  }
}

int order(Run& run, const Value& left, const Value& right) {
  run.step();
  if (left.is_number() && right.is_number()) {
    if (left.is_whole() && right.is_whole()) return (left.as_integer() > right.as_integer()) - (left.as_integer() < right.as_integer());
    return (left.as_real() > right.as_real()) - (left.as_real() < right.as_real());
  }
  if (left.is_text() && right.is_text()) {
    run.read(left.as_text().size());
    return left.as_text().compare(right.as_text());
  }
  if (left.kind() != right.kind() || !left.is_sequence()) fail_operands(run, "<", left, right);
  const Items &a = left.items(), &b = right.items();
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!is_equal(run, a[i], b[i])) return order(run, a[i], b[i]);
  return (a.size() > b.size()) - (a.size() < b.size());
}

bool contains(Run& run, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text()) fail_operands(run, "in", item, container);
    const std::string &text = container.as_text(), &part = item.as_text();
    run.read(text.size() * std::max<std::size_t>(part.size(), 1));  // at worst
    return text.find(part) != std::string::npos;
  }
  if (container.is_dict()) {
    run.step(container.as_dict().entries.size());
    return container.as_dict().find(item) != nullptr;
  }
  const Items items = iterate(run, container);
  return std::any_of(items.begin(), items.end(), [&](const Value& other) { return is_equal(run, other, item); });
}

Value arithmetic(Run& run, Operator op, const Value& left, const Value& right) {
  run.step();
  if (left.is_whole() && right.is_whole()) return whole_arithmetic(run, op, left.as_integer(), right.as_integer());
  if (left.is_number() && right.is_number()) return real_arithmetic(run, op, left.as_real(), right.as_real());
  if (op == Operator::add && left.kind() == right.kind() && is_text_or_sequence(left)) return joined(run, left, right);
  if (op == Operator::multiply && is_text_or_sequence(left) && right.is_whole()) return repeated(run, left, right.as_integer());
  if (op == Operator::multiply && is_text_or_sequence(right) && left.is_whole()) return repeated(run, right, left.as_integer());
  if (op == Operator::modulo && left.is_text()) run.fail("formatting with the operator % is not supported");
  fail_operands(run, arithmetic_name(op), left, right);
}

bool comparison(Run& run, Operator op, const Value& left, const Value& right) {
  // No order holds with what is not a number.
  const bool unordered = left.is_number() && right.is_number() && (std::isnan(left.as_real()) || std::isnan(right.as_real()));
  switch (op) {
    case Operator::equal:
      return is_equal(run, left, right);
    case Operator::not_equal:
      return !is_equal(run, left, right);
    case Operator::less:
      return !unordered && order(run, left, right) < 0;
    case Operator::less_equal:
      return !unordered && order(run, left, right) <= 0;
    case Operator::greater:
      return !unordered && order(run, left, right) > 0;
    case Operator::greater_equal:
      return !unordered && order(run, left, right) >= 0;
    case Operator::in:
      return contains(run, right, left);
    default:
      return !contains(run, right, left);
  }
}

Value negative(Run& run, const Value& value) {
  if (value.is_whole()) return whole_arithmetic(run, Operator::subtract, 0, value.as_integer());
  check_defined(run, value);
  run.check(value.is_number(), "the operator - knows no ", value.type_name());
  return Value::real(-value.as_real());
}

Items iterate(Run& run, const Value& value) {
  Items items;
  switch (value.kind()) {
    case Kind::undefined:
      break;
    case Kind::list:
    case Kind::tuple:
      items = value.items();
      break;
    case Kind::dict:
      for (const auto& entry : value.as_dict().entries) items.push_back(entry.first);
      break;
    case Kind::text:
      run.charge(value.as_text().size() * sizeof(Value));
      for (std::string& character : characters(value.as_text())) items.push_back(run.text(std::move(character)));
      break;
    case Kind::generator: {
      Generator& generator = value.as_generator();
      items.assign(generator.items.begin() + static_cast<std::ptrdiff_t>(generator.next), generator.items.end());
      generator.next = generator.items.size();
      break;
    }
    default:
      run.fail("a value of type ", value.type_name(), " cannot be gone through");
  }
  run.step(items.size());
  return items;
}

std::optional<std::int64_t> length_of(Run& run, const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return 0;
    case Kind::text:
      run.read(value.as_text().size());
      return static_cast<std::int64_t>(character_count(value.as_text()));
    case Kind::list:
    case Kind::tuple:
      return static_cast<std::int64_t>(value.items().size());
    case Kind::dict:
      return static_cast<std::int64_t>(value.as_dict().entries.size());
    case Kind::loop:
      return static_cast<std::int64_t>(value.as_loop().items.size());
    default:
      return std::nullopt;
  }
}

}  // namespace transformer::jinja
