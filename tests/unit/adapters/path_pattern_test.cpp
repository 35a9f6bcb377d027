#include <doctest/doctest.h>

#include <lowrank/adapters/path_pattern.hpp>

using namespace lowrank;

namespace {
bool whole(const char* pattern, std::string_view path) { return PathPattern(pattern, "test").matches(path); }
bool ending(const char* pattern, std::string_view path) { return PathPattern::ending(pattern, "test").matches(path); }
}  // namespace

TEST_CASE("PathPattern: whole paths, as re.fullmatch") {
  CHECK(whole("q_proj", "q_proj"));
  CHECK_FALSE(whole("q_proj", "a.q_proj"));
  CHECK(whole("a.b", "axb"));
  CHECK(whole(".*layers\\.1\\..*(gate|up|down)_proj", "model.layers.1.mlp.up_proj"));
  CHECK_FALSE(whole(".*layers\\.1\\..*(gate|up|down)_proj", "model.layers.11.mlp.up_proj"));
  CHECK(whole("(?P<a>model)\\.(?P<b>[a-z_]+)", "model.lm_head"));
  CHECK(whole("(?:.*\\.)?(?=q)\\w+", "x.q_proj"));
  CHECK_FALSE(whole("", "x"));
}

TEST_CASE("PathPattern::ending: (.*\\.)?(KEY)$") {
  CHECK(ending("q_proj", "q_proj"));
  CHECK(ending("q_proj", "model.layers.0.q_proj"));
  CHECK_FALSE(ending("q_proj", "model.xq_proj"));
  CHECK_FALSE(ending("q_proj", "model.q_proj.x"));
  CHECK(ending("layers.1.mlp", "model.layers.1.mlp"));
  CHECK(ending("layers.1.mlp", "model.layersx1.mlp"));  // a dot is any character
  CHECK(ending("layers\\.1\\.mlp\\.down_proj", "model.layers.1.mlp.down_proj"));
  CHECK_FALSE(ending("layers\\.1\\.mlp\\.down_proj", "model.layersx1.mlp.down_proj"));
  CHECK(ending("q_proj|v_proj", "a.v_proj"));
  CHECK_FALSE(ending("q_proj|v_proj", "a.v_proj.b"));
}

TEST_CASE("PathPattern: what cannot be read is refused by name; nothing hangs or overflows") {
  for (const char* pattern : {"(", "a)(b", "[", "*", "(?<!a)b", "a{2", "\\"})
    CHECK_THROWS_WITH_AS(PathPattern::ending(pattern, "rank_pattern"), doctest::Contains("rank_pattern"), ValueError);
  const std::string open(100'000, '(');
  CHECK_THROWS_AS(PathPattern(open, "test"), ValueError);
  CHECK_THROWS_AS(PathPattern("(a?){20000}", "test"), ValueError);
  CHECK_THROWS_AS(PathPattern("((((a?){9}){9}){9}){9}", "test"), ValueError);
  CHECK_THROWS_AS(PathPattern("(a?){99999999999999999999999}", "test"), ValueError);
  CHECK_FALSE(whole("(a+)+b", std::string(60, 'a')));  // exponential for a backtracking matcher
  CHECK_FALSE(whole("(a|aa)*c", std::string(1000, 'a')));
  std::string optional;
  for (int i = 0; i < 2000; ++i) optional += "a?";
  CHECK(PathPattern(optional, "test").matches("aaa"));
  CHECK_FALSE(whole(".*", std::string(100'000, 'a')));
}
