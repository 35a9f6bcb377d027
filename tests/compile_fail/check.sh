#!/bin/sh
# FILE compiles, and with -DWRONG=1, 2, … (as many as "// cases:" says) it does not. The compiler then says what stands behind "// expect:";
# with "// first:" its first error says it, and the whole message has 25 lines at most. sh check.sh FILE CXX FLAGS…
file=$1 && shift
wanted=$(sed -n 's|^// expect: ||p' "$file")
first=$(sed -n 's|^// first: ||p' "$file")
cases=$(sed -n 's|^// cases: ||p' "$file")
[ -n "$wanted$first" ] || { echo "$file names no message: // expect: … or // first: …"; exit 1; }
"$@" -fsyntax-only "$file" || { echo "the right use does not compile"; exit 1; }
case=1
while [ "$case" -le "${cases:-1}" ]; do
  if message=$("$@" -fsyntax-only -DWRONG="$case" "$file" 2>&1); then
    echo "the misuse compiles (case $case)"; exit 1
  fi
  errors=$(echo "$message" | grep -F 'error:')
  echo "$errors" | head -n 3
  echo "$message" | grep -qF "$wanted$first" || { echo "$message" | head -n 40; echo "no word of: $wanted$first (case $case)"; exit 1; }
  lines=$(echo "$message" | wc -l)
  if [ -n "$first" ]; then
    echo "$errors" | head -n 1 | grep -qF "$first" || { echo "$message" | head -n 40; echo "not the first error: $first (case $case)"; exit 1; }
    [ "$lines" -le 25 ] || { echo "$message" | head -n 40; echo "$lines lines say it, 25 were enough (case $case)"; exit 1; }
  fi
  case=$((case + 1))
done
