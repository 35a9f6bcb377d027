"""Writes a GGUF model as a Hugging Face folder in fp32, which PEFT can load. usage: gguf_to_folder.py MODEL.gguf FOLDER"""
import os
import sys

import measure

torch, transformers, _ = measure.require("torch", "transformers", "gguf")
path, out = os.path.abspath(sys.argv[1]), sys.argv[2]
source = {"pretrained_model_name_or_path": os.path.dirname(path), "gguf_file": os.path.basename(path)}
loaded = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
loaded.config.quantization_config = None
model = type(loaded)(loaded.config)  # a fresh one: the loaded one still counts as quantized and cannot be saved
model.load_state_dict(loaded.state_dict())
model.float().save_pretrained(out)
measure.report({"folder": out})
