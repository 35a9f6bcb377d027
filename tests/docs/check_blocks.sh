#!/bin/sh
# Every ```cpp block of README.md and docs/ is a whole program, or consists of lines that stand one after the other in a file that the
# project compiles, every ```cmake block of lines of a consumer that the tests build; a line "…" leaves some out. Links to files lead to files. sh check_blocks.sh ROOT
cd "$1" || exit 1
{ find examples include tests -name "*.hpp" -o -name "*.inl" -o -name "*.cpp" -o -name "*.cu"; ls tests/consumer/*/CMakeLists.txt; } | LC_ALL=C sort > "${TMPDIR:-/tmp}/sources.$$"
trap 'rm -f "${TMPDIR:-/tmp}/sources.$$"' EXIT
LC_ALL=C awk -v list="${TMPDIR:-/tmp}/sources.$$" '
  function trim(line) { sub(/^[ \t]+/, "", line); sub(/[ \t]+$/, "", line); return line }
  function part_is_known() {
    if (part != "" && index(corpus, "\n" part) == 0) { print FILENAME ": no file that is built has these lines:\n" part; ++wrong }
    part = ""
  }
  BEGIN {
    corpus = "\n"
    while ((getline file < list) > 0) {
      while ((getline line < file) > 0) if ((line = trim(line)) != "") corpus = corpus line "\n"
      close(file)
    }
  }
  /^```(cpp|cmake)$/ { inside = 1; lines = 0; whole = 0; delete block; next }
  /^```/ && inside {
    inside = 0
    if (whole) { ++programs; next }
    ++excerpts
    for (i = 1; i <= lines; ++i) if (block[i] == "…") part_is_known(); else part = part block[i] "\n"
    part_is_known()
    next
  }
  inside { line = trim($0); if (line != "") block[++lines] = line; if (line ~ /int main\(/) whole = 1; next }
  /^```/ { other = !other; next }
  other { next }
  {
    rest = $0
    while (match(rest, /\]\([^)#]+/)) {
      path = substr(rest, RSTART + 2, RLENGTH - 2); rest = substr(rest, RSTART + RLENGTH)
      if (path ~ /^https?:/) continue
      if (FILENAME ~ /^docs\//) path = "docs/" path
      if (system("test -e \"" path "\"") != 0) { print FILENAME ": a link leads nowhere: " path; ++wrong }
    }
  }
  END { print programs + 0 " programs, " excerpts + 0 " excerpts, " wrong + 0 " faults"; exit wrong > 0 }' README.md docs/*.md
