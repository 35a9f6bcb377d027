#!/usr/bin/env python3
"""What including a header costs a compiler: seconds of its user time and its peak memory, for a unit that includes that header and nothing
else, beside Eigen's own headers; header-only and with LOWRANK_COMPILED, where bodies come from a library. Then README's quickstart with -O2.

    python3 benchmarks/compile_time/compile_time.py [--runs 3] [--json FILE] [HEADER…]
    python3 benchmarks/compile_time/compile_time.py --hold FILE | --store FILE [--compilers g++]

Each figure is the best of --runs. The ratio is to <Eigen/Dense>, measured in the same pass. --hold and --store take no time but the bytes that
g++ allocates for a unit (-ftime-report), which are the same in every run and grow with what is parsed and instantiated: --hold fails where
the ratio of a header that FILE has for this version has grown by more than its margin; --store writes such a file.
"""
import argparse, json, os, pathlib, re, resource, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
WAYS = {"header-only": [], "compiled": ["-DLOWRANK_COMPILED"]}
MODULES = ["lowrank", "quant", "autograd", "nn", "optim", "adapters", "io"]
PARTS = ["core/types", "core/buffer", "core/parallel", "core/matrix", "kernels/format/source", "kernels/driver/gemm", "quant/nf4", "ops/view",
         "ops/decompose"]
HEADERS = ["Eigen/Core", "Eigen/Dense"] + [f"lowrank/{name}.hpp" for name in MODULES + PARTS]
MARGIN = 1.1  # another Eigen or C library moves a ratio by less; an umbrella that takes in another module adds more
HELD = ["lowrank/lowrank.hpp", "lowrank/adapters.hpp", "lowrank/io.hpp"]
QUICKSTART = "README's quickstart, -O2"


def text_of(subject):
    if subject != QUICKSTART:
        return f"#include <{subject}>\n"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return next(block.split("```")[0] for block in readme.split("```cpp\n")[1:] if "int main(" in block.split("```")[0])


