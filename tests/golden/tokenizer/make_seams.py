"""Writes seams.json: prompts with completions as one text each, and which of its tokens reach into the completion by the offsets that the tokenizers package gives (pip install tokenizers==0.23.3)."""
import json, os
from tokenizers import Tokenizer
here = os.path.dirname(os.path.abspath(__file__))
pairs = [["The quick ", "brown fox."], ["The quick", " brown fox."], ["The qu", "ick brown fox."], ["", "brown fox"], ["brown fox", ""], ["", ""],
         ["A\n", "weight stays"], ["A", "\nweight stays"], ["A\r\n", "weight"], ["A\r", "\nweight"], ["x = ", "1234"], ["x = 12", "34"], ["a  ", "  b"],
         ["return", "ing value"], ["don", "'t pay"], ["Ä", "pfel"], ["🙂", "👍🏽"], [" ", "weight"], ["frozen ", " "], ["日本語", "の文章"],
         ["low", "rank ranks"], ["def step(", "values):\n    return values\n"], ["learned:\n\n", "\tfactor"], ["Question: what is it?\n", "it is good."],
         ["Answer: ", "good"], ["a <", "tool> b"], ["a ", "<tool> b"]]
result = {"pairs": pairs, "ids": {}, "marked": {}}
for name in ("gpt2", "smollm", "llama3", "qwen2", "steps", "llama"):
    tokenizer = Tokenizer.from_file(f"{here}/{name}/tokenizer.json")
    encoded = [tokenizer.encode(p + c) for p, c in pairs]
    result["ids"][name] = [e.ids for e in encoded]
    result["marked"][name] = [[int(not s and o[1] > len(p) and o[1] > o[0]) for o, s in zip(e.offsets, e.special_tokens_mask)]
                              for e, (p, c) in zip(encoded, pairs)]
open(f"{here}/seams.json", "w").write(json.dumps(result, separators=(",", ":")).replace("],[", "],\n[") + "\n")
