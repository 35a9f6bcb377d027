#!/bin/sh
# Builds the page and the native program and compares them in headless Chromium: sh docs/playground/test.sh FOLDER [SCREENSHOTS]
# Needs emscripten, chromium and a C++ compiler (Debian: apt-get install emscripten chromium g++ libeigen3-dev); without them it exits with 77,
# which CTest counts as skipped.
set -eu
[ $# -ge 1 ] || { echo "usage: sh docs/playground/test.sh FOLDER [SCREENSHOTS]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../tests/support/shell.sh"
CHROMIUM=$(command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome) || CHROMIUM=
export CHROMIUM
for tool in em++ node "${CHROMIUM:-chromium}"; do
  has_command "$tool" || { echo "skipped: there is no $tool"; exit 77; }
done

# Plain arithmetic in Eigen, as in WebAssembly: then every bit is the same where the library's kernels are the scalar ones.
native() {
  c++ -std=c++20 -O2 -DNDEBUG -DEIGEN_DONT_VECTORIZE -ffp-contract=off -I "$here/../../include" -isystem "${EIGEN:-/usr/include/eigen3}" \
    "$here/playground.cpp" -o "$folder/playground" -pthread
}
sh "$here/build.sh" "$folder/page"
phase "compiling the native program" native
node "$here/test.mjs" "$folder/page" "$folder/playground" ${2:+"$2"}
