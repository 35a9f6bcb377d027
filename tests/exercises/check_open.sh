#!/bin/sh
# Each case of a doctest program fails: a check that an untouched exercise passes would teach nothing. sh check_open.sh PROGRAM
names=$(mktemp) && trap 'rm -f "$names"' EXIT
"$1" --list-test-cases --no-colors=true | grep '^exercise' > "$names"
passed=0 failed=0
while read -r name; do
  if "$1" "--test-case=$name" > /dev/null 2>&1; then
    echo "passes without work: $name"; passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done < "$names"
echo "$failed exercises fail as they should, $passed do not"
[ "$passed" -eq 0 ] && [ "$failed" -ge 20 ]
