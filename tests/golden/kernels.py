#!/usr/bin/env python3
"""Every kernel against PyTorch on the same machine: our error may be twice that of PyTorch's own bf16.

    kernels.py [CLSGEN] [--device cpu|cuda]

Runs `CLSGEN selftest --device DEVICE --write DIR` (default: target/release/clsgen), which leaves inputs and outputs of the kernels, forward and
backward, in DIR; then computes the same with torch on the same device, in bf16 as users of transformers would, and in f64. An error is
|x - f64| / |f64| over a tensor. Beside the factor of two, 2e-6 are allowed for sums in f32. Prints a table; exit 1 on a miss.
Needs: pip install torch safetensors numpy.
"""
import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

F32_SUMS = 2e-6


def attend(q, k, v):
    """One sequence: (queries, heads, d) over (keys, kv_heads, d), causal, the last query at the last key."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
    if q.dtype != torch.float64:
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)[0].transpose(0, 1)
    # A head at a time, since 7,424 x 7,424 scores in f64 take 440 MB.
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    heads = []
    for h in range(q.shape[1]):
        scores = (q[0, h] @ k[0, h].T * q.shape[3] ** -0.5).masked_fill(~mask, -torch.inf)
        heads.append(scores.softmax(-1) @ v[0, h])
    return torch.stack(heads, 1)


def gradients(y, dy, **inputs):
    found = torch.autograd.grad(y, list(inputs.values()), dy, retain_graph=True)
    return {f"d{name}": gradient for name, gradient in zip(inputs, found)}


def attention(i):
    lengths = [int(n) for n in i.lengths]
    y = torch.cat([attend(*each) for each in zip(*(x.split(lengths) for x in (i.q, i.k, i.v)))])
    return {"y": y, **gradients(y, i.dy, q=i.q, k=i.k, v=i.v)}


def decode(i):
    rows = []
    for n, (prefix, own) in enumerate(i.lengths.reshape(-1, 2).int().tolist()):
        k, v = (torch.cat([shared[:prefix], mine[:own]]) for shared, mine in ((i.prefix_k, i.own_k), (i.prefix_v, i.own_v)))
        rows.append(attend(i.q[n : n + 1], k, v))
    return {"y": torch.cat(rows)}


def rms_norm(i):
    # As transformers' LlamaRMSNorm: the norm in f32, rounded, times the weight.
    wide = i.x.float() if i.x.dtype == torch.bfloat16 else i.x
    y = i.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(i.x.dtype)
    return {"y": y, **gradients(y, i.dy, x=i.x, weight=i.weight)}


def add(i):
    return {"y": i.a + i.b}


def rope(i):
    # Angles are a product in f32, in both.
    angles = (i.positions.float()[:, None] * i.inv_freq.float()[None]).repeat(1, 2)[:, None]
    wide = angles if i.q.dtype == torch.bfloat16 else angles.double()
    cos, sin = wide.cos().to(i.q.dtype), wide.sin().to(i.q.dtype)

    def turn(x):
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin

    q, k = turn(i.q), turn(i.k)
    return {"q": q, "k": k, **gradients(q, i.q.detach(), q=i.q), **gradients(k, i.k.detach(), k=i.k)}


def swiglu(i):
    y = F.silu(i.gate) * i.up
    return {"y": y, **gradients(y, i.dy, gate=i.gate, up=i.up)}


def cross_entropy(i):
    # transformers computes losses in f32.
    wide = i.logits.float() if i.logits.dtype == torch.bfloat16 else i.logits
    losses = F.cross_entropy(wide, i.targets.long(), reduction="none")
    return {"losses": losses, **gradients(losses, i.scales.to(losses.dtype), logits=i.logits)}


def embedding(i):
    y = F.embedding(i.ids.long(), i.weight)
    return {"y": y, **gradients(y, i.dy, weight=i.weight)}


def linear(i):
    def projection(w, a, b):
        return F.linear(i.x, w) + i.scaling * F.linear(F.linear(i.x, a), b)

    y0, y1 = projection(i.w0, i.a0, i.b0), projection(i.w1, i.a1, i.b1)
    found = torch.autograd.grad([y0, y1], [i.x, i.a0, i.b0, i.a1, i.b1], [i.dy0, i.dy1])
    return {"y0": y0, "y1": y1, **dict(zip(["dx", "da0", "db0", "da1", "db1"], found))}


# What is not a number of bf16.
EXACT = {"lengths", "positions", "inv_freq", "targets", "scales", "ids"}


class Inputs:
    """A case's inputs as attributes, in one type."""

    def __init__(self, tensors, dtype, device):
        for name, x in tensors.items():
            x = x.to(device)
            setattr(self, name, x.float() if name in EXACT else x.to(dtype).requires_grad_())


def relative(x, exact):
    return ((x.double() - exact).norm() / exact.norm()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clsgen", nargs="?", default=str(Path(__file__).parents[2] / "target/release/clsgen"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args()
    # Sums of products in f32, as ours.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    cases = defaultdict(lambda: {"in": {}, "out": {}})
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([a.clsgen, "selftest", "--device", a.device, "--write", folder, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        for name, tensor in load_file(Path(folder) / "kernels.safetensors").items():
            op, case, side, name = name.split("/")
            cases[op, case][side][name] = tensor
    missed = checked = 0
    print(f"{'op':<14} {'case':<28} {'output':<8} {'ours':>9} {'torch':>9}")
    for (op, case), tensors in sorted(cases.items()):
        exact, plain = (globals()[op](Inputs(tensors["in"], dtype, a.device)) for dtype in (torch.float64, torch.bfloat16))
        for name, ours in sorted(tensors["out"].items()):
            reference = exact[name].detach()
            # The scores' gradient of a single token is nothing, and an error relative to it means nothing.
            if reference.norm() < 1e-9:
                continue
            error, bound = relative(ours.to(a.device), reference), relative(plain[name].detach(), reference)
            ok = error <= 2 * bound + F32_SUMS
            checked, missed = checked + 1, missed + (not ok)
            print(f"{op:<14} {case:<28} {name:<8} {error:>9.1e} {bound:>9.1e}  {'ok' if ok else 'MISS'}")
    print(f"{checked - missed} passed, {missed} failed")
    sys.exit(missed > 0 or checked == 0)


if __name__ == "__main__":
    main()
