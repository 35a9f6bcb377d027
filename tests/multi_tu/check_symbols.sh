#!/bin/sh
# No weak symbol of lowrank is in both objects: the linker would keep one body for both. sh check_symbols.sh NM FIRST.o SECOND.o
symbols=$(mktemp -d) && trap 'rm -rf "$symbols"' EXIT
for i in 2 3; do
  eval object=\$$i
  # Weak and unique symbols that name the library; std and Eigen templates over its types name it too.
  "$1" "$object" | awk '$(NF - 1) ~ /^[WVuvw]$/ && $NF ~ /7lowrank/ { print $NF }' | LC_ALL=C sort -u > "$symbols/$i"
done
echo "weak lowrank symbols: $(wc -l < "$symbols/2") and $(wc -l < "$symbols/3")"
LC_ALL=C comm -12 "$symbols/2" "$symbols/3" > "$symbols/shared"
echo "shared: $(wc -l < "$symbols/shared")"
head -n 20 "$symbols/shared" | c++filt 2>/dev/null
[ -s "$symbols/2" ] && [ -s "$symbols/3" ] && [ ! -s "$symbols/shared" ]
