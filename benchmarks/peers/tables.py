"""What compare_peers.py has measured, and the Markdown tables made of it."""
import pathlib
import statistics
import sys

peft_dense, peft, peft_checkpointing = "PEFT, bf16 base", "PEFT + bitsandbytes NF4, bf16", "the same with gradient checkpointing"
native, nf4 = "lowrank, the GGUF file as it is", "lowrank, NF4"
llama, llama_adapted = "llama.cpp", "llama.cpp, with adapter"
torch_dense = "torch, dense bf16"
lowrank_auto, lowrank_bf16, lowrank_invariant = "lowrank", "lowrank, bf16", "lowrank, BatchInvariant"
layer_tokens = (1, 8, 64, 512, 2048)


class Unavailable(Exception):
    """A measurement that cannot be made here; its text stands in the table."""


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


def table(head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells):
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def faster(record, suffix):
    """The peer whose step is the faster one."""
    known = [(record.median(p + suffix, "step_seconds_median"), p) for p in (peft_dense, peft)]
    return min(((seconds, p) for seconds, p in known if seconds), default=(None, peft))[1]


def training_table(record, suffix, with_time):
    rows, peer = [], faster(record, suffix)
    for system in (peft_dense, peft, peft_checkpointing, native, nf4):
        name, compute = system + suffix, record.first(system + suffix, "compute")
        step, peak = (name, "step_seconds_median"), (name, "peak_rss_bytes")
        cells = [system + (f", {compute}" if compute else "")]
        if with_time:
            cells += [record.text(*step, "{:.3f}"), record.ratio((peer + suffix, step[1]), step)]
        rows.append([*cells, record.text(*peak, "{:.0f}", 2**-20), record.ratio((peer + suffix, peak[1]), peak)])
    head = ["", *(["step, s", f"speed over {peer}"] if with_time else []), "peak memory, MiB", "its memory / this"]
    return table(head, rows)


def long_table(record, options):
    short, long = (f"lowrank, {sizes}" for sizes in options.long.split(","))
    rows = [[system, *(record.text(system, field, "{:.2f}") for field in ("seconds", "attention", "rest"))] for system in (short, long)]
    rows.append(["second over first", *(record.ratio((long, field), (short, field)) for field in ("seconds", "attention", "rest"))])
    return table(["step, s", "all", "attention", "the rest"], rows)


def generation_table(record):
    prompt, decode = "prompt_tokens_per_second", "decode_tokens_per_second"
    bare = "_without_adapter"
    rows = []
    for label, system, suffix, peer in ((llama, llama, "", llama), (lowrank_auto, lowrank_auto, bare, llama),
                                        (lowrank_bf16, lowrank_bf16, bare, llama), (lowrank_invariant, lowrank_invariant, bare, llama),
                                        (llama_adapted, llama_adapted, "", llama_adapted),
                                        (lowrank_auto + ", with adapter", lowrank_auto, "", llama_adapted),
                                        (lowrank_bf16 + ", with adapter", lowrank_bf16, "", llama_adapted)):
        without = {llama_adapted: (llama, decode)}.get(system, (system, decode + bare))
        price = record.ratio(without, (system, decode)) if "with adapter" in label else "1.00"
        rows.append([label, record.text(system, prompt + suffix, "{:.0f}"), record.ratio((system, prompt + suffix), (peer, prompt)),
                     record.text(system, decode + suffix, "{:.1f}"), record.ratio((system, decode + suffix), (peer, decode)), price])
    return table(["", "prompt, tokens/s", "speed", "decode, tokens/s", "speed", "decode time / without adapter"], rows)


def context_table(record, options):
    rows = []
    for context in options.contexts.split(","):
        peer, own = (llama, f"decode {context}"), (lowrank_auto, f"decode {context}_without_adapter")
        rows.append([context, record.text(*peer, "{:.1f}"), record.text(*own, "{:.1f}"), record.ratio(own, peer)])
    return table(["tokens of context", "llama.cpp, tokens/s", "lowrank, tokens/s", "speed"], rows)


def bandwidth_line(record):
    share, rate = (record.median(lowrank_auto, field) for field in ("memory_share", "memory_gb_per_second"))
    if share is None or rate is None:
        return "Share of the memory's bandwidth: not measured."
    return f"Decoding at the shortest context reads {100 * share:.0f} % of the {rate:.1f} GB/s that a loop of the same program reads."


def kernel_table(record):
    places = ("fp32/l1", "fp32/l2", "bf16/l1", "bf16/l2")
    rows = [[place, record.text("kernels", f"micro_kernel/{place}", "{:.0f} %", 100)] for place in places]
    for how in ("bf16", "int8"):
        for a, b in ((3000, 3008), (2976, 3072)):
            label = f"NF4 [1000, in], one token, {how}: in = {a} over in = {b}"
            rows.append([label, record.ratio(("kernels", f"{how} {a}"), ("kernels", f"{how} {b}"))])
    return table(["micro-kernel's share of the register peak by where its panels lie; widths", ""], rows)


def pair_table(record, fields, project_system, peers=("bitsandbytes",)):
    rows = []
    for label, field in fields:
        times = [(p, ("dense " if p == torch_dense else "") + field) for p in peers]
        rows.append([label, *(record.text("bitsandbytes", f, "{:.2f}", 1e3) for _, f in times),
                     record.text(project_system, field, "{:.2f}", 1e3),
                     *(record.ratio(("bitsandbytes", f), (project_system, field)) for _, f in times)])
    return table(["ms", *peers, "lowrank", *(f"speed over {p}" for p in peers)], rows)


def processor():
    """Its name, and its kind: what of its arithmetic decides these numbers."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(reversed([tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line]))
    except OSError:
        return "unknown processor"
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    kinds = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512-BF16"), ("avx512f", "AVX-512"), ("avx2", "AVX2"), ("bf16", "NEON with bf16"))
    kind = next((name for flag, name in kinds if flag in flags), "none of AMX, AVX-512, AVX2")
    family, model = fields.get("cpu family"), int(fields.get("model", "0") or 0)
    zen = {"25": "Zen 4" if model >= 16 and "avx512f" in flags else "Zen 3", "26": "Zen 5"}.get(family, "")
    name = fields.get("model name", "unknown processor")
    return f"{name} ({', '.join(filter(None, [zen if 'AMD' in name else '', kind]))})"


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
    if not options.skip_long:
        yield f"### Long sequences, as many tokens: {options.long.replace(',', ' and ')}\n"
        yield long_table(record, options)
    if not options.skip_generation:
        yield f"### Prompt of 512 tokens and decoding, with and without a rank-{options.rank} adapter\n"
        yield generation_table(record)
        yield "### Decoding by context\n"
        yield context_table(record, options)
        yield bandwidth_line(record)
    if not options.skip_linear:
        forward = [(f"forward, T = {t}", f"forward {t}") for t in layer_tokens]
        adapted = [(f"forward with rank {options.rank}, T = {t}", f"adapted forward {t}") for t in layer_tokens]
        backward = [("forward and backward, T = 512", "forward_backward 512"),
                    (f"forward and backward with rank {options.rank}, T = 512", "adapted forward_backward 512")]
        yield "### Linear layer 4096 x 4096, NF4 double quantized, bf16, T tokens\n"
        yield pair_table(record, forward + adapted + backward, "layer", ("bitsandbytes", torch_dense))
    if not options.skip_quantize:
        yield "### NF4 double quantized, 4096 x 4096\n"
        yield pair_table(record, [("quantize", "quantize"), ("dequantize", "dequantize")], "quantize")
    if not options.skip_kernels:
        yield "### Kernels\n"
        yield kernel_table(record)
