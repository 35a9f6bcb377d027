#!/bin/sh
# Each header compiles alone: all of them with the bodies apart, the umbrellas with them too. sh check_alone.sh INCLUDE JOBS COMPILER FLAGS…
cd "$1" || exit 1
jobs=$2 && shift 2
export command="$* -std=c++20 -I. -x c++ -fsyntax-only"
{
  find lowrank -name '*.hpp' | grep -v -e '^lowrank/dist/mpi' -e '^lowrank/mpi' | LC_ALL=C sort | sed 's/$/ -DLOWRANK_COMPILED/'
  for umbrella in lowrank adapters io; do echo "lowrank/$umbrella.hpp -I."; done
} | xargs -P "$jobs" -n 2 sh -c 'printf "#include <%s>\n" "$1" | $command "$2" - || { echo "<$1> does not compile alone"; exit 255; }' check
