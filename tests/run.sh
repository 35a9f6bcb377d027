#!/bin/sh
# Builds and runs all tests: those of memory and files under the sanitizers, then all in Release, those of the build itself among them.
# sh tests/run.sh [CMake options]. On Debian and Ubuntu it installs what is missing.
set -eu
cd "$(dirname "$0")/.."
. tests/support/shell.sh

need_compiler
need doctest-dev has_header doctest/doctest.h
need libpcre2-dev has_header pcre2.h
need libcli11-dev has_header CLI/CLI.hpp
need python3 has_command python3  # writes the single header
install_missing

for kind in sanitize test; do
  phase "configuring: $kind" cmake --preset $kind "$@"
  phase "building: $kind, $(jobs) at a time" cmake --build --preset $kind --parallel "$(jobs)"
  ctest --preset $kind --parallel "$(jobs)"
done
