#!/bin/sh
# rank_tradeoff.sh PROGRAM FOLDER: a run of seconds leaves a JSON, a CSV and a whole report, and differs from itself in no row.
set -eu
program=$1 folder=$2
rm -rf "$folder"
"$program" --quick --budget 20 --out "$folder" 2> "$folder.log" || { cat "$folder.log"; exit 1; }
tail -n 1 "$folder/rank_tradeoff.html" | grep -q '</html>'
grep -q 'measured / predicted' "$folder/rank_tradeoff.html"
head -n 1 "$folder/rank_tradeoff.csv" | grep -q '^part,pass,base,method,d,tokens,rank,'
grep -q '^layer,forward,' "$folder/rank_tradeoff.csv"
"$program" compare "$folder/rank_tradeoff.json" "$folder/rank_tradeoff.json" | tee "$folder.compare"
grep -q ' rows in both, 0 differ ' "$folder.compare"
