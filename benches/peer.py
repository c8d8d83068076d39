#!/usr/bin/env python3
"""The peer: transformers + PEFT on the same work, random weights of the same shape. One line of JSON a process.

    peer.py train  --shape B --tokens 2048 --dtype bf16 [--threads 2]     joint LoRA step, LM head on target rows only, or on all
           [--logits full] [--compile]                                    of them, as with `labels=`; torch.compile
    peer.py infer  --shape B --tokens 2048 --dtype bf16 [--rows 8]        prefill of one prompt, then greedy decoding of its rows
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

SHAPES = {
    "A": dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=688, vocab_size=2048),
    "B": dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536, vocab_size=49152),
    "8b": dict(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336, vocab_size=128256, tie_word_embeddings=False
    ),
}


def random_llama(shape, dtype, attention="sdpa"):
    config = LlamaConfig(**dict(tie_word_embeddings=True) | SHAPES[shape], max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=1e5)
    config._attn_implementation = attention
    return LlamaForCausalLM(config).to({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])


def joint_step(base, tokens, target, logits="target", compiled=False):
    """Adapters on q, k, v, o, the classification head and AdamW around `base`; gives a function that does one step on one record."""
    from peft import LoraConfig, get_peft_model

    config, device = base.config, base.device
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    tuned = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=targets))
    head = torch.nn.Sequential(torch.nn.Linear(config.hidden_size, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 2)).to(device, torch.float32)
    parameters = [p for p in tuned.parameters() if p.requires_grad] + list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids, label = torch.randint(0, config.vocab_size, (1, tokens), device=device), torch.tensor([1], device=device)
    prefix = tokens - target
    body = torch.compile(base.model) if compiled else base.model
    labels = ids[0].clone()
    labels[:prefix] = -100

    def step():
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state
        first = prefix if logits == "target" else 1
        rows = base.lm_head(hidden[:, first - 1 : -1]).float().flatten(0, 1)
        loss = F.cross_entropy(rows, labels[first:]) + F.cross_entropy(head(hidden[:, prefix - 1].float()), label)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def train(a):
    step = joint_step(random_llama(a.shape, a.dtype), a.tokens, a.tokens - a.tokens * 3 // 4, a.logits, a.compile)
    seconds = []
    for _ in range(a.steps + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return dict(tokens_per_second=a.tokens / statistics.median(seconds[1:]))


@torch.inference_mode()
def infer(a):
    llama = random_llama(a.shape, a.dtype).eval()
    ids = torch.randint(0, llama.config.vocab_size, (1, a.tokens))
    new, prefill, decode = 16, [], []
    for _ in range(a.steps + 1):
        cache = DynamicCache(config=llama.config)
        start = time.perf_counter()
        out = llama(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        prefill.append(time.perf_counter() - start)
        if a.rows > 1:
            cache.batch_repeat_interleave(a.rows)
        token = out.logits[:, -1].argmax(-1, keepdim=True).expand(a.rows, -1)
        start = time.perf_counter()
        for _ in range(new):
            out = llama(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        decode.append(time.perf_counter() - start)
    return dict(prefill=a.tokens / statistics.median(prefill[1:]), decode=a.rows * new / statistics.median(decode[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["train", "infer"])
    parser.add_argument("--shape", choices=SHAPES, default="B")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--logits", choices=["full", "target"], default="target")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    result = {"train": train, "infer": infer}[a.work](a)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
