"""What the peers' scripts share: times, memory, and one line of JSON as the result."""
import importlib
import json
import resource
import sys
import time


def require(*names):
    """The modules; ends the script with a result that says so where one is not installed."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        report({"not_installed": error.name or str(error)})
        sys.exit(0)


def median(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call, total=1.0):
    """Median over about `total` seconds and at least five calls, after two that warm up."""
    call()
    once = seconds_of(call)
    return median([seconds_of(call) for _ in range(max(5, int(total / max(once, 1e-6))))])


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(result):
    print(json.dumps(result), flush=True)
