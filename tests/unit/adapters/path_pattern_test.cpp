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

TEST_CASE("PathPattern: what cannot be read is refused by the name of its field") {
  for (const char* pattern : {"(", "a)(b", "[", "*", "(?<!a)b", "\\", "\\1", "(?i)a"})
    CHECK_THROWS_WITH_AS(PathPattern::ending(pattern, "rank_pattern"), doctest::Contains("[path_pattern] rank_pattern: "), ValueError);
}
