#!/bin/sh
# A conversation over a pipe: what the template writes is continued as `generate` continues it, what was read is not read again, adapters are
# switched by a word, the oldest turns go when the context is full, and Ctrl-C at the prompt ends.
# usage: check_chat.sh PROGRAM MODEL.gguf DATA.txt
set -eu
program=$1 model=$2 data=$3 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "$1"; cat "$folder/out" "$folder/err" 2> /dev/null || true; exit 1; }
chat() { "$program" chat --model "$model" --compute fp32 "$@" > "$folder/out" 2> "$folder/err"; }
generate() { "$program" generate --model "$model" --compute fp32 --json "$folder/g.json" "$@" > /dev/null 2>&1; }
# member NAME FILE: the values of that member, one a line
member() { sed -n "s/^ *\"$1\": \(.*[^,]\),*\$/\1/p" "$2"; }

if echo Hello | chat; then fail "a model without chat template chats"; fi
grep -q 'has no chat template.*--chat-template FILE' "$folder/err" || fail "no word of --chat-template"
printf '{%% for m in messages %%}{{ m.content|groupby(1) }}{%% endfor %%}' > "$folder/wrong"
if echo Hello | chat --chat-template "$folder/wrong"; then fail "a filter that is not supported is"; fi
grep -q 'line 1, column 37: the filter `groupby` is not supported' "$folder/err" || fail "no word of the filter"

printf '{%% for m in messages %%}{{ m.content }}: {%% endfor %%}' > "$folder/template"
printf 'The patient\n\nThe contract\n' | chat --chat-template "$folder/template" --tokens 5 --json "$folder/chat.json" || fail "no chat"
first=$(member text "$folder/chat.json" | sed -n 1p) second=$(member text "$folder/chat.json" | sed -n 2p)
generate --tokens 5 --prompt 'The patient: '
[ "$first" = "$(member text "$folder/g.json")" ] || fail "chat says $first, generate $(member text "$folder/g.json")"
[ "$(member prompt_tokens "$folder/chat.json" | sed -n 1p)" = "$(member prompt_tokens "$folder/g.json")" ] || fail "the prompt differs"
[ "$(member reused_tokens "$folder/chat.json" | sed -n 1p)" = 0 ] || fail "the first message is reused"
[ "$(member reused_tokens "$folder/chat.json" | sed -n 2p)" -gt 1 ] || fail "the second message reads all again"

"$program" finetune --model "$model" --data "$data" --steps 2 --batch 2 --sequence 32 --learning-rate 0.05 --rank 2 --out "$folder/tuned" > /dev/null 2>&1 ||
  fail "no adapter"
printf '/adapter\n/adapter nobody\nThe patient\n/clear\n/adapter none\nThe patient\n/clear\n/adapter tuned\nThe patient\n' |
  chat --chat-template "$folder/template" --tokens 5 --adapter "$folder/tuned" --json "$folder/chat.json" || fail "no chat with an adapter"
grep -q 'adapters: tuned none (now tuned)' "$folder/err" || fail "no list of adapters"
grep -q 'no adapter is named "nobody"' "$folder/err" || fail "an unknown adapter"
[ "$(member adapter "$folder/chat.json" | tr '\n' ' ')" = '"tuned" "none" "tuned" ' ] || fail "adapters are not switched"
generate --tokens 5 --adapter "$folder/tuned" --prompt 'The patient: '
tuned=$(member text "$folder/g.json")
[ "$tuned" != "$first" ] || fail "the adapter changes nothing"
[ "$(member text "$folder/chat.json" | sed -n 1p)" = "$tuned" ] || fail "the first adapter does not answer first"
[ "$(member text "$folder/chat.json" | sed -n 2p)" = "$first" ] || fail "none is not the model alone"
[ "$(member text "$folder/chat.json" | sed -n 3p)" = "$tuned" ] || fail "the adapter does not come back"

i=0
while [ $i -lt 60 ]; do
  echo "The contract ends on the 31st of March, and the patient rests before the second dose; number $i."
  i=$((i + 1))
done | chat --chat-template "$folder/template" --system "Rules." --tokens 4 --json "$folder/chat.json" || fail "a full context"
grep -q 'the context of .* tokens is full: the oldest [0-9]* messages are left out' "$folder/err" || fail "nothing is said of a full context"
[ "$(member text "$folder/chat.json" | wc -l)" = 60 ] || fail "an answer is missing"

mkfifo "$folder/in"
"$program" chat --model "$model" --chat-template "$folder/template" --tokens 2 --json "$folder/end.json" < "$folder/in" > "$folder/out" 2> "$folder/err" &
exec 3> "$folder/in"
echo "The patient" >&3
i=0
while [ ! -s "$folder/out" ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
sleep 0.5
kill -INT $!
wait $! || fail "Ctrl-C at the prompt is no end"
exec 3>&-
[ "$(member generated_tokens "$folder/end.json")" = 2 ] || fail "no report after Ctrl-C"
