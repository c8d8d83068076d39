"""FP8 by PyTorch on a CPU: the reference of tests/golden/fp8.rs.

    python tests/golden/fp8.py  (torch, transformers, peft; writes tests/golden/fp8.json and fp8.safetensors)

Codes of all bf16 numbers and of f32 numbers by torch.float8_e4m3fn, which makes no number of what is too large: clamped to
448 before, as CUDA's __NV_SATFINITE does. Then a projection and the gradient of its input: rows scaled by their largest
magnitude over 448, cast to float8_e4m3fn and back, multiplied in f32, multiplied by the scales. Then, with all seven
projections of a layer so computed, the losses of tests/golden/model's batches and the gradient of adapters and head.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
import model as golden

HERE = Path(__file__).parent
LARGEST = 448.0
E4M3 = torch.float8_e4m3fn


def bits(x):
    return [n & 0xFFFFFFFF for n in x.contiguous().view(torch.int32).flatten().tolist()]


def codes(x):
    return x.float().clamp(-LARGEST, LARGEST).to(E4M3).view(torch.uint8).flatten().tolist()


def rows(x):
    """(codes, what they stand for, scales) of x, a scale a row."""
    scale = x.abs().amax(1, keepdim=True) / LARGEST
    scale[scale == 0] = 1
    coded = (x / scale).clamp(-LARGEST, LARGEST).to(E4M3)
    return coded.view(torch.uint8), coded.float(), scale


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, scale, bias):
        _, q, x_scale = rows(x.flatten(0, -2))
        ctx.save_for_backward(weight, scale)
        y = (q @ weight.T * x_scale * scale.T).unflatten(0, x.shape[:-1])
        return y if bias is None else y + bias

    @staticmethod
    def backward(ctx, dy):
        weight, scale = ctx.saved_tensors
        _, q, dy_scale = rows(dy.flatten(0, -2) * scale.T)
        return (q @ weight * dy_scale).unflatten(0, dy.shape[:-1]), None, None, None


def in_fp8(model):
    for name, module in model.named_modules():
        if name.endswith("_proj.base_layer") or (name.endswith("_proj") and isinstance(module, torch.nn.Linear)):
            _, weight, scale = rows(module.weight.data)
            module.forward = lambda x, weight=weight, scale=scale, module=module: Product.apply(x, weight, scale, module.bias)
    return model


# Runs of bf16 numbers with one code: [first bits, code].
of_bf16 = codes(torch.arange(65536, dtype=torch.int32).to(torch.int16).view(torch.bfloat16))
runs = [[i, code] for i, code in enumerate(of_bf16) if i == 0 or code != of_bf16[i - 1]]

torch.manual_seed(20261129)
values = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(E4M3).float()
finite = values[values.isfinite()].sort().values.unique()
ties = (finite[1:] + finite[:-1]) / 2
beside = [torch.nextafter(x, torch.tensor(to)) for x in (ties, finite) for to in (-1e9, 1e9)]
random = torch.randn(600) * 2.0 ** torch.randint(-14, 12, (600,))
single = torch.cat([finite, ties, *beside, random, torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-40])])

products = []
for tokens, width, out, size in [(5, 48, 32, 1.0), (3, 20, 7, 1e-3), (9, 128, 32, 40.0)]:
    x = torch.randn(tokens, width) * size * torch.rand(tokens, 1) * 4
    x[1] = 0
    weight = torch.randn(out, width) * 0.02 * torch.rand(out, 1)
    weight[2] = 0
    bias = torch.randn(out) * size
    dy = torch.randn(tokens, out) * size * 1e-3
    w_codes, w, w_scale = rows(weight)
    x_codes, q, x_scale = rows(x)
    y = q @ w.T * x_scale * w_scale.T
    _, dq, dy_scale = rows(dy * w_scale.T)
    dx = dq @ w * dy_scale
    products.append(
        {"tokens": tokens, "in": width, "out": out, "x": bits(x), "weight": bits(weight), "bias": bits(bias), "dy": bits(dy),
         "codes": w_codes.flatten().tolist(), "scales": bits(w_scale), "y": bits(y), "biased": bits(y + bias), "dx": bits(dx)})  # fmt: skip

gradients = {}
for case in ["gqa", "llama3", "bias"]:
    folder = HERE / "model" / case
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tuned = in_fp8(PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).eval())
    head = golden.Head(base.config.hidden_size).eval()
    head.load_state_dict(load_file(folder / "cls_head.safetensors"))
    batch = json.loads((folder / "batch.json").read_text())["sequences"]
    losses, grads = golden.gradients(tuned, head, batch, adapter=True)
    gradients |= {f"{case}.loss": losses} | {f"{case}.grad.{name}": grad for name, grad in grads.items()}
save_file({name: tensor.float().contiguous() for name, tensor in gradients.items()}, HERE / "fp8.safetensors")

out = {"torch": torch.__version__, "bf16": runs, "f32": [list(pair) for pair in zip(bits(single), codes(single))],
       "values": bits(values), "products": products}  # fmt: skip
(HERE / "fp8.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
