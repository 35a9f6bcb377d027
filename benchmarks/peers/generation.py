"""Speed of llama.cpp: a prompt of 512 tokens at once, then 128 single tokens after a prompt of 32.

usage: generation.py MODEL.gguf REPETITIONS THREADS [ADAPTER.gguf]
"""
import random
import sys

import measure

(llama_cpp,) = measure.require("llama_cpp")
path, repetitions, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = llama_cpp.Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, n_batch=512, n_ubatch=512, verbose=False,
                        lora_path=sys.argv[4] if len(sys.argv) > 4 else None)
ids = random.Random(0).choices(range(model.n_vocab()), k=512)


def prompt():
    model.reset()
    return measure.seconds_of(lambda: model.eval(ids))


def decode():
    model.reset()
    model.eval(ids[:32])
    return measure.seconds_of(lambda: [model.eval([token]) for token in ids[:128]])


prompt(), decode()
measure.report({"prompt_tokens_per_second": 512 / measure.median([prompt() for _ in range(repetitions)]),
                "decode_tokens_per_second": 128 / measure.median([decode() for _ in range(repetitions)]),
                "peak_rss_bytes": measure.peak_bytes(),
                "version": f"llama-cpp-python {llama_cpp.__version__}"})
