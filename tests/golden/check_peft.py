"""What PEFT and transformers find of texts with a checkpoint of clsgen's, beside what clsgen's evaluation found of them.

    python tests/golden/check_peft.py CHECKPOINT BASE TEXTS LINES

CHECKPOINT is an adapter over BASE, or a folder of a whole model; TEXTS has a text a line, LINES is language.tuned.jsonl.
Exit 1 where a sum of negative log-likelihoods differs by more than 1e-5 of it, or no text was read.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def loaded(checkpoint, base):
    if (checkpoint / "adapter_config.json").exists():
        from peft import PeftModel

        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), checkpoint)
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def main(checkpoint, base, texts, lines):
    model = loaded(checkpoint, base).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = [json.loads(line) for line in lines.read_text().splitlines()]
    texts = texts.read_text().splitlines()
    assert len(lines) == len(texts) > 0, f"{len(lines)} lines of {len(texts)} texts"
    worst = 0
    for text, ours in zip(texts, lines):
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert ids.shape[1] == ours["tokens"] + 1, f"{ids.shape[1]} ids, {ours['tokens']} tokens predicted"
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        theirs = float(torch.nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))
        worst = max(worst, abs(ours["negative_log_likelihood"] - theirs) / theirs)
    print(f"{checkpoint.name}: {len(texts)} texts, negative log-likelihoods differ by {worst:.1e} at most")
    return int(not worst <= 1e-5)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
