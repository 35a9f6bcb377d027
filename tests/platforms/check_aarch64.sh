#!/bin/sh
# The products' tests compile for aarch64 without a warning and pass under emulation, on a processor with all extensions and on one with none.
# sh check_aarch64.sh ROOT EIGEN_INCLUDE DOCTEST_INCLUDE; 77 where the cross-compiler or the emulator is missing.
root=$1 eigen=$2 doctest=$3
compiler=aarch64-linux-gnu-g++ emulator=qemu-aarch64
for tool in "$compiler" "$emulator"; do
  command -v "$tool" > /dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir "$work/include" && ln -s "$doctest/doctest" "$work/include"  # alone: what else lies beside it belongs to this system

for file in support/main.cpp unit/kernels/gemm_test.cpp unit/kernels/few_test.cpp; do
  echo "#include <$file>"
done > "$work/tests.cpp"
"$compiler" -std=c++20 -O1 -Wall -Wextra -Wconversion -Wshadow -Werror -I "$root/include" -I "$root/tests" -isystem "$eigen" \
  -isystem "$work/include" "$work/tests.cpp" -static -o "$work/tests" || exit 1

run() {  # TARGET CPU CASES, without what tests the driver alone: emulation is slow
  LOWRANK_TARGET=$1 "$emulator" -cpu "$2" "$work/tests" --test-case="$3" \
    --test-case-exclude="*same bits*,*several blocks*,*several parts*" > "$work/log" 2>&1
}
run neonbf16 max '*' || { cat "$work/log"; exit 1; }
tail -n 3 "$work/log"
run neon cortex-a72 'composed sources' || { cat "$work/log"; exit 1; }
for target in neondot neonbf16; do
  if run $target cortex-a72 'composed sources' || ! grep -q "LOWRANK_TARGET=$target is unknown or not supported by this processor" "$work/log"; then
    echo "a Cortex-A72 does not refuse $target" && cat "$work/log" && exit 1
  fi
done
