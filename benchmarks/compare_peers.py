#!/usr/bin/env python3
"""Compares lowrank with PEFT + bitsandbytes and with llama.cpp on this machine: peer and project in turn, several rounds in one run.

Prints Markdown tables of medians with ratios. Every measurement is a process of its own, so its peak memory is, too. What is missing (a
peer, a program that is not built) is shown as such. See README.md in this folder for how to install the peers.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
root = here.parent
parts = ("training", "memory", "generation", "linear", "quantize")


class Unavailable(Exception):
    """A measurement that cannot be made here; its text stands in the table."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=pathlib.Path, required=True, help="folder with the peers' virtual environment, venv/bin/python")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a GGUF file; the peers get it as a Hugging Face folder")
    parser.add_argument("--folder", type=pathlib.Path, help="that folder, where it exists; default: made once in --work")
    parser.add_argument("--work", type=pathlib.Path, help="where that folder and adapters are kept; default: PEERS/compare")
    parser.add_argument("--lowrank", type=pathlib.Path, default=root / "build/examples/lowrank",
                        help="the command line; default: %(default)s")
    parser.add_argument("--benchmarks", type=pathlib.Path, default=root / "build-benchmark/benchmarks",
                        help="folder of the benchmark programs; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="training steps a round, after a warm-up; default: %(default)s")
    parser.add_argument("--repetitions", type=int, default=3, help="prompts and decodings a round; default: %(default)s")
    parser.add_argument("--rank", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--training", default="4x128", help="batch x sequence of the step; default: %(default)s")
    parser.add_argument("--memory", default="8x256", help="batch x sequence of the larger step; default: %(default)s")
    parser.add_argument("--recompute", default="auto", choices=("auto", "on", "off"),
                        help="whether the project computes blocks again in the backward pass; default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all, %(default)s")
    for part in parts:
        parser.add_argument(f"--skip-{part}", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, help="writes the tables to this file, too")
    parser.add_argument("--json", type=pathlib.Path, help="writes every round's numbers to this file")
    options = parser.parse_args()
    options.work = options.work or options.peers / "compare"
    options.peers, options.model, options.work = (p.absolute() for p in (options.peers, options.model, options.work))
    return options


# ---- Running things ----------------------------------------------------------------------------------------------------------------


def run(command, threads, missing):
    """Standard output of a command; Unavailable(missing) where there is no such program."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if not pathlib.Path(command[0]).exists():
        raise Unavailable(missing)
    try:
        done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, timeout=3600)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        raise Unavailable("failed") from error
    if done.returncode != 0:
        print(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}", file=sys.stderr)
        raise Unavailable("failed")
    return done.stdout


class Peers:
    """The peers' scripts, in their interpreter."""

    def __init__(self, options):
        self.options = options

    def __call__(self, script, *arguments):
        python = self.options.peers / "venv/bin/python"
        text = run([python, here / "peers" / script, *arguments], self.options.threads, "not installed")
        result = json.loads(text.strip().splitlines()[-1])
        if "not_installed" in result:
            raise Unavailable(f"not installed ({result['not_installed']})")
        return result

    def folder(self):
        """The model as a Hugging Face folder."""
        folder = self.options.folder or self.options.work / (self.options.model.stem + "-hf")
        if not (folder / "config.json").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            self("gguf_to_folder.py", self.options.model, folder)
        return folder


class Project:
    """The project's programs."""

    def __init__(self, options):
        self.options = options

    def bench(self, *arguments):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            run([self.options.lowrank, "bench", "--model", self.options.model, "--threads", self.options.threads, "--json", file.name,
                 *arguments], self.options.threads, "not built")
            return json.loads(pathlib.Path(file.name).read_text())

    def benchmark(self, program, pattern):
        """Median seconds of a Google Benchmark program, by the names of its benchmarks."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            run([self.options.benchmarks / program, f"--benchmark_filter={pattern}", f"--benchmark_out={file.name}",
                 "--benchmark_out_format=json"], self.options.threads, "not built")
            found = json.loads(pathlib.Path(file.name).read_text())["benchmarks"]
        return {b["name"].removesuffix("/manual_time"): b["median_seconds"] for b in found}

    def adapter(self, kind):
        """An adapter of the rank on all linear layers, after one step of training: a PEFT folder, or the same as GGUF."""
        path = self.options.work / f"{self.options.model.stem}-rank{self.options.rank}{'.gguf' if kind == 'gguf' else ''}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
                text.write("The gardener waters the plants in the morning. " * 20)
                text.flush()
                run([self.options.lowrank, "finetune", "--model", self.options.model, "--data", text.name, "--out", path, "--format", kind,
                     "--rank", self.options.rank, "--steps", 1, "--batch", 1, "--sequence", 16], self.options.threads, "not built")
        return path


class Record:
    """Numbers of each system, one a round; or why there are none."""

    def __init__(self):
        self.rounds, self.missing = {}, {}

    def measure(self, system, call):
        if system in self.missing:
            return
        print(f"  {system} …", end="", file=sys.stderr, flush=True)
        try:
            result = call()
        except (Unavailable, LookupError, ValueError) as error:  # the latter two: a result that cannot be read
            reason = error if isinstance(error, Unavailable) else f"failed ({error!r})"
            self.missing[system] = str(reason)
            print(f" {reason}", file=sys.stderr, flush=True)
            return
        self.rounds.setdefault(system, []).append(result)
        shown = {k: round(v, 4) for k, v in result.items() if isinstance(v, float)}
        print(f" {shown}", file=sys.stderr, flush=True)

    def median(self, system, field):
        """None where the system has no such number."""
        values = [r[field] for r in self.rounds.get(system, []) if r.get(field) is not None]
        return statistics.median(values) if values else None

    def text(self, system, field, pattern, factor=1.0):
        value = self.median(system, field)
        return self.missing.get(system, "–") if value is None else pattern.format(value * factor)

    def first(self, system, field):
        return self.rounds[system][0].get(field) if system in self.rounds else None

    def ratio(self, over, under):
        """Of two (system, field), or – where one is missing."""
        a, b = self.median(*over), self.median(*under)
        return f"{a / b:.2f}" if a and b else "–"


# ---- What is compared --------------------------------------------------------------------------------------------------------------

peft, peft_checkpointing = "PEFT + bitsandbytes NF4, bf16", "the same with gradient checkpointing"
native, nf4 = "lowrank, the GGUF file as it is", "lowrank, NF4"
llama, llama_adapted = "llama.cpp", "llama.cpp, with adapter"
lowrank_auto, lowrank_bf16 = "lowrank", "lowrank, bf16"


def measure_training(record, options, peers, project, suffix, sizes, steps):
    batch, sequence = sizes.split("x")
    arguments = ["--batch", batch, "--sequence", sequence, "--rank", options.rank, "--steps", steps, "--skip-generation",
                 "--recompute", options.recompute]
    for system, mode in ((peft, []), (peft_checkpointing, ["checkpointing"])):
        record.measure(system + suffix, lambda: peers("training_step.py", peers.folder(), batch, sequence, options.rank, steps,
                                                      options.threads, *mode))
    record.measure(native + suffix, lambda: project.bench(*arguments))
    record.measure(nf4 + suffix, lambda: project.bench(*arguments, "--base", "nf4"))


def measure_generation(record, options, peers, project):
    repetitions = options.repetitions
    record.measure(llama, lambda: peers("generation.py", options.model, repetitions, options.threads))
    record.measure(llama_adapted,
                   lambda: peers("generation.py", options.model, repetitions, options.threads, project.adapter("gguf")))
    for name, compute in ((lowrank_auto, "auto"), (lowrank_bf16, "bf16")):
        record.measure(name, lambda: project.bench("--skip-training", "--compute", compute, "--repetitions", repetitions, "--adapter",
                                                   project.adapter("peft")))


def layer_benchmarks(options, project):
    """The project's layer under the names that peers/linear.py uses."""
    prefix = "lora_linear/nf4_dq/bf16"
    found = {}
    for which, tokens in (("forward", "(1|8|64|512)"), ("forward_backward", "512")):
        for name, seconds in project.benchmark("benchmark_layers_lora_linear",
                                               f"{prefix}/{which}/tokens:{tokens}/rank:(0|{options.rank})/").items():
            count, rank = (part.split(":")[1] for part in name.split("/")[-2:])
            found[f"{'' if rank == '0' else 'adapted '}{which} {count}"] = seconds
    return found


def quantize_benchmarks(project):
    found = project.benchmark("benchmark_kernels_quantize", "quantize/nf4_dq/")
    return {name.split("/")[0]: seconds for name, seconds in found.items()}


def measure_round(record, options, peers, project):
    if not options.skip_training:
        measure_training(record, options, peers, project, "", options.training, options.steps)
    if not options.skip_memory:
        measure_training(record, options, peers, project, " (memory)", options.memory, 1)
    if not options.skip_generation:
        measure_generation(record, options, peers, project)
    if not (options.skip_linear and options.skip_quantize):
        record.measure("bitsandbytes", lambda: peers("linear.py", options.rank, options.threads))
    if not options.skip_linear:
        record.measure("layer", lambda: layer_benchmarks(options, project))
    if not options.skip_quantize:
        record.measure("quantize", lambda: quantize_benchmarks(project))


# ---- Tables ------------------------------------------------------------------------------------------------------------------------


def table(head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def training_table(record, suffix, with_time):
    rows = []
    for system in (peft, peft_checkpointing, native, nf4):
        name, compute = system + suffix, record.first(system + suffix, "compute")
        step, peak = (name, "step_seconds_median"), (name, "peak_rss_bytes")
        cells = [system + (f", {compute}" if compute else "")]
        if with_time:
            cells += [record.text(*step, "{:.3f}"), record.ratio((peft + suffix, step[1]), step)]
        rows.append([*cells, record.text(*peak, "{:.0f}", 2**-20), record.ratio((peft + suffix, peak[1]), peak)])
    head = ["", *(["step, s", "speed"] if with_time else []), "peak memory, MiB", "peer's memory / this"]
    return table(head, rows)


def generation_table(record):
    prompt, decode = "prompt_tokens_per_second", "decode_tokens_per_second"
    bare = "_without_adapter"
    rows = []
    for label, system, suffix, peer in ((llama, llama, "", llama), (lowrank_auto, lowrank_auto, bare, llama),
                                        (lowrank_bf16, lowrank_bf16, bare, llama), (llama_adapted, llama_adapted, "", llama_adapted),
                                        (lowrank_auto + ", with adapter", lowrank_auto, "", llama_adapted),
                                        (lowrank_bf16 + ", with adapter", lowrank_bf16, "", llama_adapted)):
        without = {llama_adapted: (llama, decode)}.get(system, (system, decode + bare))
        price = record.ratio(without, (system, decode)) if "with adapter" in label else "1.00"
        rows.append([label, record.text(system, prompt + suffix, "{:.0f}"), record.ratio((system, prompt + suffix), (peer, prompt)),
                     record.text(system, decode + suffix, "{:.1f}"), record.ratio((system, decode + suffix), (peer, decode)), price])
    return table(["", "prompt, tokens/s", "speed", "decode, tokens/s", "speed", "decode time / without adapter"], rows)


def pair_table(record, fields, project_system):
    rows = [[label, record.text("bitsandbytes", field, "{:.2f}", 1e3), record.text(project_system, field, "{:.2f}", 1e3),
             record.ratio(("bitsandbytes", field), (project_system, field))] for label, field in fields]
    return table(["ms", "bitsandbytes", "lowrank", "speed"], rows)


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown processor"


def tables(record, options):
    versions = sorted({v for rounds in record.rounds.values() for r in rounds for v in r.get("version", "").split(", ") if v})
    targets = sorted({r["target"] for rounds in record.rounds.values() for r in rounds if "target" in r})
    where = f"{options.threads} threads of {processor()}" + (f" ({', '.join(targets)})" if targets else "")
    yield (f"{options.model.name}, {where}; medians over "
           f"{options.rounds} round{'s' if options.rounds > 1 else ''}, peer and project in turn. Speed is relative to the peer, "
           f"larger is faster. Peers: {', '.join(versions) or 'none'}.")
    if not options.skip_training:
        yield f"### Training step, {options.training} tokens, rank {options.rank} on all linear layers\n"
        yield training_table(record, "", True)
    if not options.skip_memory:
        yield f"### Memory of a training step, {options.memory} tokens\n"
        yield training_table(record, " (memory)", False)
    if not options.skip_generation:
        yield f"### Prompt of 512 tokens and decoding, with and without a rank-{options.rank} adapter\n"
        yield generation_table(record)
    if not options.skip_linear:
        forward = [(f"forward, T = {t}", f"forward {t}") for t in (1, 8, 64, 512)]
        adapted = [(f"forward with rank {options.rank}, T = {t}", f"adapted forward {t}") for t in (1, 8, 64, 512)]
        backward = [("forward and backward, T = 512", "forward_backward 512"),
                    (f"forward and backward with rank {options.rank}, T = 512", "adapted forward_backward 512")]
        yield "### Linear layer 4096 x 4096, NF4 double quantized, bf16, T tokens\n"
        yield pair_table(record, forward + adapted + backward, "layer")
    if not options.skip_quantize:
        yield "### NF4 double quantized, 4096 x 4096\n"
        yield pair_table(record, [("quantize", "quantize"), ("dequantize", "dequantize")], "quantize")


def main():
    options = parse_arguments()
    record, peers, project = Record(), Peers(options), Project(options)
    if not options.model.exists():
        sys.exit(f"compare_peers: {options.model} does not exist; give a GGUF file as --model")
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        measure_round(record, options, peers, project)
    text = "\n\n".join(part.rstrip("\n") for part in tables(record, options))
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if options.json:
        options.json.write_text(json.dumps({"rounds": record.rounds, "missing": record.missing}, indent=2))


if __name__ == "__main__":
    main()
