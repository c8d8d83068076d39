"""Checks what `clsgen export` wrote against PEFT: each tensor against `merge_and_unload` in f32 rounded to bf16, and the
logits of the folder, as transformers loads it, against those of base and adapter.

    python tests/golden/check_merged.py CHECKPOINT BASE MERGED

CHECKPOINT is a checkpoint directory, BASE the base model's folder, MERGED what export made of them.
"""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint, base, merged = sys.argv[1:]
ids = AutoTokenizer.from_pretrained(merged)("The patient went home in good health.", return_tensors="pt").input_ids


def model(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


with torch.no_grad():
    tuned = PeftModel.from_pretrained(model(base), checkpoint)
    by_adapter = tuned(ids).logits
    wanted = {name: tensor.to(torch.bfloat16).float() for name, tensor in tuned.merge_and_unload().state_dict().items()}
    ours = model(merged)
    by_merged = ours(ids).logits
found = ours.state_dict()
assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
values = sum(tensor.numel() for tensor in wanted.values())
other = sum(int((found[name] != tensor).sum()) for name, tensor in wanted.items())
# f32 sums in another order: next to a half some values round to the other neighbour.
for name, tensor in wanted.items():
    assert torch.allclose(found[name], tensor, rtol=2**-7, atol=1e-6), name
assert other <= values * 1e-4, f"{other} of {values}"
distance = float((by_merged - by_adapter).abs().max())
scale = float(by_adapter.abs().max())
assert distance <= 0.05 * scale, f"{distance} of {scale}"
print(f"{len(wanted)} tensors: {other} of {values} values are bf16's other neighbour; logits up to {scale:.2f} differ by "
      f"{distance:.4f} at most")
