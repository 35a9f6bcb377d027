// Two units under one set of flags share their functions.
#include "unit.hpp"

int main() { return run_baseline().tag == run_avx2().tag && run_baseline().worst_error < 1e-4 ? 0 : 1; }
