#!/bin/sh
# What needs no text needs no tokenizer: a model whose tokenizer is of an unknown kind is measured, and says so only when text is asked for.
# usage: check_tokenizer.sh PROGRAM MODEL.gguf
set -eu
program=$1 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
LC_ALL=C sed 's/gpt2/gptX/' "$2" > "$folder/unknown.gguf"
cmp -s "$2" "$folder/unknown.gguf" && { echo "the model names no tokenizer \"gpt2\""; exit 1; }

"$program" bench --model "$folder/unknown.gguf" --skip-training --prompt-tokens 4 --tokens 1 --repetitions 1 > "$folder/out" 2>&1 ||
  { cat "$folder/out"; exit 1; }
if "$program" generate --model "$folder/unknown.gguf" --prompt Hello --tokens 1 > "$folder/out" 2>&1; then
  echo "text went through an unknown tokenizer"
  exit 1
fi
grep -q '\[tokenizer\].*gptX' "$folder/out" || { cat "$folder/out"; exit 1; }
