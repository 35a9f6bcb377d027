#!/bin/sh
# Checks the exercises of a chapter, or of all: sh examples/exercises/run.sh [NN]. They fail until they are solved.
# FOLDER=examples/solutions checks the solutions. A C++20 compiler, CMake, Eigen and doctest are needed, nothing is installed. The first run
# compiles the library and the main program into build-exercises/, which takes a minute or two.
set -eu
cd "$(dirname "$0")/../.."
. tests/support/shell.sh
folder=${FOLDER:-examples/exercises}
eigen=$(pkg-config --cflags eigen3 2> /dev/null) || eigen=-I/usr/include/eigen3
build=build-exercises
compile() { "${CXX:-c++}" -std=c++20 -O1 -DLOWRANK_COMPILED -Iinclude -Itests -I"$folder" $eigen "$@"; }

if [ ! -f $build/liblowrank.a ]; then
  phase "configuring" cmake -S . -B $build -DCMAKE_BUILD_TYPE=Release -DLOWRANK_EXAMPLES=OFF -DLOWRANK_TESTS=OFF -DLOWRANK_OPENMP=OFF
  phase "building the library" cmake --build $build --parallel "$(jobs)" --target lowrank_compiled
fi
[ -f $build/main.o ] || compile -c tests/support/main.cpp -o $build/main.o
status=0 found=0
for test in tests/exercises/"${1:-}"*_test.cpp; do
  [ -f "$test" ] || continue
  found=1
  echo "== $test"
  compile "$test" $build/main.o $build/liblowrank.a -pthread -o $build/exercise
  $build/exercise || status=1
done
[ $found = 1 ] || { echo "no chapter $1; give two digits, such as 01"; exit 2; }
exit $status
