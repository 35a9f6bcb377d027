"""Makes architectures/: for each architecture a tiny random model as transformers saves it and as llama.cpp converts it, with the logits,
loss and gradients of LoRA that transformers and PEFT compute in float64 (their norms and softmax in float32) with eager attention.

    python make_architectures.py LLAMA_CPP [FOLDER ...]     LLAMA_CPP: the sources of llama.cpp, for its converters; all folders, or some

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, bitsandbytes 0.50.2, llama-cpp-python 0.3.36 and the llama.cpp in its source
package.
Deterministic: a model's numbers come from the hash of its name. Weights are numbers of bf16 and of F16, so that files are small and exact.

NAME/config.json, model.safetensors  as save_pretrained writes them
NAME/model.gguf                      convert_hf_to_gguf.py in F16, without a vocabulary
NAME/adapter/, adapter.gguf          LoRA of rank 2 on all linear layers as PEFT saves it; convert_lora_to_gguf.py (of some)
NAME/expected.safetensors            ids [T]; positions [P]; logits, adapter.logits [P, vocabulary] there; adapter.loss, the mean
                                     cross-entropy of ids[1:]; gradients: of the adapter's tensors, sorted by name, one after the other.
                                     With "gguf." in front the same of the model as its GGUF file describes it, where the converter drops
                                     a setting (DROPPED). llama_cpp.logits: llama.cpp's own on it in F32. short.logits [1, vocabulary]:
                                     after the first 12 tokens alone
rope/                                one small Llama under many RoPE scalings: SCALING.json is a config.json for model.safetensors;
                                     SCALING.gguf where the converter keeps the scaling; expected.safetensors: SCALING.logits and so on
quantized/NAME_nf4/                  architecture NAME in NF4 as bitsandbytes and transformers save it; for NAME's adapter
quantized/NAME_q4_k/                 another model, 256 wide, quantized by llama.cpp, with an adapter of rank 1
                                     expected.safetensors of both: over the weights as they decode
"""
import ctypes, hashlib, json, math, os, shutil, subprocess, sys, tempfile, warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import bitsandbytes
import gguf
import llama_cpp
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

