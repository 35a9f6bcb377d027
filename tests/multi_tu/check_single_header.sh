#!/bin/sh
# Two objects of one source, by the folder of headers and by the single header, define the same functions; the single header holds the
# separate code when it should. sh check_single_header.sh NM CXX HEADER EIGEN OBJECT SINGLE_OBJECT
nm=$1 compiler=$2 header=$3 eigen=$4 folder_object=$5 single_object=$6
names=$(mktemp) && trap 'rm -f "$names" "$names".*' EXIT
wrong=0

# Functions and variables that a linker sees; the rest has numbers of the compiler's own in its names.
for object in "$folder_object" "$single_object"; do "$nm" "$object" | awk '$2 ~ /^[TWVuBD]$/ { print $2, $3 }' | LC_ALL=C sort > "$names.$(basename "$(dirname "$object")")"; done
set -- "$names".*
echo "$(wc -l < "$1") and $(wc -l < "$2") symbols"
[ $# = 2 ] && [ "$(wc -l < "$1")" -gt 1000 ] && diff "$1" "$2" | head -n 20 && cmp -s "$1" "$2" || wrong=1

# expect COUNT FLAGS…: how often the kernels' choice and Eigen's decomposition are defined.
expect() {
  count=$1 && shift
  found=$("$compiler" -x c++ -std=c++20 -E -P -I"$eigen" "$@" "$header" 2> /dev/null | grep -cE '(table_of\(.*Target target|householder_qr\(.*m)\) \{')
  echo "$found definitions with ${*:-no macro}"
  [ "$found" = "$count" ] || { echo "expected $count"; wrong=1; }
}
expect 2
expect 0 -DLOWRANK_SEPARATE_KERNELS
expect 2 -DLOWRANK_SEPARATE_KERNELS -DLOWRANK_SEPARATE_KERNELS_HERE
exit $wrong
