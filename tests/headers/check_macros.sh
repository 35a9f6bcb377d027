#!/bin/sh
# The headers leave few macros behind: LOWRANK_ABI and LOWRANK_VERSION of config.hpp and at most eight others, all LOWRANK_. The operating
# system is asked for in core/platform alone.
# sh check_macros.sh ROOT
cd "$1/include/lowrank" || exit 1
find . -name '*.hpp' -o -name '*.inl' | LC_ALL=C sort | xargs awk '
  /^[ \t]*#[ \t]*(define|undef)[ \t]/ {
    name = $0
    sub(/^[ \t]*#[ \t]*(define|undef)[ \t]+/, "", name); sub(/[^A-Za-z0-9_].*$/, "", name)
    if ($0 ~ /^[ \t]*#[ \t]*undef/) delete where[name]; else where[name] = FILENAME
  }
  /^[ \t]*#[ \t]*(if|elif)/ && /_WIN32|_WIN64|__MINGW|_MSC_VER|__APPLE__|__linux__|__unix__/ && FILENAME !~ /core\/platform\./ {
    print FILENAME " asks for the operating system; core/platform.hpp does"
    ++systems
  }
  END {
    for (name in where) {
      if (where[name] == "./config.hpp" && name ~ /^LOWRANK_(ABI|VERSION)/) continue
      print where[name] " leaves the macro " name
      ++left
      if (name !~ /^LOWRANK_/) ++foreign
    }
    print left + 0 " macros left behind (8 allowed), " foreign + 0 " without the prefix LOWRANK_ (0 allowed)"
    exit left > 8 || foreign > 0 || systems > 0
  }'