OUT = Path(__file__).resolve().parent / "architectures"
LLAMA_CPP = Path(sys.argv[1]).resolve()
TOKENS, VOCABULARY = 28, 64
POSITIONS = [0, 7, 8, 13, 20, 27]
SIZES = dict(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
# llama.cpp loads some only with heads that fill the hidden size.
TWO_HEADS = {**SIZES, "num_attention_heads": 2, "num_key_value_heads": 1}

ARCHITECTURES = {
    "llama": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-5}),
    "mistral": ("mistral", {**SIZES, "num_key_value_heads": 1, "sliding_window": 8, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {**TWO_HEADS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1,
                        "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}),
    "qwen3": ("qwen3", {**SIZES, "tie_word_embeddings": True, "rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0}}),
    "gemma2": ("gemma2", {**SIZES, "query_pre_attn_scalar": 12, "sliding_window": 8,
                          "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", {**TWO_HEADS, "num_hidden_layers": 6, "query_pre_attn_scalar": 8,
                               "sliding_window": 8, "rope_parameters": {
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                                   "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0}}}),
    "phi3": ("phi3", {**TWO_HEADS, "original_max_position_embeddings": 16, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.2, 2.5, 5.0]}}),
    "smollm3": ("smollm3", {**SIZES, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 10,
                            "rope_parameters": {"rope_type": "default", "rope_theta": 2000.0}}),
    "granite": ("granite", {**TWO_HEADS, "embedding_multiplier": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.6,
                            "logits_scaling": 2.0, "tie_word_embeddings": True}),
    "olmo2": ("olmo2", {**TWO_HEADS, "rms_norm_eps": 1e-5}),
}
# Settings that the converter drops: how the model in the GGUF file computes.
DROPPED = {
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False, "layer_types": ["full_attention"] * 2},
    "gemma2": {"query_pre_attn_scalar": 8},
}
ROPE_SIZES = {**SIZES, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12,
              "tie_word_embeddings": True}
ROPE = {
    "default": dict(rope_type="default", rope_theta=100.0),
    "linear": dict(rope_type="linear", rope_theta=1000.0, factor=4.0),
    "llama3": dict(rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32),
    "dynamic": dict(rope_type="dynamic", rope_theta=100.0, factor=4.0),  # max_position_embeddings 16
    "yarn": dict(rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=16),
    "yarn_beta": dict(rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=1.5, beta_slow=0.25,
                      truncate=False, attention_factor=1.25),
    "yarn_mscale": dict(rope_type="yarn", rope_theta=100.0, factor=4.0, original_max_position_embeddings=16, beta_fast=2.0,
                        mscale=0.707, mscale_all_dim=0.5),
    "longrope": dict(rope_type="longrope", rope_theta=1000.0, original_max_position_embeddings=16,
                     short_factor=[1.0, 1.05, 1.1, 1.2, 1.4, 1.7], long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 9.0]),
    "longrope_factor": dict(rope_type="longrope", rope_theta=1000.0, original_max_position_embeddings=32, factor=8.0,
                            short_factor=[1.0, 1.05, 1.1, 1.2, 1.4, 1.7], long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 9.0]),
}
ADAPTERS_GGUF = ["llama", "qwen3", "phi3"]
ROPE_GGUF = ["llama3"]  # gemma3 has linear, qwen3 yarn, phi3 longrope; of the others the converter keeps nothing
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED_MODULES = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def generator(name):
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little"))


def rounded(values):
    """The next numbers that bf16 and F16 both hold."""
    return torch.where(values.abs() < 2**-13, 0, values.to(torch.bfloat16).to(values.dtype))


@torch.no_grad()
def fill(model, name):
    """Random weights of which each matters: norms away from 1, biases away from 0, scores of a few units."""
    g = generator(name)
    gemma = model.config.model_type.startswith("gemma")
    for path, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if path.endswith("norm.weight"):
            p.copy_(rounded(0.3 * noise + (0 if gemma else 1)))
        elif path.endswith("bias"):
            p.copy_(rounded(0.5 * noise))
        elif "embed_tokens" in path:
            p.copy_(rounded(0.5 * noise))
        else:
            p.copy_(rounded(1.2 * noise / math.sqrt(p.shape[1])))


def sequence(name):
    return torch.randint(3, VOCABULARY, (TOKENS,), generator=generator("ids of " + name)).tolist()


def save_model(model_type, settings, name, folder):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings), attn_implementation="eager")
    fill(model, name)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def load_model(folder, **settings):
    config = AutoConfig.from_pretrained(folder)
    for key, value in settings.items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()


def save_adapter(folder, adapter, name, rank=2, targets=None):
    model = load_model(folder)
    modules = targets or (FUSED_MODULES if model.config.model_type == "phi3" else MODULES)
    peft_model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=3, target_modules=modules, task_type="CAUSAL_LM"))
    g = generator("adapter of " + name)
    with torch.no_grad():
        for path, p in sorted(peft_model.named_parameters()):
            if "lora_" in path:
                p.copy_(0.3 * torch.randn(p.shape, generator=g))
    peft_model.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    config["target_modules"] = sorted(config["target_modules"])
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def measure(model, ids, adapter=None, positions=POSITIONS):
    """Logits of the bare model; with an adapter its logits, loss and gradients."""
    batch = torch.tensor([ids])
    model = model.double()
    with torch.no_grad():
        result = {"logits": model(batch).logits[0][positions].float()}
    if adapter:
        peft_model = PeftModel.from_pretrained(model, adapter, is_trainable=True).eval().double()
        logits = peft_model(batch).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], batch[0, 1:])
        loss.backward()
        result["adapter.logits"] = logits[positions].detach().float()
        result["adapter.loss"] = loss.detach().float().reshape(1)
        gradients = {path: p.grad for path, p in peft_model.named_parameters() if "lora_" in path}
        result["gradients"] = torch.cat([gradients[path].float().flatten() for path in sorted(gradients)])
    return {key: value.contiguous() for key, value in result.items()}


