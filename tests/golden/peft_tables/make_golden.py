"""Adapters of PEFT that train tables and norms beside the linear maps, over a tiny model, and what PEFT computes with them.

Writes, beside this file, base/ (head of its own) and tied/ (the head is the token table), and for each case a folder with the adapter as
PEFT saves it and expected.safetensors: logits, loss, gradients by the names that the tensors have in the adapter's file.

Made with torch 2.15, transformers 5.24, peft 0.21.2:   python make_golden.py
With a folder as its argument it loads the adapters in there instead, which the library saved again, and prints the largest difference of
their logits to those of the adapters here: 0.
"""
import json
import os
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS, ADDED = 40, 4

CASES = {
    "norms": dict(modules_to_save=["norm"]),
    "tokens": dict(trainable_token_indices=[3, 11, 7]),
    "tokens_tied": dict(trainable_token_indices=[3, 11, 7], tied=True),
    "tokens_both": dict(trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [2, 3, 4]}),
    "table_alone": dict(modules_to_save=["embed_tokens"], tied=True),
    "table_tied": dict(modules_to_save=["embed_tokens"], ensure_weight_tying=True, tied=True),
    "update_tied": dict(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True, tied=True),
    "dora_table": dict(target_modules=["q_proj", "embed_tokens"], use_dora=True),
    "resized": dict(added=ADDED),
    "resized_saved": dict(modules_to_save=["embed_tokens", "lm_head"], added=ADDED),
    "resized_tokens": dict(trainable_token_indices=[40, 41, 42, 43], tied=True, added=ADDED),
}


def make_base(tied):
    torch.manual_seed(5 + tied)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(folder_of(tied))


def folder_of(tied):
    return os.path.join(HERE, "tied" if tied else "base")


def open_base(tied, added):
    model = LlamaForCausalLM.from_pretrained(folder_of(tied), dtype=torch.float32)
    if added:
        torch.manual_seed(99)
        model.resize_token_embeddings(TOKENS + added, mean_resizing=False)
    return model


def make_adapter(name, tied=False, added=0, **settings):
    """An adapter as training leaves it: every number that it may change is another one."""
    settings.setdefault("target_modules", ["q_proj"])
    model = get_peft_model(open_base(tied, added), LoraConfig(r=3, lora_alpha=6, task_type="CAUSAL_LM", **settings))
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(os.path.join(HERE, name))
    path = os.path.join(HERE, name, "adapter_config.json")
    config = json.load(open(path))
    config["base_model_name_or_path"] = os.path.basename(folder_of(tied))
    with open(path, "w") as file:
        json.dump({key: sorted(value) if key == "target_modules" else value for key, value in config.items()}, file, indent=2, sort_keys=True)


def ids_of(added):
    torch.manual_seed(1)
    ids = torch.randint(0, TOKENS + added, (2, 12))
    ids[:, :6] = torch.tensor([[3, 11, 7, 1, 5, 2], [40, 41, 42, 43, 3, 4]]) % (TOKENS + added)  # the tokens that are trained
    return ids


def open_adapter(folder, tied=False, added=0, **settings):
    return PeftModel.from_pretrained(open_base(tied, added), folder, is_trainable=True)


def write_expected(name, added=0, **settings):
    model, ids = open_adapter(os.path.join(HERE, name), added=added, **settings), ids_of(added)
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    tensors = {"ids": ids.to(torch.int32), "logits": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            key = parameter_name.replace("modules_to_save.default.", "").replace(".default", "").removeprefix("base_model.model.")
            key = key.replace("magnitude_vector.weight", "magnitude_vector")
            tensors["grad." + key] = parameter.grad.contiguous()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, os.path.join(HERE, name, "expected.safetensors"))


def compare(folder):
    for name, settings in CASES.items():
        ids = ids_of(settings.get("added", 0))
        with torch.no_grad():
            mine, theirs = (open_adapter(os.path.join(of, name), **settings)(input_ids=ids).logits for of in (folder, HERE))
        print(f"{name:16} {(mine - theirs).abs().max().item():g}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare(sys.argv[1])
    else:
        for tied in (False, True):
            make_base(tied)
        for name, settings in CASES.items():
            make_adapter(name, **settings)
            write_expected(name, **settings)
