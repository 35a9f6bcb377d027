// Two units under other flags in one program: each keeps its own functions and gets its own results.
#include <cstdio>

#include "unit.hpp"

namespace {

int wrong = 0;

void expect(bool condition, const char* what) {
  if (!condition) std::printf("wrong: %s\n", what), ++wrong;
}

void print(const char* name, const UnitResult& result) {
  std::printf("%-8s  %-32s  %d floats a vector, error %.2g\n", name, result.tag.c_str(), result.width, result.worst_error);
}

}  // namespace

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 77;  // CTest: skipped
  const UnitResult baseline = run_baseline(), avx2 = run_avx2();
  print("baseline", baseline);
  print("avx2", avx2);
  expect(baseline.tag != avx2.tag, "the units have one tag");
  expect(baseline.width == 4, "the baseline unit ran another unit's function");
  expect(avx2.width == 8, "the AVX2 unit ran another unit's function");
  expect(baseline.worst_error < 1e-4, "the baseline unit's product");
  expect(avx2.worst_error < 1e-4, "the AVX2 unit's product");
  return wrong > 0;
}
