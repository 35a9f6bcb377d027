#!/bin/sh
# examples/exercises/run.sh: an untouched chapter is told in a few lines that give nothing away, a wrong answer gets a hint, the solutions hold.
# sh check_runner.sh ROOT FOLDER LIBRARY, with the compiled library, which is not built again
root=$1 folder=$2 library=$3
rm -rf "$folder" && mkdir -p "$folder/wrong" && cp "$library" "$folder/liblowrank.a" || exit 1
faults=0
run() { BUILD=$folder FOLDER=$1 sh "$root/examples/exercises/run.sh" "$2" > "$folder/output" 2> "$folder/errors"; result=$?; cat "$folder/output"; }
fault() { echo "fault: $1"; cat "$folder/errors"; faults=1; }

run examples/exercises 01
[ $result = 1 ] || fault "an untouched chapter ends with $result"
[ "$(wc -l < "$folder/output")" -le 6 ] || fault "an untouched chapter prints more than six lines"
grep -q "waits for your answer" "$folder/output" || fault "an untouched chapter is not told what to do"
grep -q "examples/solutions/01_rank.hpp" "$folder/output" || fault "no link to the solution"
grep -q "==.*[0-9] *)\|values:\|1b" "$folder/output" && fault "it shows right values, or goes on after the first"

sed 's|return (m \* n - 1) / (m + n)|return m * n / (m + n)|' "$root/examples/solutions/01_rank.hpp" > "$folder/wrong/01_rank.hpp"
run "$folder/wrong" 01
[ $result = 1 ] || fault "a wrong answer ends with $result"
grep -q "too large" "$folder/output" && grep -q "Hint: count both sides" "$folder/output" || fault "a wrong answer gets no hint"

run examples/solutions 01
[ $result = 0 ] && [ "$(grep -c holds "$folder/output")" = 2 ] || fault "the solutions do not hold"
for name in $(sed -n 's|^// \([0-9]*[a-z]\), .*|\1|p' "$root"/examples/exercises/*.hpp); do
  grep -q "^$name ." "$root/tests/exercises/hints.txt" || fault "exercise $name has no hint"
done
exit $faults
