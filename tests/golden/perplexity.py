"""Makes perplexity.json: the likelihood of texts under tests/golden/train/base by transformers, token by token.

    pip install torch transformers && python tests/golden/perplexity.py

A text begins with what the tokenizer puts before one by default and is cut to 64 tokens; every token behind the first is
predicted from all before it, in f32.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = pathlib.Path(__file__).parent
base = here / "train" / "base"
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
TEXTS = [
    "the heart stopped.",
    "zebrafish 4 went home well went home well",
    "a",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "naïve – ≥ 5 °C, 心臓",
    "</s> is no control token here",
]


def ids_of(text):
    special = tokenizer("").input_ids
    plain = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return (special + plain)[:64]


lines = []
for text in TEXTS:
    ids = torch.tensor([ids_of(text)])
    with torch.no_grad():
        logits = model(ids[:, :-1]).logits.double() if ids.shape[1] > 1 else None
    total = 0.0 if logits is None else float(-torch.log_softmax(logits[0], -1).gather(1, ids[0, 1:, None]).sum())
    lines.append({"text": text, "tokens": ids.shape[1] - 1, "negative_log_likelihood": total})
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text("[\n" + ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n]\n")
