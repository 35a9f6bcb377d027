#!/bin/sh
# A function with a type of the library, defined in a unit without LOWRANK_COMPILED and called in one with it: the linker says by name that it
# misses the compiled one. With the same way in both, the program links and runs. sh check_mixed.sh CXX INCLUDE LIBRARY
compiler=$1 include=$2 library=$3
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cat > "$work/defined.cpp" << 'CODE'
#include <lowrank/core/tensor.hpp>
lowrank::Index bytes(const lowrank::StoredTensor& tensor) { return static_cast<lowrank::Index>(tensor.bytes.size()); }
CODE
cat > "$work/called.cpp" << 'CODE'
#include <lowrank/core/tensor.hpp>
lowrank::Index bytes(const lowrank::StoredTensor& tensor);
int main() { return bytes({"x", lowrank::DType::f32, {4}, lowrank::Buffer::allocate(16)}) == 16 ? 0 : 1; }
CODE
compile() { "$compiler" -std=c++20 -O0 -I"$include" "$@" || exit 1; }
for unit in defined called; do
  compile -c "$work/$unit.cpp" -o "$work/$unit.o"
  compile -DLOWRANK_COMPILED -c "$work/$unit.cpp" -o "$work/${unit}_compiled.o"
done
link() { "$compiler" "$@" "$library" -pthread -fopenmp -o "$work/program" 2>&1; }
link "$work/defined.o" "$work/called.o" && "$work/program" || { echo "header-only alone fails"; exit 1; }
link "$work/defined_compiled.o" "$work/called_compiled.o" && "$work/program" || { echo "compiled alone fails"; exit 1; }
message=$(link "$work/defined.o" "$work/called_compiled.o") && { echo "a program that mixes both links"; exit 1; }
echo "$message" | grep -F 'undefined reference' | grep '_compiled'
