"""One training step of a causal language model with PEFT in bf16, LoRA on all linear layers, over a base in bitsandbytes' NF4 (double
quantized) or dense.

usage: training_step.py FOLDER BATCH SEQUENCE RANK STEPS THREADS [checkpointing | dense]
"""
import sys
import warnings

import measure

torch, transformers, peft = measure.require("torch", "transformers", "peft")
warnings.filterwarnings("ignore")
folder = sys.argv[1]
batch, sequence, rank, steps, threads = map(int, sys.argv[2:7])
torch.set_num_threads(threads)

is_dense, quantization, version = "dense" in sys.argv, None, f"PEFT {peft.__version__}, PyTorch {torch.__version__}"
if not is_dense:
    (bitsandbytes,) = measure.require("bitsandbytes")
    quantization = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                                   bnb_4bit_compute_dtype=torch.bfloat16)
    version += f", bitsandbytes {bitsandbytes.__version__}"
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu", quantization_config=quantization)
if "checkpointing" in sys.argv:
    model = peft.prepare_model_for_kbit_training(model)  # gradient checkpointing, and what is not quantized in fp32
model = peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=2e-4)
ids = torch.randint(0, model.config.vocab_size, (batch, sequence), generator=torch.Generator().manual_seed(0))
model.train()


def step():
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


step()
measure.report({"step_seconds_median": measure.median([measure.seconds_of(step) for _ in range(steps)]),
                "peak_rss_bytes": measure.peak_bytes(),
                "trainable_parameters": sum(p.numel() for p in trainable),
                "version": version})