def compile_once(compiler, subject, way, eigen, folder):
    """Seconds of user time and KiB of memory. A child of its own, since the kernel keeps one peak for all children of a process."""
    unit = pathlib.Path(folder, "unit.cpp")
    unit.write_text(text_of(subject), encoding="utf-8")
    mode = ["-O2", "-DNDEBUG", "-c", "-o", str(unit.with_suffix(".o"))] if subject == QUICKSTART else ["-O0", "-fsyntax-only"]
    command = [compiler, "-std=c++20", *mode, *WAYS[way], f"-I{ROOT / 'include'}", "-isystem", eigen, str(unit)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = subprocess.run(command).returncode
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(writer, f"{status} {usage.ru_utime} {usage.ru_maxrss}".encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        status, seconds, memory = pipe.read().split()
    if status != "0":
        sys.exit(f"compile_time: {' '.join(command)} failed; are Eigen and nlohmann-json installed?")
    return float(seconds), int(memory)


def measure(compiler, subjects, runs, eigen, folder):
    """Runs go round by round, so that a busy minute does not fall on one header alone."""
    best = {(subject, way): (float("inf"), 0) for subject in subjects for way in WAYS}
    for _ in range(runs):
        for subject, way in best:
            best[subject, way] = min(best[subject, way], compile_once(compiler, subject, way, eigen, folder))
    reference = min((seconds for (subject, _), (seconds, _) in best.items() if subject == "Eigen/Dense"), default=None)
    return [{"compiler": compiler, "what": subject, "way": way, "seconds": round(seconds, 3), "peak_bytes": memory * 1024,
             "ratio": round(seconds / reference, 2) if reference else None} for (subject, way), (seconds, memory) in best.items()]


def version_of(compiler):
    """g++ 12 or clang++ 14, whatever the program is called: ratios are those of one version of a compiler."""
    said = [subprocess.run([compiler, flag], capture_output=True, text=True).stdout for flag in ("--version", "-dumpversion")]
    return f"{'clang++' if 'clang' in said[0] else 'g++'} {said[1].split('.')[0].strip()}"


def allocated(compiler, subject, way, eigen, folder):
    """MiB that the compiler allocates for a unit of that include."""
    unit = pathlib.Path(folder, "unit.cpp")
    unit.write_text(text_of(subject), encoding="utf-8")
    include = [f"-I{ROOT / 'include'}", "-isystem", eigen]
    command = [compiler, "-std=c++20", "-O0", "-fsyntax-only", "-ftime-report", *WAYS[way], *include, str(unit)]
    report = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    total = re.search(r"^ TOTAL .*?(\d+)M$", report.stderr, re.MULTILINE)
    if report.returncode or not total:
        sys.exit(f"compile_time: {' '.join(command)} gave no total; is it g++, and are Eigen and nlohmann-json installed?\n{report.stderr[-2000:]}")
    return int(total[1])


def ratios(compiler, eigen, folder):
    reference = allocated(compiler, "Eigen/Dense", "header-only", eigen, folder)
    return {f"{header}, {way}": round(allocated(compiler, header, way, eigen, folder) / reference, 2) for header in HELD for way in WAYS}


def hold(compiler, stored, eigen, folder):
    """Sentences on what has grown."""
    limits, found = stored["ratios"][version_of(compiler)], ratios(compiler, eigen, folder)
    for what, ratio in found.items():
        print(f"{what:34}{ratio:6.2f} times <Eigen/Dense>, stored {limits[what]:.2f}")
    return [f"<{what.replace(',', '>,')}: g++ allocates {ratio:.2f} times what <Eigen/Dense> needs, but {limits[what]:.2f} are stored and "
            f"{stored['margin']:.2f} times that is the margin; find the include or body that is new, or store the new ratio with --store"
            for what, ratio in found.items() if ratio > limits[what] * stored["margin"]]


def print_table(compiler, rows):
    print(f"\n{compiler} -std=c++20\n{'':32}" + "".join(f"{way:>12}: s{'MiB':>7}{'ratio':>7}" for way in WAYS))
    for first, second in zip(rows[::2], rows[1::2]):
        cells = "".join(f"{row['seconds']:15.2f}{row['peak_bytes'] / 2**20:7.0f}{row['ratio'] or float('nan'):7.2f}" for row in (first, second))
        print(f"{first['what']:32}{cells}")


def hold_all(arguments):
    stored = json.loads(arguments.hold.read_text(encoding="utf-8"))
    compilers = [c for c in arguments.compilers if shutil.which(c) and version_of(c) in stored["ratios"]]
    if not compilers:
        print(f"skipped: {arguments.hold} has no ratios of {', '.join(arguments.compilers)} as installed here")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        faults = [fault for c in compilers for fault in hold(c, stored, arguments.eigen, folder)]
    print("\n".join(faults))
    return 1 if faults else 0


def store_all(arguments):
    with tempfile.TemporaryDirectory() as folder:
        compilers = [c for c in arguments.compilers if shutil.which(c) and version_of(c).startswith("g++")]
        of_version = {version_of(c): ratios(c, arguments.eigen, folder) for c in compilers}
    arguments.store.write_text(json.dumps({"reference": "Eigen/Dense", "margin": MARGIN, "ratios": of_version}, indent=2, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", metavar="HEADER", help="what to include; default: Eigen's, each module, some parts, the quickstart")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"], help="those that are missing are left out")
    parser.add_argument("--eigen", default="/usr/include/eigen3", help="folder that holds Eigen/Core")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--hold", type=pathlib.Path, metavar="FILE", help="exit 1 where a stored ratio is exceeded, 77 where no compiler has one")
    parser.add_argument("--store", type=pathlib.Path, metavar="FILE", help="write the ratios of the umbrella headers and exit")
    arguments = parser.parse_args()
    if arguments.hold:
        sys.exit(hold_all(arguments))
    if arguments.store:
        sys.exit(store_all(arguments))
    subjects = arguments.headers or HEADERS + [QUICKSTART]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for compiler in filter(shutil.which, arguments.compilers):
            table = measure(compiler, subjects, arguments.runs, arguments.eigen, folder)
            rows += table
            print_table(compiler, table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": arguments.runs, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
