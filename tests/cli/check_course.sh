#!/bin/sh
# How finetune goes: epochs, evaluations with the best one kept and patience, a saved adapter trained further, a rate by rule.
# usage: check_course.sh PROGRAM MODEL.gguf TEXT
set -eu
program=$1 model=$2 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
data=$folder/data.txt
head -c 5600 "$3" > "$data"

fail() {
  echo "$*"
  cat "$folder/log"
  exit 1
}
finetune() {
  "$program" finetune --model "$model" --data "$data" --rank 4 --sequence 64 --threads 1 --compute fp32 --json "$folder/json" \
    "$@" > "$folder/log" 2>&1
}
number() { sed -n "s/^  \"$1\": \([-0-9.e]*\),*$/\1/p" "$folder/json"; } # of the report

# At this rate the loss on held-out text soon rises.
bad="--learning-rate 0.02 --batch 2 --steps 40 --eval-every 2 --schedule constant"
finetune $bad --patience 3 --keep-best --out "$folder/best" || fail "no run at all"
steps=$(number steps) best=$(number best_step) loss=$(number evaluation_loss_after)
[ "$steps" -lt 40 ] || fail "patience of 3 evaluations never ended"
[ "$steps" -eq $((best + 6)) ] || fail "3 evaluations after step $best is not step $steps"
grep -q "\"loss\": $loss" "$folder/json" || fail "the loss of the best evaluation is not among them"

# What is kept are the numbers of that step, and the file holds them: a run of so many steps ends there.
finetune $(echo $bad | sed "s/--steps 40/--steps $best/") --out "$folder/short" || fail "no run at all"
cmp "$folder/best/adapter_model.safetensors" "$folder/short/adapter_model.safetensors" || fail "the best numbers were not kept"

# Killed and resumed, a run with patience and the best kept ends with the same.
finetune $(echo $bad | sed "s/--steps 40/--steps $((best + 1))/") --patience 3 --keep-best --checkpoint "$folder/c" --out "$folder/cut" ||
  fail "no run at all"
finetune $bad --patience 3 --keep-best --checkpoint "$folder/c" --resume --out "$folder/again" || fail "not resumed"
cmp "$folder/best/adapter_model.safetensors" "$folder/again/adapter_model.safetensors" || fail "resumed, another step was the best"
[ "$(number steps)" = "$steps" ] || fail "resumed, patience ended elsewhere"

# An epoch deals each sequence once.
finetune --epochs 2 --batch 2 --out "$folder/epochs" || fail "no run at all"
rows=$(sed -n 's/^2 epochs of \([0-9]*\) sequences: .*/\1/p' "$folder/log")
[ "$(number steps)" -eq "$rows" ] || fail "2 epochs of $rows sequences are $(number steps) steps of 2"
finetune --epochs 2 --batch 2 --accumulate 2 --out "$folder/epochs" || fail "no run at all"
[ "$(number steps)" -eq $(((rows + 1) / 2)) ] || fail "2 epochs of $rows sequences are $(number steps) steps of 4"

# A saved adapter of any method goes on where it was, and keeps what it is.
for method in lora dora vera ia3; do
  rate=$([ $method = lora ] && echo auto || echo 0.001)
  targets=$([ $method = lora ] && echo all-linear || echo v_proj,o_proj,down_proj)
  finetune --method $method --targets $targets --steps 4 --learning-rate $rate --out "$folder/first" || fail "no run of $method"
  after=$(number evaluation_loss_after)
  finetune --adapter "$folder/first" --steps 2 --out "$folder/second" || fail "$method does not go on"
  [ "$(number evaluation_loss_before)" = "$after" ] || fail "$method goes on elsewhere: $(number evaluation_loss_before), not $after"
  grep -q '"lora_alpha": 8\|"alpha": 8\|vera\|IA3' "$folder/second/adapter_config.json" || fail "$method lost its configuration"
done
finetune --method lora --steps 1 --rslora --out "$folder/first" || fail "no run at all"
if finetune --adapter "$folder/first" --steps 1 --alpha 99 --out "$folder/second"; then fail "another alpha was taken"; fi
grep -q -e "\[adapter\].*--alpha" "$folder/log" || fail "nobody says that it is alpha"
finetune --adapter "$folder/first" --steps 1 --rslora --out "$folder/second" || fail "the same setting was refused"

# Rows of several texts: fewer steps an epoch.
data=$folder/data.jsonl
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "{\"prompt\": \"After $i\", \"completion\": \" comes more.\"}"; done > "$data"
finetune --epochs 1 --batch 1 --out "$folder/rows" || fail "no run at all"
alone=$(number steps)
for packing in walls stream; do
  finetune --epochs 1 --batch 1 --packing $packing --out "$folder/rows" || fail "no run with $packing"
  [ "$(number steps)" -lt "$alone" ] || fail "--packing $packing takes as many rows as none"
done
