#!/bin/sh
# LOWRANK_ABI is the same whether Eigen comes before or after, and another one under other flags. sh check_abi.sh CXX INCLUDE EIGEN
compiler=$1 include=$2 eigen=$3
names=$(mktemp) && trap 'rm -f "$names"' EXIT
wrong=0

expand() { "$compiler" -x c++ -std=c++20 -E -P -I"$include" -isystem "$eigen" $1 - 2>/dev/null | sed -n 's/^ *ABI_IS //p'; }

while read -r flags; do
  "$compiler" $flags -x c++ -E /dev/null > /dev/null 2>&1 || continue  # a flag of another machine
  before=$(printf '#include <lowrank/config.hpp>\nABI_IS LOWRANK_ABI\n' | expand "$flags")
  around=$(printf '#include <lowrank/config.hpp>\n#include <Eigen/Core>\nABI_IS LOWRANK_ABI\n' | expand "$flags")
  after=$(printf '#include <Eigen/Core>\n#include <lowrank/config.hpp>\nABI_IS LOWRANK_ABI\n' | expand "$flags")
  echo "$before  ${flags:-(no flag)}"
  case $before in v[0-9]*) ;; *) echo "  is no name"; wrong=$((wrong + 1));; esac
  if [ "$before" != "$around" ] || [ "$before" != "$after" ]; then
    echo "  becomes $around, or $after after Eigen"; wrong=$((wrong + 1))
  fi
  if grep -qxF -- "$before" "$names"; then echo "  is taken by other flags"; wrong=$((wrong + 1)); fi
  echo "$before" >> "$names"
done <<FLAGS

-DNDEBUG
-fopenmp
-ffast-math
-D_GLIBCXX_DEBUG
-msse3
-mssse3
-msse4.1
-msse4.2
-mpopcnt
-mavx
-mavx -mf16c
-mavx2
-mavx2 -mfma
-mavx2 -mfma -mbmi2
-march=x86-64-v3
-march=x86-64-v4
-march=x86-64-v4 -mavx512vnni
-march=x86-64-v4 -mavx512bf16
-march=sapphirerapids
-march=armv8-a+sve
-march=armv8.2-a+dotprod
-DEIGEN_DONT_VECTORIZE
-DEIGEN_DONT_ALIGN
-DEIGEN_DONT_ALIGN_STATICALLY
-DEIGEN_MAX_ALIGN_BYTES=32
-DEIGEN_MAX_ALIGN_BYTES=64 -mavx
-DEIGEN_MAX_STATIC_ALIGN_BYTES=64
-DEIGEN_MAX_STATIC_ALIGN_BYTES=64 -DEIGEN_MAX_ALIGN_BYTES=32
-DEIGEN_MAX_STATIC_ALIGN_BYTES=0 -DEIGEN_MAX_ALIGN_BYTES=32
-DEIGEN_DONT_VECTORIZE -DEIGEN_MAX_ALIGN_BYTES=16
FLAGS
echo "$(wc -l < "$names") names, $wrong wrong"
[ $wrong -eq 0 ]
