#!/bin/sh
# Two objects of one source, by the folder of headers and by the single header, define the same functions; the single header holds the
# bodies when it should. sh check_single_header.sh NM CXX HEADER EIGEN OBJECT SINGLE_OBJECT
nm=$1 compiler=$2 header=$3 eigen=$4 folder_object=$5 single_object=$6
names=$(mktemp) && trap 'rm -f "$names" "$names".*' EXIT
wrong=0

# Functions and variables that a linker sees; the rest has numbers of the compiler's own in its names.
symbols() { "$nm" "$1" | grep -v ' _Z[0-9]*run_' | awk '$2 ~ /^[TWVuBD]$/ { print $2, $3 }' | LC_ALL=C sort; }
symbols "$folder_object" > "$names.folder"
symbols "$single_object" > "$names.single"
echo "$(wc -l < "$names.folder") and $(wc -l < "$names.single") symbols"
[ "$(wc -l < "$names.folder")" -gt 1000 ] || wrong=1
diff "$names.folder" "$names.single" > "$names.difference" || { head -n 20 "$names.difference"; wrong=1; }

# expect COUNT FLAGS…: how often the choice of the target is defined.
expect() {
  count=$1 && shift
  found=$("$compiler" -x c++ -std=c++20 -E -P -I"$eigen" "$@" "$header" 2> /dev/null | grep -cE 'Target& current_target\(\) \{')
  echo "$found definitions with ${*:-no macro}"
  [ "$found" = "$count" ] || { echo "expected $count"; wrong=1; }
}
expect 1
expect 0 -DLOWRANK_COMPILED
expect 1 -DLOWRANK_COMPILED -DLOWRANK_COMPILING
exit $wrong
