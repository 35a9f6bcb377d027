#!/bin/sh
# The peak memory in a report is that of the program, not of a large process that started it.
# usage: check_peak.sh PROGRAM PYTHON
set -eu
"$2" - "$1" <<'PYTHON'
import json, subprocess, sys, tempfile
large = bytearray(400_000_000)
with tempfile.NamedTemporaryFile(suffix=".json") as report:
    subprocess.run([sys.argv[1], "bench", "--model", "demo", "--skip-training", "--prompt-tokens", "4", "--tokens", "2", "--repetitions", "1",
                    "--json", report.name], check=True, stdout=subprocess.DEVNULL)
    peak = json.load(open(report.name))["peak_rss_bytes"]  # a new file of that name
if not 1_000_000 < peak < 200_000_000:
    sys.exit(f"peak_rss_bytes is {peak} for a program of some 20 MB, started by one of 400 MB")
PYTHON
