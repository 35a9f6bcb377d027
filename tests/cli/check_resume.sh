#!/bin/sh
# A run is resumed as itself or not at all: every option of finetune either is refused with another value, by its name, or leaves the bits
# of the unbroken run as they are. An option that is not tried here makes the test fail.
# usage: check_resume.sh PROGRAM MODEL.gguf TEXT
set -eu
program=$1 model=$2 folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
head -c 5000 "$3" > "$folder/data.txt"
tail -c 5000 "$3" > "$folder/other.txt"
cp "$model" "$folder/same.gguf"
cp "$model" "$folder/other.gguf"
printf '\125\252' | dd of="$folder/other.gguf" bs=1 seek=$(($(wc -c < "$model") - 2000)) conv=notrunc 2> /dev/null
given="--model $model --data $folder/data.txt --out $folder/out --checkpoint $folder/run --checkpoint-every 2 --eval-every 2 --steps 4
       --rank 4 --batch 2 --sequence 64 --schedule constant --dropout 0.1 --compute fp32 --threads 1 --seed 3"

# The command with these options in place of those that it has.
finetune() {
  arguments=" $(echo $given) "
  for word; do
    case $word in --epochs) word=--steps ;; esac
    case $word in --*) arguments=$(echo "$arguments" | sed "s| $word [^ ]* | |") ;; esac
  done
  "$program" finetune $arguments "$@" > "$folder/log" 2>&1
}
fail() {
  echo "$*"
  cat "$folder/log"
  exit 1
}
resume() {
  rm -rf "$folder/run"
  cp -r "$folder/two" "$folder/run"
  finetune --resume "$@"
}
# refused NAME OPTION…: NAME is what the message has to say
refused() {
  name=$1
  shift
  if resume "$@"; then fail "$* was taken for the same run"; fi
  grep -q -e "\[checkpoint\].* was made with \(.*, \)*$name " "$folder/log" || fail "$* was refused without its name"
}
accepted() {
  resume "$@" || fail "$* was refused"
  cmp "$folder/out/adapter_model.safetensors" "$folder/unbroken/adapter_model.safetensors" || fail "$* changed the result"
}

finetune --steps 4 --out "$folder/unbroken" || fail "no run at all"
finetune --steps 2 --checkpoint "$folder/two" || fail "no run at all"
accepted --threads 1 # nothing else

for option in $("$program" finetune --help | grep -o '^ *--[a-z-]*' | sort -u); do
  case $option in
    --model) refused --model --model "$folder/other.gguf" && accepted --model "$folder/same.gguf" ;;
    --data) refused --data --data "$folder/other.txt" && cp "$folder/data.txt" "$folder/copy.txt" && accepted --data "$folder/copy.txt" ;;
    --evaluation-data) refused --evaluation-data --evaluation-data "$folder/other.txt" ;;
    --adapter) refused --adapter --adapter "$folder/unbroken" ;;
    --base) refused --base --base nf4 ;;
    --rank | --batch) refused $option $option 3 ;;
    --alpha) refused --alpha --alpha 64 ;;
    --targets | --exclude) refused $option $option q_proj ;;
    --layers) refused --layers --layers 0 ;;
    --rank-pattern) refused --rank-pattern --rank-pattern q_proj=2 ;;
    --alpha-pattern) refused --alpha-pattern --alpha-pattern q_proj=64 ;;
    --modules-to-save) refused --modules-to-save --modules-to-save lm_head ;;
    --trainable-tokens) refused --trainable-tokens --trainable-tokens 5 ;;
    --method) refused --method --method dora ;;
    --lora-bias | --freeze-a | --rslora | --ensure-weight-tying | --keep-best) refused $option $option ;;
    --lora-plus) refused --lora-plus --lora-plus 8 ;;
    --init) refused --init --init gaussian ;;
    --init-batches | --rank-spread | --accumulate) refused $option $option 2 ;;
    --dropout) refused --dropout --dropout 0.4 ;;
    --sequence) refused --sequence --sequence 32 ;;
    --packing) refused --packing --packing walls ;;
    --learning-rate) refused --learning-rate --learning-rate 0.01 && refused --learning-rate --learning-rate auto ;;
    --warmup | --eval-every | --patience | --seed) refused $option $option 1 ;;
    --schedule) refused --schedule --schedule cosine ;;
    --weight-decay | --clip) refused $option $option 0.5 ;;
    --compute) refused --compute --compute bf16 ;;
    --threads | --checkpoint-every) accepted $option 2 ;;
    --verbose | --strict-data) accepted $option ;;
    --special-tokens) refused --special-tokens --special-tokens tokens ;;
    --recompute) accepted --recompute on ;;
    --plot | --json) accepted $option "$folder/written" ;;
    --out | --checkpoint | --resume | --steps) ;;  # in every run above, of which one goes from two steps to four
    --epochs) ;;                                   # is --steps
    --device) ;;                                   # cuda needs a GPU, and stands in the table
    --format) resume --format gguf --out "$folder/adapter.gguf" || fail "another format of the output was refused" ;;
    --help | --version) ;;
    *) fail "$option: say in finetune_identity.cpp whether it decides a run's result, and try it here" ;;
  esac
done

# Where the rate falls until the last step, a longer run is another one from the first step on.
finetune --steps 2 --schedule linear --checkpoint "$folder/two" || fail "no run at all"
refused --steps --schedule linear --steps 4
grep -q -e "--adapter" "$folder/log" || fail "nobody says how to train longer"
refused --steps --schedule linear --epochs 9
