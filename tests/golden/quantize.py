"""Quantised bases by bitsandbytes on a CPU: the reference of tests/golden/quantize.rs.

    python tests/golden/quantize.py  (torch, transformers, bitsandbytes; writes tests/golden/quantize.json)

Codes, scales and dequantised bits of random matrices in nf4 (blocks of 64, no double quantisation) and int8 (a scale a
row, no outliers); and the logits of tests/golden/train/base with its seven projections so quantised, in f32.
"""

import json
from pathlib import Path

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from transformers import LlamaForCausalLM

HERE = Path(__file__).parent
IDS = [72, 101, 108, 108, 111, 44, 32, 110, 111, 116, 101, 46, 256, 3, 200]


def bits(x):
    as_integers = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[x.dtype]
    mask = 0xFFFF if x.dtype == torch.bfloat16 else 0xFFFFFFFF
    return [n & mask for n in x.contiguous().view(as_integers).flatten().tolist()]


def nf4(weight, dtype):
    codes, state = bnb.functional.quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4", compress_statistics=False)
    if weight.shape[1] % 64:
        # The CPU kernel (0.50.2) takes the scale of another block where a row is shorter than a block: the general one.
        wide = _dequantize_4bit_compute(codes.flatten(), state.absmax, state.code, 64, weight.shape, dtype)
        return codes.flatten(), state.absmax, wide
    state.dtype = dtype
    return codes.flatten(), state.absmax, bnb.functional.dequantize_4bit(codes, state)


def int8(weight, dtype):
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(weight.contiguous())
    return codes.flatten(), scales, bnb.functional.int8_vectorwise_dequant(codes, scales).to(dtype)


torch.manual_seed(20261129)
cases = []
for rows, columns, size in [(4, 64, 0.02), (3, 192, 1.0), (6, 128, 30.0)]:
    weight = torch.randn(rows, columns) * size
    weight[1, 64 - columns :] = 0  # a block, or a row, of zeros
    weight[0, :3] = torch.tensor([1.0, -1.0, 0.5]) * weight[0].abs().max()
    for given in [weight, weight.to(torch.bfloat16)]:
        case = {"shape": [rows, columns], "dtype": str(given.dtype).split(".")[1], "weight": bits(given)}
        for name, quantize in [("nf4", nf4), ("int8", int8)]:
            if name == "int8" and columns == 64:
                continue  # a row of zeros is divided by 0 there
            codes, scales, wide = quantize(given, torch.float32)
            half = quantize(given, torch.bfloat16)[2]
            case[name] = {"codes": [c & 0xFF for c in codes.tolist()], "scales": bits(scales.float()), "f32": bits(wide), "bf16": bits(half)}
        cases.append(case)

logits = {}
for name, quantize in [("nf4", nf4), ("int8", int8)]:
    model = LlamaForCausalLM.from_pretrained(HERE / "train/base", dtype=torch.float32)
    for module_name, module in model.named_modules():
        if module_name.endswith("_proj"):
            module.weight.data = quantize(module.weight.data, torch.float32)[2].reshape(module.weight.shape)
    with torch.no_grad():
        last = model(torch.tensor([IDS])).logits[0, -3:]
    logits[name] = {"shape": list(last.shape), "f32": bits(last)}

out = {"bitsandbytes": bnb.__version__, "torch": torch.__version__, "matrices": cases, "ids": IDS, "logits": logits}
(HERE / "quantize.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
