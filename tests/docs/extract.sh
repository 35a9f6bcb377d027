#!/bin/sh
# Writes the whole programs (```cpp blocks with a main) of pages to FOLDER/PAGE_K.cpp and prints their paths; files that do not change keep
# their time. sh extract.sh FOLDER PAGE…
folder=$1 && shift
mkdir -p "$folder"
for page in "$@"; do
  stem=$(basename "$page" .md)
  awk -v base="$folder/$stem" '
    /^```cpp$/ { inside = 1; block = ""; next }
    /^```/ && inside { inside = 0; if (block ~ /int main\(/) { path = base "_" ++count ".cpp"; printf "%s", block > (path ".new"); close(path ".new"); print path } next }
    inside { block = block $0 "\n" }' "$page"
done | while read -r path; do
  if cmp -s "$path.new" "$path"; then rm "$path.new"; else mv "$path.new" "$path"; fi
  echo "$path"
done
