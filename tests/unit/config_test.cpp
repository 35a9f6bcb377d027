#include <doctest/doctest.h>

#include <string>

#include <lowrank/config.hpp>

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

namespace lowrank::inline LOWRANK_ABI {
struct Probe {};
}  // namespace lowrank::inline LOWRANK_ABI

TEST_CASE("the ABI name spells the version and the mode") {
  const std::string tag = TEXT(LOWRANK_ABI);
  INFO(tag);
  const std::string version = "v" + std::to_string(LOWRANK_VERSION_MAJOR) + "_" + std::to_string(LOWRANK_VERSION_MINOR) + "_" +
                              std::to_string(LOWRANK_VERSION_PATCH);
  CHECK(tag.substr(0, version.size()) == version);
#if defined(LOWRANK_COMPILED)  // the library brings assertions and OpenMP, or not
  const bool compiled = true, openmp = false, debug = false;
#else
  const bool compiled = false;
#if defined(_OPENMP)
  const bool openmp = true;
#else
  const bool openmp = false;
#endif
#if defined(NDEBUG)
  const bool debug = false;
#else
  const bool debug = true;
#endif
#endif
  CHECK((tag.find("_compiled") != std::string::npos) == compiled);
  CHECK((tag.find("_omp") != std::string::npos) == openmp);
  CHECK((tag.find("_debug") != std::string::npos) == debug);
}

TEST_CASE("the tagged namespace is seen as lowrank") {
  const lowrank::Probe probe;
  const lowrank::LOWRANK_ABI::Probe& same = probe;
  CHECK(&same == &probe);
}
