#!/bin/sh
# Each header compiles alone: all of them with the bodies apart, the umbrellas with them too. sh check_alone.sh INCLUDE JOBS COMPILER FLAGS…
# Those that stand on core/matrix.hpp are compiled with Eigen precompiled, which is most of what each of them costs.
cd "$1" || exit 1
jobs=$2 && shift 2
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export command="$* -std=c++20 -I. -x c++ -fsyntax-only" eigen="$work/eigen.hpp"
echo '#include <Eigen/Core>' > "$eigen"
"$@" -std=c++20 -x c++-header "$eigen" -o "$eigen.gch" || exit 1
{
  find lowrank -name '*.hpp' | grep -v -e '^lowrank/dist/mpi' -e '^lowrank/mpi' | LC_ALL=C sort | sed 's/$/ -DLOWRANK_COMPILED/'
  for umbrella in lowrank adapters io; do echo "lowrank/$umbrella.hpp -I."; done
} | xargs -P "$jobs" -n 2 sh -c '
  case $1 in
    lowrank/config.hpp | lowrank/error.hpp | lowrank/core/* | lowrank/kernels/* | lowrank/quant/*) before= ;;
    *) before="-include $eigen" ;;
  esac
  printf "#include <%s>\n" "$1" | $command $before $2 - || { echo "<$1> does not compile alone"; exit 1; }' check
