#!/bin/sh
# Decoding after contexts: a row, a field and a point of the plot each, and what memory allows beside them; one that does not fit is refused.
# A profile is in the report, too.
# usage: check_contexts.sh PROGRAM
set -eu
program=$1 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bench() { "$program" bench --model demo --skip-training --prompt-tokens 4 --tokens 2 --repetitions 1 "$@"; }

bench --context 40,8 --cache fp32 --plot "$folder/plot.svg" --json "$folder/bench.json" > "$folder/out" 2>&1 || { cat "$folder/out"; exit 1; }
for line in 'one of 2 tokens after 8 ' 'one of 2 tokens after 40 ' 'Memory is read at'; do
  grep -q "$line" "$folder/out" || { echo "no line with: $line"; cat "$folder/out"; exit 1; }
done
for field in '"decode_by_context"' '"context": 8,' '"context": 40,' '"memory_gb_per_second"' '"memory_share"'; do
  grep -q "$field" "$folder/bench.json" || { echo "no $field"; cat "$folder/bench.json"; exit 1; }
done
"$program" bench --model demo --skip-generation --batch 1 --sequence 8 --rank 1 --steps 1 --profile --json "$folder/profile.json" > "$folder/out" 2>&1
grep -q '"micro-kernels": ' "$folder/profile.json" || { echo "no profile"; cat "$folder/profile.json"; exit 1; }
grep -q 'what memory allows' "$folder/plot.svg" || { echo "no theory in the plot"; exit 1; }

if bench --context 1000000 > "$folder/out" 2>&1; then
  echo "a context went beyond the model's"
  exit 1
fi
grep -q '\[bench\] --context 1000000' "$folder/out" || { cat "$folder/out"; exit 1; }
