# awk -f check_output.awk OUTPUT PAGE DRAWN.svg KEPT.svg, the work of check_output.sh.
#
# Under each ```text block of the page stands a line in italics with shape, type, seed, and one of
#   Numbers hold exactly.       Numbers hold within 5 %.
# and, where there are times, `a column`, `another` and times with a unit are of one machine.
# A number that is shown may be off by that tolerance or by one in its last digit; integers by nothing; below 1e-6 all is rounding.

function fault(text) { print page_name ": " text; ++wrong }
function plain(line) {  # numbers become #, runs of blanks and of dashes one of them
  gsub(/-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/, "#", line)
  gsub(/-+/, "-", line); gsub(/[ \t]+/, " ", line); sub(/^ /, "", line); sub(/ $/, "", line)
  return line
}
function numbers(line, list,   count) {
  count = 0
  while (match(line, /-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/)) {
    list[++count] = substr(line, RSTART, RLENGTH)
    line = substr(line, RSTART + RLENGTH)
    if (timed && line ~ /^ (ns|us|ms|s)([^a-z]|$)/) list[count] = "time"
  }
  return count
}
function size(x) { x += 0; return x < 0 ? -x : x }  # of a string, too
function unit(text,   exponent) {  # one in the last digit
  exponent = 0
  if (match(text, /e[-+]?[0-9]+$/)) { exponent = substr(text, RSTART + 1) + 0; text = substr(text, 1, RSTART - 1) }
  return (text ~ /\./) ? 10 ^ (exponent - length(text) + index(text, ".")) : 10 ^ exponent
}
function near(shown, printed, tolerance) {
  if (shown == printed) return 1
  if (shown !~ /[.e]/ && printed !~ /[.e]/) return 0
  if (size(shown) < 1e-6 && size(printed) < 1e-6) return 1
  return size(shown - printed) <= tolerance * size(printed) + 1.001 * unit(shown)
}
# Columns of times, by name, from the header above a rule of dashes.
function mask(line, header,   cell, name, i, n, text) {
  if (header == "") return line
  n = split(line, cell, /  +/)
  split(header, name, /  +/)
  text = ""
  for (i = 2; i <= n; ++i) text = text "  " (name[i] in excepted ? "time" : cell[i])
  return text
}
function check_block(   i, k, row, header, found, best, count, a, b, n, masked, other) {
  header = ""
  for (i = 1; i <= lines; ++i) {
    if (block[i] == "" || block[i] == "…") { if (block[i] == "") header = ""; continue }
    if (block[i + 1] ~ /^ *--+$/ && i < lines) header = block[i]
    masked = mask(block[i], header)
    count = numbers(masked, a)
    found = 0; best = ""
    for (k = 1; k <= printed; ++k) {
      if (plain(out[k]) != plain(block[i]) ) continue
      other = mask(out[k], header)
      best = out[k]
      n = numbers(other, b)
      found = n == count
      for (row = 1; row <= count && found; ++row) found = a[row] == "time" || near(a[row], b[row], tolerance)
      if (found) break
    }
    if (!found) fault("shows\n" block[i] "\nbut the program prints " (best == "" ? "no such line" : "\n" best))
    remember(block[i], header)
  }
}
function remember(line, header,   cell, name, i, n, a, count) {
  count = numbers(line, a)
  for (i = 1; i <= count; ++i) if (a[i] != "time") value[++values] = a[i]
  if (header == "" || line == header) return
  n = split(line, cell, /  +/)
  split(header, name, /  +/)
  for (i = 3; i <= n; ++i) table[name[i], cell[2]] = cell[i]
}
function caption(text,   rest) {
  delete excepted
  timed = text ~ /of one machine/
  if (text !~ /^\*.*\*$/) { fault("no line in italics under a block of output: " text); return }
  if (text !~ /[0-9] x [0-9]|\[[^]]+, [^]]+\]/) fault("a block's line names no shape: " text)
  if (text !~ /double|float|fp32|bf16|NF4/) fault("a block's line names no type: " text)
  if (text !~ /[Ss]eeds? [0-9]|nothing random/) fault("a block's line names no seed: " text)
  if (match(text, /hold within [0-9.]+ %/)) tolerance = substr(text, RSTART + 12, RLENGTH - 14) / 100
  else if (text ~ /hold exactly/) tolerance = 0
  else fault("a block's line does not say how far its numbers hold: " text)
  if (tolerance > loosest) loosest = tolerance
  rest = text
  while (match(rest, /`[^`]+`/)) { excepted[substr(rest, RSTART + 1, RLENGTH - 2)]; rest = substr(rest, RSTART + RLENGTH) }
  any_times += timed
}
# A decimal number of the words is one of a block, rounded as it is there.
function check_words(text,   list, count, i, k, places, found) {
  gsub(/\([^)]*\.(md|svg|hpp|cpp|inl)[^)]*\)/, "", text)
  gsub(/`[^`]*`/, "", text)
  count = numbers(text, list)
  for (i = 1; i <= count; ++i) {
    if (list[i] !~ /\./) continue
    found = 0
    places = length(list[i]) - index(list[i], ".")
    for (k = 1; k <= values && !found; ++k)
      found = size(size(value[k]) - size(list[i])) <= 0.5001 * 10 ^ -places
    if (!found) fault("says " list[i] ", which no block shows: " text)
  }
}
function points(line, series,   pair, part, i, n, name) {  # "name: x y; x y", the name as series
  match(line, /: [^:]*$/)
  name = substr(line, 1, RSTART - 1)
  n = split(substr(line, RSTART + 2), pair, /; /)
  for (i = 1; i <= n; ++i) series[i] = pair[i]
  series[0] = n
  return name
}
function check_pictures(   i, k, name, a, b, x, y, other) {
  if (drawn_lines == 0 || drawn_lines != kept_lines) { fault("the picture that is kept has other series than the program draws"); return }
  for (i = 1; i <= drawn_lines; ++i) {
    name = points(kept[i], a); other = points(drawn[i], b)
    if (name != other || (!any_times && a[0] != b[0])) { fault("the picture that is kept shows " name ", the program draws " other); continue }
    for (k = 1; k <= a[0]; ++k) {
      x = a[k]; sub(/ [^ ]*$/, "", x)
      y = a[k]; sub(/^.* /, "", y)
      other = b[k]; sub(/^.* /, "", other)
      if (!any_times && !near(y, other, loosest)) fault("the picture that is kept shows " name " " a[k] ", the program draws " b[k])
      if ((name, x) in table && table[name, x] + 0 != 0 && size(table[name, x] - y) > 0.51 * unit(table[name, x]) + 1e-3 * size(y))
        fault("the table says " table[name, x] " for " name " at " x ", the picture " y)
    }
  }
}