CONVERT = """
import sys
sys.path[:0] = [sys.argv[1] + "/gguf-py", sys.argv[1]]
import convert_hf_to_gguf
from conversion import base
def no_vocabulary(self):
    self._set_vocab_none()
    self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])
find = convert_hf_to_gguf.get_model_class
def patched(*args, **kwargs):
    found = find(*args, **kwargs)
    found.set_vocab = no_vocabulary
    return found
convert_hf_to_gguf.get_model_class = patched
sys.argv = ["convert", sys.argv[2], "--outfile", sys.argv[3], "--outtype", sys.argv[4]]
convert_hf_to_gguf.main()
"""


def run(command):
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(finished.stdout + finished.stderr)


def convert(folder, path, kind="f16"):
    """llama.cpp's converter, its vocabulary left out. Gemma 3's one asks a tokenizer.json how many rows of the table are used."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        copy.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(folder / name, copy)
        vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
        (copy / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
        run([sys.executable, "-c", CONVERT, str(LLAMA_CPP), str(copy), str(path), kind])


def convert_adapter(folder, adapter, path):
    run([sys.executable, str(LLAMA_CPP / "convert_lora_to_gguf.py"), str(adapter), "--base", str(folder), "--outfile", str(path),
         "--outtype", "f32"])


def llama_cpp_logits(path, ids, adapter=None):
    """Logits [T, vocabulary] of llama.cpp: an fp32 cache, no flash attention."""
    lib = llama_cpp
    model_options = lib.llama_model_default_params()
    model = lib.llama_model_load_from_file(str(path).encode(), model_options)
    options = lib.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = 0  # F32
    options.flash_attn_type = 0          # disabled
    context = lib.llama_init_from_model(model, options)
    if adapter:
        handle = lib.llama_adapter_lora_init(model, str(adapter).encode())
        lib.llama_set_adapters_lora(context, (type(handle) * 1)(handle), 1, (ctypes.c_float * 1)(1.0))
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert lib.llama_decode(context, batch) == 0
    rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (VOCABULARY,)).copy() for i in range(len(ids))]
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)
    return torch.from_numpy(np.stack(rows))


def difference(given, expected):
    return ((given - expected).abs().max() / expected.abs().max()).item()


def check_llama_cpp(name, folder, ids, expected, adapter=None):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        convert(folder, path, "f32")  # for F16 weights llama.cpp rounds what they multiply, too
        logits = llama_cpp_logits(path, ids)
        line = f"{name:16} llama.cpp's logits differ by {difference(logits[POSITIONS], expected['logits']):.1e} of the largest"
        if adapter:
            given = llama_cpp_logits(path, ids, adapter)[POSITIONS]
            line += f", with the adapter by {difference(given, expected['adapter.logits']):.1e}"
    print(line)
    return {"llama_cpp.logits": logits[POSITIONS].contiguous()}


def settings_of(ids):
    return dict(ids=torch.tensor(ids, dtype=torch.int32), positions=torch.tensor(POSITIONS, dtype=torch.int32))


def make_architecture(name, model_type, settings):
    folder = OUT / name
    save_model(model_type, settings, name, folder)
    adapter, ids = folder / "adapter", sequence(name)
    save_adapter(folder, adapter, name)
    convert(folder, folder / "model.gguf")
    convert_adapter(folder, adapter, folder / "adapter.gguf")
    expected = measure(load_model(folder), ids, adapter)
    as_gguf = measure(load_model(folder, **DROPPED[name]), ids, adapter) if name in DROPPED else {}
    expected.update(check_llama_cpp(name, folder, ids, as_gguf or expected, folder / "adapter.gguf"))
    expected.update({"gguf." + key: value for key, value in as_gguf.items()})
    if name == "phi3":  # no longer than original_max_position_embeddings: the short factors
        expected["short.logits"] = measure(load_model(folder), ids[:12], positions=[11])["logits"]
    if name not in ADAPTERS_GGUF:
        (folder / "adapter.gguf").unlink()
    save_file({**expected, **settings_of(ids)}, folder / "expected.safetensors")


def make_rope():
    folder, ids = OUT / "rope", sequence("rope")
    expected = settings_of(ids)
    for name, rope in ROPE.items():
        length = 16 if name == "dynamic" else 64
        save_model("llama", {**ROPE_SIZES, "rope_parameters": dict(rope), "max_position_embeddings": length}, "rope", folder)
        measured = measure(load_model(folder), ids)
        measured["short.logits"] = measure(load_model(folder), ids[:12], positions=[11])["logits"]
        if name in ROPE_GGUF:
            convert(folder, folder / f"{name}.gguf")
            measured.update(check_llama_cpp("rope " + name, folder, ids, measured))
        expected.update({f"{name}.{key}": value for key, value in measured.items()})
        (folder / "config.json").rename(folder / f"{name}.json")
    save_file(expected, folder / "expected.safetensors")


def decoded_nf4(weight):
    """Scale k belongs to the numbers 64 k to 64 k + 63 of a matrix; on a CPU bitsandbytes 0.50 decodes rows that are no whole blocks
    by other ones."""
    state, codes = weight.quant_state, weight.data.flatten()
    scales = state.absmax
    if state.nested:
        scales = bitsandbytes.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    numbers = state.code[torch.stack([codes >> 4, codes & 15], 1).flatten().long()]
    return (numbers * scales.repeat_interleave(state.blocksize)[: len(numbers)]).reshape(state.shape)


@torch.no_grad()
def make_nf4(name, double):
    """transformers' own file, and what its weights are in a dense model."""
    folder, ids = OUT / "quantized" / f"{name}_nf4", sequence(name)
    options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                                 bnb_4bit_compute_dtype=torch.float32)
    quantized = AutoModelForCausalLM.from_pretrained(OUT / name, quantization_config=options, dtype=torch.bfloat16)
    quantized.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    dense = load_model(OUT / name)
    for path, module in quantized.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            dense.get_submodule(path).weight.copy_(decoded_nf4(module.weight))
    with torch.enable_grad():
        expected = measure(dense, ids, OUT / name / "adapter")
    save_file({**expected, **settings_of(ids)}, folder / "expected.safetensors")


