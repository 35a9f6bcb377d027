#!/bin/sh
# check_output.sh notices what it is for: a made-up chapter passes, and fails after each of a list of changes. sh check_itself.sh FOLDER
here=$(cd "$(dirname "$0")" && pwd) folder=$1 faults=0
rm -rf "$folder" && mkdir -p "$folder/docs/images" "$folder/drawn" && cd "$folder" || exit 1
cat > program << 'END'
#!/bin/sh
printf '<desc>\nloss: 1 0.502; 2 0.25\n</desc>\n' > "$1/chapter.svg"
printf 'Title\n\n  rank  loss  seconds\n  -------------------\n  1     0.50      3.1\n  2     0.25      4.2\n\n  a swap: 0.68 ns\n'
END
chmod +x program
cat > good.md << 'END'
## The check

```text
  rank  loss  seconds
  -------------------
  1     0.50      9.9
  2     0.25      9.8

  a swap: 0.11 ns
```

*Layer 4 x 4 in float, seed 1, 2 steps. Numbers hold within 1 %; `seconds` and times are of one machine.*

It falls from 0.5 to 0.25.
END
printf '<desc>\nloss: 1 0.502; 2 0.25\n</desc>\n' > good.svg
check() {  # WHAT EXPECTED SED-FOR-THE-PAGE SED-FOR-THE-PICTURE
  sed "$3" good.md > docs/chapter.md
  sed "$4" good.svg > docs/images/chapter.svg
  sh "$here/check_output.sh" ./program docs/chapter.md drawn > log 2>&1
  result=$?
  [ $result = "$2" ] || { echo "fault: $1: $result, expected $2"; cat log; faults=1; }
}
check "the page as it should be" 0 "" ""
check "a number that is off" 1 "s/0\.25      9/0.28      9/" ""
check "a number off by one in its last digit" 0 "s/0\.25/0.26/" "s/0\.25/0.26/"
check "another rank" 1 "s/^  2  /  3  /" ""
check "a line that is not printed" 1 "s/a swap/no swap/" ""
check "a column of times that is not excepted" 1 "s/.seconds. and times are of one machine//" ""
check "no line below the block" 1 "/^\*/d" ""
check "no shape" 1 "s/ 4 x 4//" ""
check "no type" 1 "s/float/numbers/" ""
check "no seed" 1 "s/seed 1, //" ""
check "no tolerance" 1 "s/ within 1 %//" ""
check "words that say another number" 1 "s/from 0\.5 /from 0.6 /" ""
check "a picture of another run that the table contradicts" 1 "" "s/1 0\.502/1 0.71/"
check "a picture without a series" 1 "" "/loss/d"
exit $faults
