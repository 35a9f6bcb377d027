#!/bin/sh
# Builds the page into a folder, with emscripten (Debian's 3.1.6 or later): sh docs/playground/build.sh FOLDER [SUFFIX]
# Open FOLDER/index.html: it needs no server. Its links to chapters lead to these files, or with a suffix to a site's pages, ../NAME and SUFFIX.
set -eu
[ $# -ge 1 ] || { echo "usage: sh docs/playground/build.sh FOLDER [SUFFIX]" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
. ../../tests/support/shell.sh
need emscripten has_command em++
need libeigen3-dev has_header Eigen/Core
install_missing

# Debian's emscripten finds the packages of its JavaScript tools here. Nothing catches an exception, so none is made catchable.
compile() {
  NODE_PATH=${NODE_PATH:-/usr/share/nodejs} em++ -std=c++20 -O2 -DNDEBUG -I ../../include -isystem "${EIGEN:-/usr/include/eigen3}" playground.cpp \
    -sSINGLE_FILE=1 -sMODULARIZE=1 -sEXPORT_NAME=createLowrank -sENVIRONMENT=web -sALLOW_MEMORY_GROWTH=1 -o "$out/lowrank.js"
}
phase "compiling the library to WebAssembly" compile
cp playground.css playground.js "$out"
docs=$(cd .. && pwd)
if [ $# -gt 1 ]; then link="../\\1$2"; else link="$docs/\\1.md"; fi
sed "s|\.\./\([0-9a-z_]*\)\.md|$link|g" index.html > "$out/index.html"
