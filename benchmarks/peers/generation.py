"""Speed of llama.cpp: a prompt of 512 tokens at once, then 128 single tokens after a prompt of 32; and 64 after each of some contexts.

usage: generation.py MODEL.gguf REPETITIONS THREADS CONTEXTS [ADAPTER.gguf], CONTEXTS as 32,2000,4000
"""
import random
import sys

import measure

(llama_cpp,) = measure.require("llama_cpp")
path, repetitions, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
contexts = [int(c) for c in sys.argv[4].split(",")]
model = llama_cpp.Llama(path, n_ctx=max(2048, max(contexts) + 128), n_threads=threads, n_threads_batch=threads, n_batch=512, n_ubatch=512,
                        verbose=False, lora_path=sys.argv[5] if len(sys.argv) > 5 else None)
ids = random.Random(0).choices(range(model.n_vocab()), k=max([512, *contexts]))


def prompt():
    model.reset()
    return measure.seconds_of(lambda: model.eval(ids[:512]))


def decode():
    model.reset()
    model.eval(ids[:32])
    return measure.seconds_of(lambda: [model.eval([token]) for token in ids[:128]])


def decode_after(context):
    """Tokens/s, the median of the repetitions, which go on from one another."""
    model.reset()
    model.eval(ids[:context])
    steps = max(8, 64 // repetitions)
    run = lambda: [model.eval([token]) for token in ids[:steps]]  # noqa: E731
    return steps / measure.median([measure.seconds_of(run) for _ in range(repetitions)])


prompt(), decode()
measure.report({"prompt_tokens_per_second": 512 / measure.median([prompt() for _ in range(repetitions)]),
                "decode_tokens_per_second": 128 / measure.median([decode() for _ in range(repetitions)]),
                "peak_rss_bytes": measure.peak_bytes(),
                **{f"decode {context}": decode_after(context) for context in contexts},
                "version": f"llama-cpp-python {llama_cpp.__version__}"})
