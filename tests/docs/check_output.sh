#!/bin/sh
# Runs a chapter's program: it succeeds, draws its picture, and prints what the chapter shows in its ```text blocks, to the tolerance that the
# line in italics under a block states. Decimal numbers in the words of "The check" stand in a block, and the picture kept in docs/images shows
# what the program draws and what the chapter's tables say. sh check_output.sh PROGRAM CHAPTER.md FOLDER
program=$1 page=$2 folder=$3 here=$(dirname "$0")
output=$(mktemp) && trap 'rm -f "$output"' EXIT
"$program" "$folder" > "$output" || { cat "$output"; exit 1; }
cat "$output"
[ -f "$page" ] || { echo "there is no $page"; exit 1; }
picture=$(basename "$page" .md).svg
kept=$(dirname "$page")/images/$picture
[ -s "$folder/$picture" ] || { echo "the program drew no $picture"; exit 1; }
[ -s "$kept" ] || { echo "there is no docs/images/$picture; the program draws it"; exit 1; }
LC_ALL=C awk -f "$here/check_output.awk" "$output" "$page" "$folder/$picture" "$kept"