FNR == 1 { ++file }
file == 1 { out[++printed] = $0; next }
file == 2 && FNR == 1 { page_name = FILENAME }
file == 2 && /^```text$/ { inside = 1; lines = 0; ++blocks; next }
file == 2 && inside && /^```/ { inside = 0; awaiting = 1; next }
file == 2 && inside { block[++lines] = $0; next }
file == 2 && /^```/ { code = !code; next }
file == 2 && code { next }
file == 2 && awaiting && /^$/ && text == "" { next }
file == 2 && awaiting {
  if ($0 != "") { text = text (text == "" ? "" : " ") $0 }
  if ($0 == "" || text ~ /\*$/) { caption(text); block[lines + 1] = ""; check_block(); awaiting = 0; text = "" }
  next
}
file == 2 && /^## / { checking = $0 == "## The check"; next }
file == 2 && checking { word[++words] = $0; next }
/^<desc>$/ { data = 1; next }
/^<\/desc>$/ { data = 0 }
data && file == 3 { drawn[++drawn_lines] = $0 }
data && file == 4 { kept[++kept_lines] = $0 }
END {
  if (awaiting) { caption(text); check_block() }
  if (blocks == 0) fault("shows no output; give a ```text block")
  timed = 0
  for (i = 1; i <= words; ++i) check_words(word[i])
  check_pictures()
  exit wrong > 0
}
