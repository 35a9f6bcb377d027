"""The peers of benchmark_cuda and benchmark_cuda_step on the same GPU: PyTorch (bf16), bitsandbytes, transformers + PEFT.

    python3 peer.py products                                  cuBLAS through PyTorch, bitsandbytes' NF4 for one token and for many
    python3 peer.py step [7b|shape] [checkpoint] [profile]    a QLoRA step: NF4 with double quantization, rank 16 on all linear layers

A shape is HIDDEN,INTERMEDIATE,HEADS,KV_HEADS,LAYERS,VOCABULARY,SEQUENCES,TOKENS. Prints a line of JSON for each measurement.
"""
import json
import sys
import time

import torch


def milliseconds(call, rounds=5):
    """Median of rounds of as many calls as take 20 ms, by events of the device."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def once(count):
        start.record()
        for _ in range(count):
            call()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / count

    once(3)
    count = int(min(2000, max(3, 20 / max(1e-3, once(3)))))
    return sorted(once(count) for _ in range(rounds))[rounds // 2]


def products():
    import bitsandbytes as bnb
    device = torch.cuda.get_device_name()
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    time_ms = milliseconds(lambda: target.copy_(source))
    copy = 2 * source.numel() * 4 / time_ms * 1e-6
    del source, target
    print(json.dumps({"device": device, "copy_gb_per_s": round(copy, 1)}), flush=True)
    # One token through NF4 [4096, 14336]: copies in turn, so that no cache holds the matrix.
    layers = []
    for _ in range(8):
        layer = bnb.nn.Linear4bit(14336, 4096, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=False)
        layer.weight = bnb.nn.Params4bit(torch.randn(4096, 14336, dtype=torch.bfloat16) * 0.02, requires_grad=False, quant_type="nf4",
                                         compress_statistics=False)
        layers.append(layer.cuda())
    x = torch.randn(1, 14336, device="cuda", dtype=torch.bfloat16)
    turn = [0]

    def one():
        turn[0] += 1
        with torch.no_grad():
            layers[turn[0] % 8](x)

    graph = torch.cuda.CUDAGraph()
    one()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(8):
            one()
    time_ms = milliseconds(graph.replay) / 8
    size = 4096 * 14336 * (0.5 + 4 / 64)
    print(json.dumps({"peer": "bitsandbytes NF4, 1 token, 8 layers in a graph", "ms": time_ms, "of_copy": size / time_ms * 1e-6 / copy}),
          flush=True)
    layer = layers[0]
    for rows, cols in ((4096, 4096), (14336, 4096), (4096, 14336)):
        w = torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16)
        for tokens in (512, 2048, 4096):
            x, g = (torch.randn(tokens, n, device="cuda", dtype=torch.bfloat16) for n in (cols, rows))
            flops = 2 * rows * cols * tokens
            forward, transposed = milliseconds(lambda: x @ w.T), milliseconds(lambda: g @ w)
            print(json.dumps({"peer": "torch bf16", "rows": rows, "cols": cols, "tokens": tokens, "forward_ms": round(forward, 4),
                              "forward_tflops": round(flops / forward * 1e-9, 1), "transposed_ms": round(transposed, 4),
                              "transposed_tflops": round(flops / transposed * 1e-9, 1)}), flush=True)
    x = torch.randn(4096, 14336, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        time_ms = milliseconds(lambda: layer(x))
    print(json.dumps({"peer": "bitsandbytes NF4 [4096, 14336], 4096 tokens", "ms": time_ms}), flush=True)


def make_model(hidden, intermediate, heads, kv_heads, layers, vocabulary, tokens):
    import bitsandbytes as bnb
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads, num_key_value_heads=kv_heads,
                         num_hidden_layers=layers, vocab_size=vocabulary, max_position_embeddings=tokens, tie_word_embeddings=False)
    config._attn_implementation = "sdpa"

    def four_bits(linear):
        made = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
                                 compress_statistics=True, device="meta")
        made.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True).cuda()
        return made

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(part, name, four_bits(child))
    model.is_loaded_in_4bit = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM",
                                            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))


def step(arguments):
    shape = [4096, 11008, 32, 32, 32, 32000, 4, 512]
    for text in arguments:
        if "," in text:
            shape = [int(n) for n in text.split(",")]
    sequences, tokens = shape[6:]
    model = make_model(*shape[:6], tokens)
    if "checkpoint" in arguments:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    model.config.use_cache = False
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=2e-4, fused=True)
    ids = torch.randint(0, shape[5], (sequences, tokens), device="cuda")

    def run():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    times = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(12):
        start = time.perf_counter()
        loss = run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    times = sorted(times[2:])
    median = times[len(times) // 2]
    print(json.dumps({"peer": "transformers + PEFT + bitsandbytes", "shape": shape, "checkpoint": "checkpoint" in arguments,
                      "step_ms": round(1e3 * median, 2), "fastest_ms": round(1e3 * times[0], 2),
                      "tokens_per_s": round(sequences * tokens / median), "peak_gb": round(torch.cuda.max_memory_allocated() * 1e-9, 2),
                      "loss": loss}), flush=True)
    if "profile" in arguments:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            run()
            torch.cuda.synchronize()
        print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=18, max_name_column_width=60), flush=True)


if __name__ == "__main__":
    step(sys.argv[2:]) if sys.argv[1:2] == ["step"] else products()
