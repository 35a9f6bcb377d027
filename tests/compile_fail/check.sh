#!/bin/sh
# FILE compiles, and with -DWRONG it does not: the compiler then says what stands behind "// expect:". sh check.sh FILE CXX FLAGS…
file=$1 && shift
wanted=$(sed -n 's|^// expect: ||p' "$file")
[ -n "$wanted" ] || { echo "$file names no message: // expect: …"; exit 1; }
"$@" -fsyntax-only "$file" || { echo "the right use does not compile"; exit 1; }
if message=$("$@" -fsyntax-only -DWRONG "$file" 2>&1); then
  echo "the misuse compiles"; exit 1
fi
echo "$message" | grep -F 'error:' | head -n 3
echo "$message" | grep -qF "$wanted" || { echo "$message" | head -n 40; echo "no word of: $wanted"; exit 1; }
