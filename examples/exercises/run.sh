#!/bin/sh
# Checks the exercises of a chapter, or of all: sh examples/exercises/run.sh [NN]. They fail until they are solved.
# FOLDER=examples/solutions checks the solutions. A C++20 compiler, Eigen and doctest are needed, nothing is installed. The first run
# compiles the library's kernels and the main program into build-exercises/, which takes a minute.
set -eu
cd "$(dirname "$0")/../.."
folder=${FOLDER:-examples/exercises}
eigen=$(pkg-config --cflags eigen3 2> /dev/null) || eigen=-I/usr/include/eigen3
build=build-exercises
compile() { "${CXX:-c++}" -std=c++20 -O1 -DLOWRANK_SEPARATE_KERNELS -Iinclude -Itests -I"$folder" $eigen "$@"; }

mkdir -p $build
for part in kernels main; do
  [ -f $build/$part.o ] || compile -c tests/support/$part.cpp -o $build/$part.o
done
status=0 found=0
for test in tests/exercises/"${1:-}"*_test.cpp; do
  [ -f "$test" ] || continue
  found=1
  echo "== $test"
  compile "$test" $build/kernels.o $build/main.o -pthread -o $build/exercise
  $build/exercise || status=1
done
[ $found = 1 ] || { echo "no chapter $1; give two digits, such as 01"; exit 2; }
exit $status
