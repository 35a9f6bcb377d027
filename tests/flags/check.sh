#!/bin/sh
# A program compiles under flags and succeeds. sh check.sh SOURCE COMPILER FLAGS…
source=$1 && shift
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
"$@" -x c++ /dev/null -fsyntax-only 2> "$work/log" || { cat "$work/log"; echo "the compiler does not know the flags"; exit 77; }
"$@" -Wall -Wextra -Wconversion -Wshadow -Werror "$source" -o "$work/program" && "$work/program"
