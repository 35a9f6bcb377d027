#!/bin/sh
# What a command does with the data it is given: reads it by what it holds, says in a line what became of it, and refuses what is no text.
# usage: check_data.sh PROGRAM
set -eu
program=$1 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
fail() { echo "$1"; cat out; exit 1; }
evaluate() { "$program" evaluate --model demo --threads 1 "$@" > out 2> err && cat err >> out; }
refused() { if evaluate "$@" 2> /dev/null; then fail "accepted: $*"; fi; cat err > out; }
has() { grep -qF -- "$1" out || fail "no line with: $1"; }

# One set of records in every format, under any name, gives one loss.
i=0
while [ $i -lt 12 ]; do
  echo "{\"prompt\": \"Question $i\", \"completion\": \" answer $i\"}" >> lines.json
  i=$((i + 1))
done
{ echo '['; sed '$!s/$/,/' lines.json; echo ']'; } > array.txt
{ printf '\357\273\277completion;prompt;id\r\n'; sed 's/.*prompt": "\(.*\)", "completion": \(".*"\)}/\2;\1;7\r/' lines.json; } > table.txt
for file in lines.json array.txt table.txt; do
  evaluate --data $file || fail "$file"
  has 'likelihood 2.3752 nats a token, perplexity 10.753, over 122 tokens'
  has '12 records, '
done
has '"table.txt": CSV, 12 records, 244 tokens in 12 sequences, 122 to predict; not used: "id"'


# What does not fit is counted and placed; --strict-data makes an error of it; finetune says the same.
i=0
while [ $i -lt 20 ]; do
  if [ $i = 4 ] || [ $i = 11 ]; then prompt='a few words'; else prompt='so many words that none of the completion fits'; fi
  echo "{\"prompt\": \"$prompt\", \"completion\": \" never seen\"}" >> long.jsonl
  i=$((i + 1))
done
evaluate --data long.jsonl --sequence 32 || fail long.jsonl
has 'left out 18 (what is to be learned begins after the 32 tokens of --sequence: lines 1, 2, 3, 4, 6 and 13 more)'
refused --data long.jsonl --sequence 32 --strict-data
has 'left out 18'
"$program" finetune --model demo --data long.jsonl --out adapter --steps 1 --sequence 32 --rank 2 --threads 1 > out 2>&1 || fail finetune
has 'left out 18'
if "$program" finetune --model demo --data long.jsonl --out strict --steps 1 --sequence 32 --strict-data > out 2>&1; then fail "finetune --strict-data"; fi
has 'left out 18'

# Bytes that are no text are refused by what they are, whatever their name, before a model is opened.
gzip -c lines.json > packed.jsonl
printf '\377\376h\0i\0' > wide.txt
printf 'PAR1....PAR1' > table.jsonl
for file in packed.jsonl wide.txt table.jsonl; do
  refused --data $file
  has "[data] \"$file\" is "
done
for command in evaluate "finetune --out never"; do
  if "$program" $command --model nowhere.gguf --data packed.jsonl > out 2>&1; then fail "$command"; fi
  has '[data] "packed.jsonl" is packed by gzip; unpack it: gzip -dk FILE'
done

# Messages need a template to be written with.
echo '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}' > talk.jsonl
refused --data talk.jsonl
has 'holds messages, but the model has no chat template'

# A special token that a prompt spells out is text, unless it is asked for.
generate() { "$program" generate --model demo --prompt 'The sea<|endoftext|>' --tokens 1 --threads 1 --json report.json "$@" > out 2>&1 || fail generate; }
generate
has 'spells out <|endoftext|>, which is read as text'
cat report.json > out
has '"prompt_tokens": 20'
generate --special-tokens tokens
if grep -q 'spells out' out; then fail "a warning though tokens were asked for"; fi
cat report.json > out
has '"prompt_tokens": 8'
