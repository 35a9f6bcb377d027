#!/bin/sh
# Runs a chapter's program: it succeeds, draws its picture, and prints what the chapter shows in its ```text blocks, numbers apart.
# sh check_output.sh PROGRAM CHAPTER.md FOLDER
program=$1 page=$2 folder=$3
output=$(mktemp) && shown=$(mktemp) && trap 'rm -f "$output" "$shown"' EXIT
"$program" "$folder" > "$output" || { cat "$output"; exit 1; }
cat "$output"
[ -f "$page" ] || { echo "there is no $page"; exit 1; }
picture=$(basename "$page" .md).svg
[ -s "$folder/$picture" ] || { echo "the program drew no $picture"; exit 1; }
[ -s "$(dirname "$page")/images/$picture" ] || { echo "there is no docs/images/$picture; the program draws it"; exit 1; }

# Numbers become #, runs of blanks and of dashes one of them.
plain() { sed -E 's/-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?/#/g; s/-+/-/g; s/[ \t]+/ /g; s/^ //; s/ $//'; }
plain < "$output" > "$output.plain"
awk '/^```text$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$page" | plain | grep -v '^$' > "$shown"
wrong=0
while IFS= read -r line; do
  case $line in "…") continue ;; esac
  grep -qxF -- "$line" "$output.plain" || { echo "the chapter shows a line that the program does not print: $line"; wrong=1; }
done < "$shown"
rm -f "$output.plain"
[ -s "$shown" ] || { echo "$page shows no output; give a \`\`\`text block"; exit 1; }
exit $wrong
