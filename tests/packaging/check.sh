#!/bin/sh
# A package is made of the sources, and a program is built with nothing but that package and what it depends on, and runs.
# sh check.sh debian|vcpkg|conan ROOT BUILD CXX CMAKE; 77 where the tool is missing.
set -eu
kind=$1 root=$2 build=$3 compiler=$4 cmake=$5
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# app PREFIX: the program of Conan's test package, by CMake, where the package lies in PREFIX.
app() {
  mkdir "$work/app" && cp "$root/tests/packaging/app/CMakeLists.txt" "$root/packaging/conan/test_package/main.cpp" "$work/app"
  "$cmake" -S "$work/app" -B "$work/app/build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_PREFIX_PATH="$1" > "$work/log" || { cat "$work/log"; exit 1; }
  "$cmake" --build "$work/app/build"
  grep "lowrank_DIR.*$1" "$work/app/build/CMakeCache.txt"
  cd "$work" && "$work/app/build/app"
}
sources() {
  mkdir "$work/source" "$work/source/tests"
  cp -R "$root/CMakeLists.txt" "$root/LICENSE" "$root/CHANGELOG.md" "$root/include" "$root/packaging" "$work/source"
  cp -R "$root/tests/support" "$work/source/tests"
}

case $kind in
  debian)
    command -v dpkg-deb > /dev/null && command -v cpack > /dev/null || { echo "skipped: there is no dpkg-deb or cpack"; exit 77; }
    (cd "$build" && cpack -G DEB -B "$work/made") > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    package=$(ls "$work"/made/liblowrank-dev_*_all.deb)
    for field in "Package: liblowrank-dev" "Depends: libeigen3-dev (>= 3.4)" "Recommends: nlohmann-json3-dev" "Architecture: all"; do
      dpkg-deb -I "$package" | grep -x " $field"
    done
    dpkg-deb -c "$package" > "$work/list"
    for path in usr/include/lowrank/lowrank.hpp usr/share/doc/liblowrank-dev/copyright usr/share/pkgconfig/lowrank.pc; do
      grep -q "root/root .* ./$path\$" "$work/list" || { echo "the package has no $path of root's"; cat "$work/list"; exit 1; }
    done
    ! grep -e '/lib/' -e compiled.pc "$work/list" || { echo "a package for every architecture holds a library"; exit 1; }
    dpkg-deb -x "$package" "$work/root"
    ! grep -rlF -e "$root/" -e "$build/" "$work/root" || { echo "these files name the folder in which they were made"; exit 1; }
    app "$work/root/usr"
    ;;
  vcpkg)
    sources
    "$cmake" -D ROOT="$work/source" -D WORK="$work" -D COMPILER="$compiler" -D FEATURES=io -P "$root/tests/packaging/vcpkg.cmake"
    app "$work/packages"
    ;;
  conan)
    command -v conan > /dev/null || { echo "skipped: there is no conan"; exit 77; }
    sources
    export CONAN_HOME="$work/conan" CXX="$compiler"
    conan profile detect > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    conan create "$work/source/packaging/conan" -o "lowrank/*:dependencies=system" -s compiler.cppstd=20 --no-remote
    ;;
esac
