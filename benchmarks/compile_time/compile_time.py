#!/usr/bin/env python3
"""What including a header costs a compiler: seconds of its user time and its peak memory, for a unit that includes that header and nothing
else, beside Eigen's own headers.

    python3 benchmarks/compile_time/compile_time.py [--runs 3] [--json FILE] [HEADER…]

Each figure is the best of --runs. The ratio is to <Eigen/Dense>, measured in the same pass. A unit that only includes holds no code of its
own, so -O0 and -O2 differ little: templates that the header itself uses are instantiated either way.
"""
import argparse, json, os, pathlib, resource, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = ["lowrank", "quant", "autograd", "nn", "optim", "adapters", "io"]
PARTS = ["core/types", "core/buffer", "core/parallel", "core/random", "core/matrix", "kernels/format/source", "kernels/driver/gemm",
         "kernels/target/tables", "quant/nf4", "quant/quantized_matrix", "ops/product", "ops/lora", "ops/decompose"]
HEADERS = ["Eigen/Core", "Eigen/Dense"] + [f"lowrank/{name}.hpp" for name in MODULES + PARTS]


def compile_once(compiler, level, header, eigen, folder):
    """Seconds of user time and KiB of memory. A child of its own, since the kernel keeps one peak for all children of a process."""
    unit = pathlib.Path(folder, "unit.cpp")
    unit.write_text(f"#include <{header}>\n")
    command = [compiler, "-std=c++20", level, f"-I{ROOT / 'include'}", "-isystem", eigen, "-c", str(unit), "-o", str(unit.with_suffix(".o"))]
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


def measure(compiler, level, headers, runs, eigen, folder):
    """Runs go round by round, so that a busy minute does not fall on one header alone."""
    best = {header: (float("inf"), 0) for header in headers}
    for _ in range(runs):
        for header in headers:
            best[header] = min(best[header], compile_once(compiler, level, header, eigen, folder))
    reference = best.get("Eigen/Dense", (None, 0))[0]
    return [{"compiler": compiler, "level": level, "header": header, "seconds": round(seconds, 3), "peak_bytes": memory * 1024,
             "ratio": round(seconds / reference, 2) if reference else None} for header, (seconds, memory) in best.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", metavar="HEADER", help="what to include; default: Eigen's, each module and some parts")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"], help="those that are missing are left out")
    parser.add_argument("--levels", nargs="+", default=["-O0", "-O2"])
    parser.add_argument("--eigen", default="/usr/include/eigen3", help="folder that holds Eigen/Core")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    headers = arguments.headers or HEADERS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for compiler in filter(shutil.which, arguments.compilers):
            for level in [f"-{level.lstrip('-')}" for level in arguments.levels]:
                table = measure(compiler, level, headers, arguments.runs, arguments.eigen, folder)
                rows += table
                print(f"\n{compiler} -std=c++20 {level}\n{'header':36}{'s':>8}{'MiB':>8}{'ratio':>8}")
                for row in table:
                    print(f"{row['header']:36}{row['seconds']:8.2f}{row['peak_bytes'] / 2**20:8.0f}{row['ratio'] or float('nan'):8.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": arguments.runs, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
