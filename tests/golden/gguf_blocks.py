"""Makes gguf_blocks.safetensors: blocks of ggml's formats, what they decode to, and what ggml itself writes.

    python gguf_blocks.py            with numpy, safetensors, gguf 0.19 and llama-cpp-python 0.3.36 (for libggml-base.so)

For each format [4, 512]: TYPE.bytes and TYPE.dequant by the Python package gguf. Those that it can write hold `input`, the others random
bytes with finite scales. TYPE.written and TYPE.weighted are ggml's own bytes for `input`, without and with `importance` [512]; where they
are missing, they are those without, and TYPE.bytes.
"""
import ctypes
import pathlib

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

HALVES = {  # where a block keeps numbers in half precision
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,),
    "IQ1_S": (0,), "IQ1_M": (), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ4_NL": (0,),
    "IQ4_XS": (0,), "NVFP4": ()}
WRITTEN_BY_NUMPY = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")
WRITTEN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4")
SHAPE = (4, 512)


def input_rows(random):
    x = random.standard_normal(SHAPE).astype(np.float32)
    x[1] = random.standard_t(3, SHAPE[1])  # heavy tails
    x[2, 64:96], x[2, 256:512] = 0, 0  # empty blocks, of 32 and of 256
    x[2, 128:160] = 0.25  # a block without a spread
    x[3] *= 0.02
    x[3, 37] = 1.5
    return x


def random_blocks(random, name):
    size, count = gguf.GGML_QUANT_SIZES[Type[name]]
    blocks = random.integers(0, 256, (SHAPE[0] * SHAPE[1] // size, count), dtype=np.uint8)
    scales = lambda: (random.standard_normal(len(blocks)) * 0.01).astype(np.float16).view(np.uint8).reshape(-1, 2)
    for at in HALVES[name]:
        blocks[:, at:at + 2] = scales()
    if name == "IQ1_M":  # a quarter of the scale in the four highest bits of each of four words
        bits = scales().copy().view(np.uint16).reshape(-1)
        for i in range(4):
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | (bits >> 4 * i & 15) << 4
    if name == "NVFP4":
        blocks[:, :4] &= 0x7F
        blocks[:, :4] %= 0x7F  # no NaN
    return blocks.reshape(SHAPE[0], -1)


def written(library, name, x, importance):
    size, count = gguf.GGML_QUANT_SIZES[Type[name]]
    out = np.zeros((SHAPE[0], SHAPE[1] // size * count), np.uint8)
    pointer = lambda a: None if a is None else a.ctypes.data_as(ctypes.c_void_p)
    library.ggml_quantize_chunk(int(Type[name]), pointer(x), pointer(out), ctypes.c_int64(0), ctypes.c_int64(SHAPE[0]),
                                ctypes.c_int64(SHAPE[1]), pointer(importance))
    return out


def main():
    random = np.random.default_rng(17)
    x, importance = input_rows(random), random.exponential(1, SHAPE[1]).astype(np.float32)
    data = {"input": x, "importance": importance}
    for name in WRITTEN_BY_NUMPY + tuple(HALVES):
        data[name + ".bytes"] = gguf.quants.quantize(x, Type[name]) if name in WRITTEN_BY_NUMPY else random_blocks(random, name)
        data[name + ".dequant"] = gguf.quants.dequantize(data[name + ".bytes"], Type[name])
    library = ctypes.CDLL(str(pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    for name in WRITTEN:
        plain, weighted = written(library, name, x, None), written(library, name, x, importance)
        if name not in WRITTEN_BY_NUMPY:
            data[name + ".written"] = plain
        else:
            assert (plain == data[name + ".bytes"]).all()
        if (weighted != plain).any():
            data[name + ".weighted"] = weighted
    save_file(data, pathlib.Path(__file__).parent / "gguf_blocks.safetensors")


if __name__ == "__main__":
    main()
