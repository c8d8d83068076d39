#!/usr/bin/env python3
"""The peer of `cargo bench --bench gpu` on a GPU: transformers + PEFT, the same joint training step, random bf16 weights.

    gpu_peer.py [--shape 8b] [--tokens 512,2048,7424] [--attention sdpa,flash_attention_2] [--device cuda] [--steps 5]

Adapters r = 8 on q, k, v, o (PEFT holds them in f32), the 2,048-wide head in f32, LM head on the target rows alone (`peer.py`); gradient
checkpointing on and off. Prints a line of JSON a case: median seconds of a step, tokens a second, the most memory allocated. A case that
fails, for want of memory or of flash-attn, is a line that says so. Needs: pip install torch transformers peft [flash-attn].
"""
import argparse
import json
import statistics
import time

import torch

from peer import SHAPES, joint_step, random_llama


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def case(a, tokens, attention, checkpointing):
    with a.device:
        # Born in bf16 where it stays: in f32 it would take twice the memory first.
        torch.set_default_dtype(torch.bfloat16)
        base = random_llama(a.shape, "bf16", attention).train()
        torch.set_default_dtype(torch.float32)
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    step = joint_step(base, tokens, min(tokens // 4, 384))
    seconds = []
    for _ in range(a.steps + 1):
        wait(a.device)
        start = time.perf_counter()
        step()
        wait(a.device)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    peak = torch.cuda.max_memory_allocated() / 1e9 if a.device.type == "cuda" else None
    return dict(seconds=median, tokens_per_second=tokens / median, peak_gb=peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--tokens", default="512,2048,7424")
    parser.add_argument("--attention", default="sdpa,flash_attention_2")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--steps", type=int, default=5)
    a = parser.parse_args()
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if a.device.type == "cuda" else "cpu"
    print(json.dumps(dict(device=name, torch=torch.__version__, shape=a.shape)), flush=True)
    for attention in a.attention.split(","):
        for tokens in map(int, a.tokens.split(",")):
            for checkpointing in (True, False):
                if a.device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                line = dict(work="train", tokens=tokens, attention=attention, checkpointing=checkpointing)
                try:
                    line |= case(a, tokens, attention, checkpointing)
                except (RuntimeError, ImportError, ValueError) as error:
                    line |= dict(error=(str(error).splitlines() or [type(error).__name__])[0])
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
