#!/bin/sh
# Without exceptions the one error is a sentence that says why. sh check_refused.sh COMPILER FLAGS…
errors=$(echo '#include <lowrank/config.hpp>' | "$@" -std=c++20 -fno-exceptions -fsyntax-only -x c++ - 2>&1) && { echo "it compiles"; exit 1; }
echo "$errors"
[ "$(echo "$errors" | grep -c 'error:')" -eq 1 ] && echo "$errors" | grep -q 'compile without -fno-exceptions'