GGUF_NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
              "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


@torch.no_grad()
def make_q4_k(name, model_type, settings):
    folder, ids = OUT / "quantized" / f"{name}_q4_k", sequence(name + " q4_k")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "model"
        save_model(model_type, settings, name + " q4_k", source)
        save_adapter(source, folder / "adapter", name + " q4_k", 1, ["q_proj", "v_proj", "gate_proj"])
        convert(source, Path(scratch) / "model.gguf", "f32")
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_S
        status = llama_cpp.llama_model_quantize(str(Path(scratch) / "model.gguf").encode(), str(folder / "model.gguf").encode(), options)
        assert status == 0
        dense = load_model(source)
    for tensor in gguf.GGUFReader(folder / "model.gguf").tensors:
        decoded = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name == "token_embd.weight":
            dense.get_input_embeddings().weight.copy_(decoded)
        elif tensor.name.split(".")[2:3] != [] and tensor.name.split(".")[2] in GGUF_NAMES and tensor.name.endswith("weight"):
            _, layer, module, _ = tensor.name.split(".")
            dense.get_submodule(f"model.layers.{layer}.{GGUF_NAMES[module]}").weight.copy_(decoded)
    with torch.enable_grad():
        expected = measure(dense, ids, folder / "adapter")
    save_file({**expected, **settings_of(ids)}, folder / "expected.safetensors")


def make_quantized():
    make_nf4("qwen2", double=True)
    make_nf4("gemma3", double=False)
    wide = {**TWO_HEADS, "hidden_size": 256, "num_hidden_layers": 1, "intermediate_size": 32, "head_dim": 16}
    make_q4_k("qwen2", "qwen2", {**wide, "tie_word_embeddings": True})
    make_q4_k("gemma3", "gemma3_text", {**wide, "query_pre_attn_scalar": 16, "sliding_window": 8})


def main():
    llama_cpp.llama_log_set(SILENT, None)
    for folder in sys.argv[2:] or [*ARCHITECTURES, "rope", "quantized"]:
        shutil.rmtree(OUT / folder, ignore_errors=True)
        if folder in ARCHITECTURES:
            make_architecture(folder, *ARCHITECTURES[folder])
        else:
            {"rope": make_rope, "quantized": make_quantized}[folder]()


SILENT = llama_cpp.llama_log_callback(lambda *_: None)
main()
