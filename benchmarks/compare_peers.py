#!/usr/bin/env python3
"""Compares lowrank with PEFT + bitsandbytes and with llama.cpp on this machine: peer and project in turn, several rounds in one run.

Prints Markdown tables of medians with ratios. Every measurement is a process of its own, so its peak memory is, too. What is missing (a
peer, a program that is not built) is shown as such. See README.md in this folder for how to install the peers.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from peers.tables import (Record, Unavailable, layer_tokens, llama, llama_adapted, lowrank_auto, lowrank_bf16, lowrank_invariant, native,
                          nf4, peft, peft_checkpointing, peft_dense, tables)

here = pathlib.Path(__file__).resolve().parent
root = here.parent
parts = ("training", "memory", "long", "generation", "linear", "quantize", "kernels")


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
    parser.add_argument("--long", default="8x512,1x4096",
                        help="two steps of equally many tokens, short sequences and long ones; default: %(default)s")
    parser.add_argument("--contexts", default="32,2000,4000", help="tokens that decoding begins after; default: %(default)s")
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

    def counters(self, program, pattern):
        """A Google Benchmark program's counters, and seconds, by the names of its benchmarks."""
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            run([self.options.benchmarks / program, f"--benchmark_filter={pattern}", f"--benchmark_out={file.name}",
                 "--benchmark_out_format=json"], self.options.threads, "not built")
            found = json.loads(pathlib.Path(file.name).read_text())["benchmarks"]
        units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
        return {b["name"]: b | {"seconds": b["real_time"] * units[b["time_unit"]]} for b in found}

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


# ---- What is compared --------------------------------------------------------------------------------------------------------------

def measure_training(record, options, peers, project, suffix, sizes, steps):
    batch, sequence = sizes.split("x")
    arguments = ["--batch", batch, "--sequence", sequence, "--rank", options.rank, "--steps", steps, "--skip-generation",
                 "--recompute", options.recompute]
    for system, mode in ((peft_dense, ["dense"]), (peft, []), (peft_checkpointing, ["checkpointing"])):
        record.measure(system + suffix, lambda: peers("training_step.py", peers.folder(), batch, sequence, options.rank, steps,
                                                      options.threads, *mode))
    record.measure(native + suffix, lambda: project.bench(*arguments))
    record.measure(nf4 + suffix, lambda: project.bench(*arguments, "--base", "nf4"))


def measure_long(record, options, project):
    """A step of short and one of long sequences, with what attention took of each."""
    for sizes in options.long.split(","):
        batch, sequence = sizes.split("x")

        def step():
            found = project.bench("--batch", batch, "--sequence", sequence, "--rank", options.rank, "--steps", 1, "--skip-generation",
                                  "--recompute", "on", "--profile")
            attention = found["profile"]["step"]["attention"] / found["threads"]
            return {"seconds": found["step_seconds_median"], "attention": attention, "rest": found["step_seconds_median"] - attention}

        record.measure(f"lowrank, {sizes}", step)


def by_context(found, suffix=""):
    """Tokens/s of decoding after each context, as fields."""
    field = "tokens_per_second" + suffix
    return {f"decode {row['context']}{suffix}": row[field] for row in found["decode_by_context"] if row.get(field) is not None}


def measure_generation(record, options, peers, project):
    repetitions = options.repetitions
    record.measure(llama, lambda: peers("generation.py", options.model, repetitions, options.threads, options.contexts))
    record.measure(llama_adapted, lambda: peers("generation.py", options.model, repetitions, options.threads, options.contexts,
                                                project.adapter("gguf")))
    for name, arguments in ((lowrank_auto, []), (lowrank_bf16, ["--compute", "bf16"]), (lowrank_invariant, ["--batch-invariant"])):

        def generation():
            found = project.bench("--skip-training", *arguments, "--repetitions", repetitions, "--context", options.contexts, "--adapter",
                                  project.adapter("peft"))
            return found | by_context(found) | by_context(found, "_without_adapter")

        record.measure(name, generation)


def layer_benchmarks(options, project):
    """The project's layer under the names that peers/linear.py uses."""
    prefix = "lora_linear/nf4_dq/bf16"
    found = {}
    for which, tokens in (("forward", f"({'|'.join(map(str, layer_tokens))})"), ("forward_backward", "512")):
        for name, seconds in project.benchmark("benchmark_layers_lora_linear",
                                               f"{prefix}/{which}/tokens:{tokens}/rank:(0|{options.rank})/").items():
            count, rank = (part.split(":")[1] for part in name.split("/")[-2:])
            found[f"{'' if rank == '0' else 'adapted '}{which} {count}"] = seconds
    return found


def quantize_benchmarks(project):
    found = project.benchmark("benchmark_kernels_quantize", "quantize/nf4_dq/")
    return {name.split("/")[0]: seconds for name, seconds in found.items()}


def kernel_benchmarks(project):
    """Shares of what the processor can do, and the widths whose rows are no whole blocks."""
    with_counters = project.counters("benchmark_kernels_micro_kernel", "micro_kernel/")
    found = {name.removesuffix("/manual_time"): counters["of_registers"] for name, counters in with_counters.items()}
    ragged = project.counters("benchmark_kernels_products", "product/nf4/(bf16|int8)/1000x(2976|3000|3008|3072)/tokens:1/")
    for name, counters in ragged.items():
        _, _, how, shape, _ = name.split("/")[:5]
        found[f"{how} {shape.split('x')[1]}"] = counters["seconds"]
    return found


def measure_round(record, options, peers, project):
    if not options.skip_training:
        measure_training(record, options, peers, project, "", options.training, options.steps)
    if not options.skip_memory:
        measure_training(record, options, peers, project, " (memory)", options.memory, 1)
    if not options.skip_long:
        measure_long(record, options, project)
    if not options.skip_generation:
        measure_generation(record, options, peers, project)
    if not (options.skip_linear and options.skip_quantize):
        record.measure("bitsandbytes", lambda: peers("linear.py", options.rank, options.threads))
    if not options.skip_linear:
        record.measure("layer", lambda: layer_benchmarks(options, project))
    if not options.skip_quantize:
        record.measure("quantize", lambda: quantize_benchmarks(project))
    if not options.skip_kernels:
        record.measure("kernels", lambda: kernel_benchmarks(project))


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
