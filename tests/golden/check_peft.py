"""Loads a checkpoint that clsgen wrote with peft (or, trained in full, with transformers) and compares logits.

    python tests/golden/check_peft.py BASE CHECKPOINT

CHECKPOINT/request.json holds {"ids": [...], "logits": [[...], ...]} as clsgen computed them. Exit 1 where they differ by more than
1e-4 of their norm.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main(base, checkpoint):
    request = json.loads((checkpoint / "request.json").read_text())
    if (checkpoint / "adapter_config.json").exists():
        from peft import PeftModel

        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), checkpoint)
    else:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        theirs = model.eval()(input_ids=torch.tensor([request["ids"]])).logits[0]
    ours = torch.tensor(request["logits"])
    error = float((ours - theirs).norm() / theirs.norm())
    print(f"relative difference {error:.2e}")
    return int(not error <= 1e-4)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
