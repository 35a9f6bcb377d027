"""One linear layer [4096, 4096] of bitsandbytes (NF4, double quantized, bf16) and torch's dense one in bf16, bare and with a low-rank
update; and quantizing and dequantizing.

usage: linear.py RANK THREADS
"""
import sys
import warnings

import measure

torch, bitsandbytes = measure.require("torch", "bitsandbytes")
warnings.filterwarnings("ignore")
rank, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
size, dtype = 4096, torch.bfloat16
weight = torch.rand(size, size) * 2 - 1

layer = bitsandbytes.nn.Linear4bit(size, size, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
layer.weight = bitsandbytes.nn.Params4bit(weight.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True)
layer = layer.to("cpu")
a = (torch.randn(rank, size, dtype=dtype) * 0.01).requires_grad_()
b = torch.zeros(size, rank, dtype=dtype).requires_grad_()


dense = torch.nn.Linear(size, size, bias=False, dtype=dtype)
dense.weight.requires_grad_(False)


def with_update(function):
    return lambda x: function(x) + (x @ a.T) @ b.T * 2


def training(function, tokens):
    x = torch.randn(tokens, size, dtype=dtype).requires_grad_()
    gradient = torch.randn(tokens, size, dtype=dtype)

    def step():
        function(x).backward(gradient)
        a.grad = b.grad = x.grad = None

    return measure.median_seconds(step)


functional = bitsandbytes.functional


def quantize():
    return functional.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)


quantized = quantize()
result = {"quantize": measure.median_seconds(quantize),
          "dequantize": measure.median_seconds(lambda: functional.dequantize_4bit(*quantized))}
layers = {"": layer, "dense ": dense}
for tokens in (1, 8, 64, 512, 2048):
    inputs = torch.randn(tokens, size, dtype=dtype)
    with torch.no_grad():
        for name, function in layers.items():
            adapted = with_update(function)
            result[f"{name}forward {tokens}"] = measure.median_seconds(lambda: function(inputs))
            result[f"{name}adapted forward {tokens}"] = measure.median_seconds(lambda: adapted(inputs))
for name, function in layers.items():
    result[f"{name}forward_backward 512"] = training(function, 512)
    result[f"{name}adapted forward_backward 512"] = training(with_update(function), 512)
measure.report(result | {"version": f"bitsandbytes {bitsandbytes.__version__}, PyTorch {torch.__version__}"})
