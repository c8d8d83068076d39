#!/usr/bin/env python3
"""How far PyTorch's own bf16 is from its f32, on a whole model: what `clsgen selftest --model DIR` is measured against.

    bf16_gradients.py MODEL_DIR

transformers + PEFT, the same bf16 weights computed in f32 and in bf16, LoRA on all seven projections with a B that is not 0, no dropout, the
joint loss of two records of the text that selftest reads. Prints both losses and 1 - cosine of the adapters' gradients: worst and median.
SmolLM2-135M-Instruct, torch 2.15, transformers 5.23, peft 0.21, AMD EPYC (Zen 5), 2026-11-26: losses 4.3770 and 4.3801, worst 6.3e-3, median 8.7e-4.
"""
import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# First token, prompt, target, class: as in src/selftest/training.rs.
RECORDS = [(0, 71, 20, 0), (91, 40, 7, 1)]


def text():
    source = (Path(__file__).parents[2] / "src/selftest/training.rs").read_text()
    return re.sub(r"\\\n\s*", "", re.search(r'const TEXT: &str = "(.*?)";', source, re.S).group(1))


def draw(parameters, generator, scale):
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale(parameter))


def loss_and_gradients(folder, ids, dtype):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.bfloat16).to(dtype)
    tuned = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    head = torch.nn.Sequential(torch.nn.Linear(base.config.hidden_size, 64), torch.nn.GELU(), torch.nn.Linear(64, 2))
    generator = torch.Generator().manual_seed(5)
    adapters = {name: parameter for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    draw([p for name, p in adapters.items() if "lora_A" in name], generator, lambda p: (3 * p.shape[1]) ** -0.5)
    draw([p for name, p in adapters.items() if "lora_B" in name], generator, lambda p: 0.02)
    draw(head.parameters(), generator, lambda p: 0.02)
    generation, classification = 0, 0
    for first, prompt, target, label in RECORDS:
        record = torch.tensor([[ids[(first + i) % len(ids)] for i in range(prompt + target)]])
        hidden = base.model(input_ids=record, use_cache=False).last_hidden_state
        logits = base.lm_head(hidden[:, prompt - 1 : -1]).float().flatten(0, 1)
        generation = generation + F.cross_entropy(logits, record[0, prompt:], reduction="sum")
        classification = classification + F.cross_entropy(head(hidden[:, prompt - 1].float()), torch.tensor([label]))
    loss = generation / sum(target for _, _, target, _ in RECORDS) + classification / len(RECORDS)
    loss.backward()
    return loss.item(), {name: parameter.grad.double().flatten() for name, parameter in adapters.items()}


def main():
    folder = sys.argv[1]
    ids = AutoTokenizer.from_pretrained(folder)(text())["input_ids"]
    (exact, gradients), (loss, rounded) = (loss_and_gradients(folder, ids, dtype) for dtype in (torch.float32, torch.bfloat16))
    distances = sorted(1 - F.cosine_similarity(gradients[name], rounded[name], dim=0).item() for name in gradients)
    print(f"loss {exact:.4f} in f32, {loss:.4f} in bf16; 1 - cosine: worst {distances[-1]:.1e}, median {distances[len(distances) // 2]:.1e}")


if __name__ == "__main__":
    main()
