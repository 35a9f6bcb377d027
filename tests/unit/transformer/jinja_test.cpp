#include <doctest/doctest.h>

#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include <lowrank/io/json.hpp>

#include <transformer/jinja/from_json.hpp>
#include <transformer/jinja/template.hpp>

#include "transformer_support.hpp"

using transformer::jinja::Run;
using transformer::jinja::Template;
using transformer_test::golden_folder;

namespace {

std::string render_snippet(const std::string& source, const std::string& variables = "{}") {
  Run run(std::time_t{1753600000});
  Template::Variables given;
  for (const auto& [name, value] : transformer::jinja::from_json(variables, "variables").as_dict().entries)
    given.emplace_back(name.as_text(), value);
  return Template(source).render(run, std::move(given)).text;
}

/// What an error says, or nothing.
std::string error_of(const std::string& source) {
  try {
    render_snippet(source);
  } catch (const lowrank::Error& error) {
    return error.what();
  }
  return "";
}

lowrank::json::Json chat_golden() {
  std::ifstream file(golden_folder / "chat_templates" / "expected.json");
  return lowrank::json::Json::parse(file);
}

}  // namespace

TEST_CASE("jinja: snippets give what Python's Jinja2 gives, or are refused where it refuses them") {
  ::setenv("TZ", "UTC", 1);
  const auto golden = chat_golden();
  REQUIRE(golden.at("snippets").size() > 100);
  for (const auto& snippet : golden.at("snippets")) {
    const auto source = snippet.at("template").get<std::string>();
    INFO(source);
    if (snippet.at("text").is_null())
      CHECK(error_of(source) != "");
    else
      CHECK(render_snippet(source) == snippet.at("text").get<std::string>());
  }
}

TEST_CASE("jinja: what is not supported is refused by name, at its line and column") {
  CHECK(error_of("a\n  {{ 'x' | groupby('y') }}") == "[jinja] line 2, column 12: the filter `groupby` is not supported");
  CHECK(error_of("{% include 'x' %}") == "[jinja] line 1, column 1: the statement `include` is not supported");
  CHECK(error_of("{{ 'x' is escaped }}") == "[jinja] line 1, column 8: the test `escaped` is not supported");
  CHECK(error_of("{{ lipsum() }}") == "[jinja] line 1, column 10: the function `lipsum` is not supported");
  CHECK(error_of("{{ 'a'.zfill(3) }}") == "[jinja] line 1, column 13: the method `zfill` of a str is not supported");
  CHECK(error_of("{{ f(*x) }}") == "[jinja] line 1, column 6: the arguments * and ** of a call are not supported");
  CHECK(error_of("{{ 9223372036854775807 + 1 }}").find("beyond 64 bits") != std::string::npos);
  CHECK(error_of("{{ 'é'|upper }}").find("not ASCII") != std::string::npos);
}

TEST_CASE("jinja: malformed templates are errors with line and column") {
  CHECK(error_of("\n\n {% if x %}") == "[jinja] line 3, column 12: what begins here never ends; close it with {% endif %}");
  CHECK(error_of("ä{{ (1 }}") == "[jinja] line 1, column 8: unexpected \"}\", expected )");
  CHECK(error_of("{{ 1 +") == "[jinja] line 1, column 1: the tag never ends; close it with }}");
  CHECK(error_of("{{ 1 + }}") == "[jinja] line 1, column 8: expected an expression, found \"}}\"");
  CHECK(error_of("{% endfor %}") == "[jinja] line 1, column 1: {% endfor %} closes nothing that is open here");
  CHECK(error_of("{{ x.y }}") == "[jinja] line 1, column 5: the variable x is not defined");
  CHECK(error_of("{{ raise_exception('Roles must alternate') }}") == "[chat template] Roles must alternate");
}

TEST_CASE("jinja: a hostile template neither hangs nor nests nor grows without bound") {
  const std::string doubling = "{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
  CHECK(error_of(doubling).find("bytes of text and lists") != std::string::npos);
  CHECK(error_of("{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}").find("steps") != std::string::npos);
  CHECK(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").find("deep") != std::string::npos);
  CHECK(error_of("{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}").find("deep") !=
        std::string::npos);
  CHECK(error_of("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}") != "");  // a circle
  CHECK(error_of("{{ 'a' * 9999999999999 }}").find("too large") != std::string::npos);
  CHECK(error_of("{{ ('a' * 1000000).replace('', 'b' * 1000000) }}").find("bytes of text and lists") != std::string::npos);
  CHECK(error_of("{{ ('a' * 1000000)|replace('a', 'b' * 1000) }}").find("bytes of text and lists") != std::string::npos);
  CHECK(error_of("{{ ('a' * 1000000 ~ 'b') in ('a' * 9000000) }}").find("steps") != std::string::npos);
  CHECK(error_of("{{ " + std::string(100'000, '(') + "1" + std::string(100'000, ')') + " }}").find("deep") != std::string::npos);
  CHECK(error_of("{{ 1" +
                 [] {
                   std::string chain;
                   for (int i = 0; i < 100'000; ++i) chain += " + 1";
                   return chain;
                 }() +
                 " }}")
            .find("deep") != std::string::npos);
  CHECK(error_of([] {
          std::string nested;
          for (int i = 0; i < 10'000; ++i) nested += "{% if true %}";
          return nested;
        }())
            .find("deep") != std::string::npos);
  CHECK(error_of("{{ 'x'|indent(100000000) }}").find("1000 at most") != std::string::npos);
}

TEST_CASE("jinja: a limit that is nearly reached is none") {
  CHECK(render_snippet("{% for i in range(100000) %}{% endfor %}x") == "x");
  CHECK(render_snippet("{{ ('ab' * 1000000)|length }}") == "2000000");
}

TEST_CASE("jinja: many threads use one template") {
  const Template source("{% for i in range(1000) %}{{ i }}{% endfor %}");
  const auto render = [&] {
    Run run;
    return source.render(run, {}).text;
  };
  const std::string alone = render();
  std::string other;
  std::thread thread([&] { other = render(); });
  CHECK(render() == alone);
  thread.join();
  CHECK(other == alone);
}
