#!/bin/sh
# Checks each #include of include/lowrank against layers.txt; lowrank.hpp, adapters.hpp and io.hpp together reach every file for the CPU.
# sh check_layers.sh ROOT
cd "$1/include/lowrank" || exit 1
find . -name '*.hpp' -o -name '*.inl' | sed 's|^\./||' | LC_ALL=C sort | awk -v table="$1/tests/layers.txt" '
  function layer_of(file,   prefix) {
    if (file in layer) return layer[file]
    for (prefix in layer) if (prefix ~ /\/$/ && index(file, prefix) == 1) return layer[prefix]
    return 0
  }
  function is_body(file) { return file ~ /\.inl$/ }
  function allowed(file, header,   prefix) {
    if (header !~ /[.\/]/) return 1  # the standard library
    for (prefix in allow) if (index(file, prefix) == 1 && index(allow[prefix], " " header " ")) return 1
    return 0
  }
  function complain(text) { print text; ++wrong }
  function visit(file,   i, count, list) {  # depth first; a file met again on its own path closes a circle, through bodies too
    if (state[file] == 2) return
    if (state[file] == 1) { complain("lowrank/" file " includes itself in a circle"); return }
    state[file] = 1
    count = split(includes[file], list, " ")
    for (i = 1; i <= count; ++i) visit(list[i])
    state[file] = 2
  }
  function reaches(file, target, bodies,   i, count, list) {
    if (target ~ /\/$/ ? index(file, target) == 1 : file == target) return 1
    if (seen[file]++) return 0
    count = split(includes[file] foreign[file], list, " ")
    for (i = 1; i <= count; ++i) if ((bodies || !is_body(list[i])) && reaches(list[i], target, bodies)) return 1
    return 0
  }
  function check_apart(rule, bodies,   i, j, count, word, exempt) {  # HEADER PATH... [but PATH...]
    count = split(rule, word, " ")
    if (!(word[1] in named)) complain("layers.txt: a rule keeps apart from " word[1] ", which nothing includes")
    for (i = 2; i <= count && word[i] != "but"; ++i) {}
    for (j = i + 1; j <= count; ++j) exempt[word[j]] = 1
    for (i = i - 1; i >= 2; --i)
      for (j = 1; j <= total; ++j) {
        if (index(files[j], word[i]) != 1 || index(files[j], word[1]) == 1 || files[j] in exempt || (!bodies && is_body(files[j]))) continue
        split("", seen)
        if (reaches(files[j], word[1], bodies)) complain("lowrank/" files[j] " includes " word[1] " by some way, from which it must be apart")
      }
  }
  BEGIN {
    while ((getline line < table) > 0) {
      count = split(line, word, " ")
      if (word[1] == "layer") { ++depth; for (i = 2; i <= count; ++i) layer[word[i]] = depth }
      if (word[1] == "apart" || word[1] == "declared") { sub(/^[a-z]+ +/, "", line); apart[++aparts] = line; whole[aparts] = word[1] == "apart" }
      if (word[1] == "allow") { allow[word[2]] = " "; for (i = 3; i <= count; ++i) allow[word[2]] = allow[word[2]] word[i] " " }
    }
    if (!depth) complain("no layers in " table)
  }
  {
    file = $0
    files[++total] = file
    if (!layer_of(file)) complain("lowrank/" file " belongs to no layer of tests/layers.txt")
    first = ""; region = 0
    while ((getline line < file) > 0) {
      if (first == "") first = line
      if (line ~ /pragma GCC push_options|pragma clang attribute push/) region = 1
      if (line ~ /pragma GCC pop_options|pragma clang attribute pop/) region = 0
      if (region && line ~ /^namespace .*LOWRANK_ABI/) complain("lowrank/" file " opens the tagged namespace inside a target region")
      if (line !~ /^[ \t]*#[ \t]*include/) continue
      header = line
      sub(/^[^<"]*[<"]/, "", header); sub(/[>"].*$/, "", header)
      if (line ~ /include[ \t]*"/) complain("lowrank/" file " includes \"" header "\"; write <lowrank/…>")
      else if (header ~ /^lowrank\//) {
        sub(/^lowrank\//, "", header)
        includes[file] = includes[file] " " header
        folder = header; sub(/[^\/]*$/, "", folder)
        named[header] = named[folder] = 1
        if (!layer_of(header) || layer_of(header) > layer_of(file)) complain("lowrank/" file " includes lowrank/" header ", which lies above it")
      } else {
        foreign[file] = foreign[file] " " header
        named[header] = 1
        if (!allowed(file, header)) complain("lowrank/" file " may not include <" header ">")
      }
    }
    close(file)
    if (!is_body(file) && first != "#pragma once") complain("lowrank/" file " does not begin with #pragma once")
  }
  END {
    for (i = 1; i <= total; ++i) visit(files[i])
    split("", seen)
    reaches("lowrank.hpp", "", 1); reaches("adapters.hpp", "", 1); reaches("io.hpp", "", 1)
    for (i = 1; i <= total; ++i)
      if (!seen[files[i]] && files[i] !~ /^(cuda|dist|mpi)[.\/]/) complain("nothing reaches lowrank/" files[i])
    for (i = 1; i <= aparts; ++i) check_apart(apart[i], whole[i])
    print total " files, " depth " layers, " wrong + 0 " violations"
    exit wrong > 0
  }'
