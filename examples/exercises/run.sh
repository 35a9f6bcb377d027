#!/bin/sh
# Checks the exercises of a chapter, or of all: sh examples/exercises/run.sh [NN]. It stops at the first that does not hold, with a hint and
# a link to the solution; what the right value is, it does not print. FOLDER=examples/solutions checks the solutions. On Debian and Ubuntu
# it installs what is missing. The first run compiles the library and the main program into build-exercises/ (or $BUILD), which takes a minute or two.
set -eu
cd "$(dirname "$0")/../.."
. tests/support/shell.sh
folder=${FOLDER:-examples/exercises}
need_compiler
need doctest-dev has_header doctest/doctest.h
install_missing
eigen=$(pkg-config --cflags eigen3 2> /dev/null) || eigen=-I/usr/include/eigen3
build=${BUILD:-build-exercises}
compile() { "${CXX:-c++}" -std=c++20 -O1 -DLOWRANK_COMPILED -Iinclude -Itests -I"$folder" $eigen "$@"; }

if [ ! -f $build/liblowrank.a ]; then
  phase "configuring" cmake -S . -B $build -DCMAKE_BUILD_TYPE=Release -DLOWRANK_EXAMPLES=OFF -DLOWRANK_TESTS=OFF -DLOWRANK_OPENMP=OFF
  phase "building the library" cmake --build $build --parallel "$(jobs)" --target lowrank_compiled
fi
[ -f $build/main.o ] || phase "compiling the main program" compile -c tests/support/main.cpp -o $build/main.o

# The lines of one exercise in its header: from its comment to that of the next one.
body_of() { awk -v name="// $1," 'index($0, "// ") == 1 && $0 ~ /^\/\/ [0-9]+[a-z],/ { inside = index($0, name) == 1 } inside' "$2"; }
# From doctest's report: on which side the answers lie, and whether always by one factor.
direction_of() {
  awk '/values: / && match($0, /\( *-?[0-9.e+-]+ == (Approx\( )?-?[0-9.e+-]+/) {
         split(substr($0, RSTART + 1, RLENGTH - 1), side, / == (Approx\( )?/)
         if (side[2] + 0 == 0 || side[1] + 0 == 0) { other = 1; next }
         ratio = side[1] / side[2]; ++n
         if (ratio < 0) sign = 1; else if (ratio < 1) small = 1; else large = 1
         if (n > 1 && (ratio / first > 1.01 || ratio / first < 0.99)) vary = 1
         if (n == 1) first = ratio
       }
       END {
         if (n == 0) exit
         text = sign ? "of the wrong sign" : small && large ? "now too small, now too large" : small ? "too small" : "too large"
         print "Your value is " text (n > 1 && !vary && !other ? ", always by the same factor." : ".")
       }' "$1"
}
# One test case: silent when it holds.
check() {
  check_name=$(expr "$1" : 'exercise \([0-9]*[a-z]\)')
  if $build/exercise --no-colors=true "--test-case=$1" > $build/report 2>&1; then echo "$check_name holds"; return 0; fi
  echo "$check_name does not hold yet ($1)"
  if body_of "$check_name" "$2" | grep -q "your answer"; then
    echo "  It waits for your answer in $2."
  else
    direction_of $build/report | sed 's/^/  /'
    echo "  Hint: $(sed -n "s/^$check_name //p" tests/exercises/hints.txt)"
  fi
  echo "  A solution with its reason: examples/solutions/$(basename "$2"). What the test compares: $build/report, and the right values with it."
  return 1
}

found=0
for test in tests/exercises/"${1:-}"*_test.cpp; do
  [ -f "$test" ] || continue
  found=1
  header=$folder/$(basename "$test" _test.cpp).hpp
  echo "== $header"
  compile "$test" $build/main.o $build/liblowrank.a -pthread ${LDFLAGS:-} -o $build/exercise
  $build/exercise --list-test-cases --no-colors=true | grep '^exercise' > $build/cases
  while read -r name; do check "$name" "$header" || exit 1; done < $build/cases
done
[ $found = 1 ] || { echo "no chapter $1; give two digits, such as 01"; exit 2; }
