#pragma once

#include <string>

/// What one unit got from the library; plain types, so that it can cross from unit to unit.
struct UnitResult {
  std::string tag;     // the ABI name that the unit was compiled under
  int width;           // floats a vector of the unit's instruction set
  double worst_error;  // against dense mathematics in double
};

UnitResult run_baseline();
UnitResult run_avx2();
