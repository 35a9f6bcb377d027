#!/bin/sh
# A program of the whole library compiles and links for Windows without a warning, and runs where Wine is.
# sh check_mingw.sh ROOT EIGEN_INCLUDE JSON_INCLUDE; 77 where the cross-compiler is missing.
root=$1 eigen=$2 json=$3
compiler=x86_64-w64-mingw32-g++-posix
command -v "$compiler" > /dev/null || { echo "skipped: there is no $compiler"; exit 77; }
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir "$work/include" && ln -s "$json/nlohmann" "$work/include"  # alone: what else lies beside it belongs to this system

# The flag lets GCC's code for AVX run where the stack is not aligned for it; without it the scalar kernels run.
"$compiler" -std=c++20 -O1 -Wall -Wextra -Wconversion -Wshadow -Werror -Wa,-muse-unaligned-vector-move -I "$root/include" \
  -isystem "$eigen" -isystem "$work/include" "$root/tests/platforms/portable.cpp" -static -o "$work/portable.exe" || exit 1
echo "compiled and linked: $(wc -c < "$work/portable.exe") bytes"

wine=$(command -v wine64 || command -v wine || ls /usr/lib/wine/wine64 2> /dev/null) || { echo "not run: there is no Wine"; exit 0; }
cd "$work" || exit 1
export WINEPREFIX="$work/wine" WINEDEBUG=-all
for target in scalar ""; do
  LOWRANK_TARGET=$target timeout 120 "$wine" ./portable.exe 2> "$work/log" || { cat "$work/log"; exit 1; }
done
