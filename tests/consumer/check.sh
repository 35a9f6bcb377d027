#!/bin/sh
# A project of its own, in a folder of its own, builds with the library and runs:
# sh check.sh WAY ROOT BUILD CXX CMAKE EIGEN_DIR EIGEN_INCLUDE
# WAY: a folder beside this file, or pkg_config, single_header, without_eigen. An installed copy is moved before it is used, and nothing that
# was built may name ROOT.
set -eu
way=$1 root=$2 build=$3 compiler=$4 cmake=$5 eigen_dir=$6 eigen_include=$7
here=$root/tests/consumer
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir "$work/app"
cp "$here"/*.cpp "$here"/*.hpp "$work/app"
cp "$here/interface.cmake" "$work"

install_and_move() {
  "$cmake" --install "$build" --prefix "$work/first" > "$work/log"
  mv "$work/first" "$work/prefix"
  cmp "$root/LICENSE" "$work/prefix/share/doc/lowrank/LICENSE"
}
source_alone() {  # what a project needs that takes the library from source
  mkdir -p "$1"
  cp -R "$root/CMakeLists.txt" "$root/LICENSE" "$root/include" "$1"
}
# Eigen where the user has it: another folder than the system's, known to CMake by its name alone.
own_eigen() {
  mkdir -p "$work/eigen/share/eigen3" "$work/eigen/include"
  cp -R "$eigen_dir" "$work/eigen/share/eigen3/cmake"
  ln -s "$eigen_include" "$work/eigen/include/eigen3"
}
configure() {
  cp "$here/$way/CMakeLists.txt" "$work/app"
  "$cmake" -S "$work/app" -B "$work/build" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_PROJECT_app_INCLUDE="$work/interface.cmake" "$@"
}
built_and_run() {
  "$cmake" --build "$work/build"
  cd "$work"
  for program in app linked gpu files own_method own_layer own_operation own_format; do [ ! -x "build/$program" ] || "build/$program"; done
  [ ! -x build/tune_gguf ] || killed_and_resumed
}
# A run that is killed between two files of its state, and goes on, ends in the bits of one that is not.
killed_and_resumed() {
  build/tune_gguf weights.gguf whole.safetensors
  ! build/tune_gguf weights.gguf cut.safetensors 13 || exit 1
  ! cmp -s whole.safetensors cut.safetensors || exit 1
  build/tune_gguf weights.gguf cut.safetensors
  cmp whole.safetensors cut.safetensors
}

case $way in
  find_package)
    install_and_move && own_eigen
    configure -DCMAKE_PREFIX_PATH="$work/prefix" -DEigen3_ROOT="$work/eigen" > "$work/log" || { cat "$work/log"; exit 1; }
    grep "Eigen3_DIR.*$work/eigen" "$work/build/CMakeCache.txt"
    built_and_run
    ;;
  add_subdirectory)
    source_alone "$work/app/lowrank"
    configure
    built_and_run
    ;;
  fetch_content)
    source_alone "$work/lowrank-0.1.0"
    (cd "$work" && "$cmake" -E tar czf lowrank.tar.gz lowrank-0.1.0) && rm -r "$work/lowrank-0.1.0"
    configure -DLOWRANK_URL="file://$work/lowrank.tar.gz"
    built_and_run
    ;;
  pkg_config)
    install_and_move
    cd "$work/app"
    export PKG_CONFIG_PATH="$work/prefix/share/pkgconfig"
    "$compiler" -std=c++20 $(pkg-config --cflags lowrank) main.cpp $(pkg-config --libs lowrank) -o app
    ./app
    "$compiler" -std=c++20 $(pkg-config --cflags lowrank-compiled) main.cpp $(pkg-config --libs lowrank-compiled) -o linked
    ./linked
    ;;
  single_header)
    install_and_move
    cp "$work/prefix/include/lowrank/single_header/lowrank.hpp" "$work/app" && rm -r "$work/prefix"
    cd "$work/app"
    "$compiler" -std=c++20 -DSINGLE_HEADER -I "$eigen_include" main.cpp -pthread -o app
    ./app
    ;;
  without_eigen)
    way=find_package
    install_and_move
    ! configure -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON > "$work/log" 2>&1 || exit 1
    tr -s ' \n' ' ' < "$work/log" | grep -o "lowrank needs Eigen 3.4 or later.*Eigen3_ROOT=[A-Z]*"
    ;;
esac

rm -f "$work/log"
for path in "$root/" "$work/first"; do
  ! grep -rlF "$path" "$work" || { echo "these files name $path"; exit 1; }
done
