#include <algorithm>

#include <transformer/jinja/arguments.hpp>
#include <transformer/jinja/filters.hpp>
#include <transformer/jinja/operators.hpp>
#include <transformer/jinja/print.hpp>
#include <transformer/jinja/text.hpp>

namespace transformer::jinja {

namespace {

using Test = bool (*)(Run&, const Value&, const Arguments&);
struct NamedTest {
  std::string_view name;
  Test holds;
};

template <Kind... kinds>
bool is_of_kind(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a test of a type", given, {});
  return (value.is(kinds) || ...);
}

bool test_defined(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "defined", given, {});
  return !value.is_undefined();
}

template <bool truth>
bool test_truth(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "true", given, {});
  return value.is(Kind::boolean) && value.as_boolean() == truth;
}

bool test_sameas(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "sameas", given, {"other"}, 1);
  const bool single = bound[0]->is(Kind::none) || bound[0]->is(Kind::boolean);
  run.check(single, "sameas is supported with none, true and false alone");
  return value.kind() == bound[0]->kind() && is_equal(run, value, *bound[0]);
}

template <Operator op>
bool test_comparison(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a test that compares", given, {"other"}, 1);
  return comparison(run, op, value, *bound[0]);
}

bool is_multiple(Run& run, const Value& value, const Value& by) {
  const Value rest = arithmetic(run, Operator::modulo, value, by);
  return rest.is_number() && rest.as_real() == 0;
}

bool test_even(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "even", given, {});
  return is_multiple(run, value, Value::integer(2));
}

bool test_odd(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "odd", given, {});
  return is_equal(run, arithmetic(run, Operator::modulo, value, Value::integer(2)), Value::integer(1));
}

bool test_divisible(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "divisibleby", given, {"num"}, 1);
  return is_multiple(run, value, *bound[0]);
}

template <std::string (*change)(std::string)>
bool test_case(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a test of case", given, {});
  const std::string text = to_text(run, value);
  run.check(is_ascii(text), "a test of case of a text that is not ASCII is not supported");
  return change(text) == text && lower(text) != upper(text);
}

template <bool (*known)(std::string_view)>
bool test_known(Run& run, const Value& value, const Arguments& given) {
  const Bound bound(run, "a test of a name", given, {});
  return value.is_text() && known(value.as_text());
}

constexpr NamedTest tests[] = {
    {"defined", test_defined},
    {"undefined", is_of_kind<Kind::undefined>},
    {"none", is_of_kind<Kind::none>},
    {"boolean", is_of_kind<Kind::boolean>},
    {"true", test_truth<true>},
    {"false", test_truth<false>},
    {"integer", is_of_kind<Kind::integer>},
    {"float", is_of_kind<Kind::real>},
    {"number", is_of_kind<Kind::boolean, Kind::integer, Kind::real>},
    {"string", is_of_kind<Kind::text, Kind::markup>},
    {"mapping", is_of_kind<Kind::dict>},
    {"sequence", is_of_kind<Kind::text, Kind::markup, Kind::list, Kind::tuple, Kind::dict, Kind::undefined>},
    {"iterable", is_of_kind<Kind::text, Kind::markup, Kind::list, Kind::tuple, Kind::dict, Kind::generator, Kind::loop, Kind::undefined>},
    {"callable", is_of_kind<Kind::function>},
    {"sameas", test_sameas},
    {"in", test_comparison<Operator::in>},
    {"eq", test_comparison<Operator::equal>},
    {"equalto", test_comparison<Operator::equal>},
    {"==", test_comparison<Operator::equal>},
    {"ne", test_comparison<Operator::not_equal>},
    {"!=", test_comparison<Operator::not_equal>},
    {"lt", test_comparison<Operator::less>},
    {"lessthan", test_comparison<Operator::less>},
    {"<", test_comparison<Operator::less>},
    {"le", test_comparison<Operator::less_equal>},
    {"<=", test_comparison<Operator::less_equal>},
    {"gt", test_comparison<Operator::greater>},
    {"greaterthan", test_comparison<Operator::greater>},
    {">", test_comparison<Operator::greater>},
    {"ge", test_comparison<Operator::greater_equal>},
    {">=", test_comparison<Operator::greater_equal>},
    {"even", test_even},
    {"odd", test_odd},
    {"divisibleby", test_divisible},
    {"lower", test_case<lower>},
    {"upper", test_case<upper>},
    {"filter", test_known<is_filter>},
    {"test", test_known<is_test>}};

Test find_test(std::string_view name) {
  for (const NamedTest& known : tests)
    if (known.name == name) return known.holds;
  return nullptr;
}

}  // namespace

bool is_test(std::string_view name) { return find_test(name) != nullptr; }

bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  run.step();
  const Test test = find_test(name);
  run.check(test != nullptr, "the test `", name, "` is not supported");
  return test(run, value, arguments);
}

}  // namespace transformer::jinja
