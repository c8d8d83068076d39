"""Writes the model fixtures: tiny random Llamas whose forward, gradients, training and generation PyTorch computed.

    python tests/golden/model.py        (torch, transformers 5, peft; offline, a CPU, seconds)

One folder a case under tests/golden/model/:

    config.json, model.safetensors      the base, f32 (transformers' own names; v4 or v5 form of the config)
    adapter/                            a LoRA adapter as peft.save_pretrained writes it, lora_B drawn nonzero
    cls_head.safetensors                dense.weight dense.bias out.weight out.bias
    batch.json                          {"sequences": [{"prompt": [ids], "target": [ids], "class": 0|1}, ...]}
    expected.safetensors                what PyTorch computes for batch.json, each sequence alone (no padding), f32:
        base.<s>.hidden.<i>             sequence s (prompt + target), without adapter: output_hidden_states[i]; the last one is
                                        after the final norm; [tokens, hidden]
        base.<s>.logits                 LM head, [tokens, vocab]
        lora.<s>.hidden.<i>, lora.<s>.logits, lora.<s>.cls      the same with the adapter; cls = the head's two logits at t_n
        lora.loss, full.loss            [loss, loss_gen, loss_cls] of the joint loss over the batch, dropout off
        lora.grad.<name>                its gradient for every adapter and head tensor (PEFT's names; cls_head.dense.weight ...)
        full.grad.<name>                with no adapter, for every base and head tensor
    generate.json                       greedy HF generate with the adapter: [{"prompt", "max_new_tokens", "eos", "generated",
                                        "margin"}]; generated holds the new ids, a stop token included; margin is the smallest
                                        gap between the two best logits on the way
    steps.json (case gqa only)          a training run in PyTorch, from adapter/ and cls_head.safetensors:
        "settings"                      batch_size 1, grad_accumulation, epochs, learning_rate, warmup_steps, weight_decay,
                                        max_grad_norm, w_gen, w_cls; file order, no dropout
        "records"                       [{"prompt", "target", "class"}], as in batch.json; "target": [] trains L_cls only
        "lora", "full"                  one object a step: step (from 1), epoch, loss, loss_gen, loss_cls, lr, grad_norm (before
                                        clipping), records, target_tokens. AdamW, clip_grad_norm_, HF's
                                        get_linear_schedule_with_warmup over T = epochs * ceil(n / accumulation) steps; L_gen is
                                        the mean over all target tokens of the step, L_cls over its records; a partial last group
                                        is a step of its own
    steps_lora.safetensors              adapter (PEFT's names) and head (cls_head....) after the last step
    steps_full.safetensors              base and head after the last step of the full-parameter run

The loss of a sequence with prompt p[0..n) and target t[0..m): cross-entropy of t[j] at row n-1+j, j in 0..m; the head reads row
n-1 (t_n). The last target token is not fed to the model in training; rows are causal, so feeding it changes nothing.
"""

import copy
import json
import math
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, get_linear_schedule_with_warmup

HERE = Path(__file__).parent / "model"
HEAD_WIDTH = 12
SHAPE = dict(vocab_size=40, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=2, attn_implementation="eager")
CASES = {
    # grouped queries, head_dim other than hidden / heads, untied; config in the v4 form
    "gqa": dict(form="v4", model=dict(num_key_value_heads=2, head_dim=6, tie_word_embeddings=False, rope_theta=500.0),
                lora=dict(r=3, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    # Llama 3 rope, tied; config in the v5 form, two stop tokens
    "llama3": dict(form="v5", model=dict(num_key_value_heads=1, tie_word_embeddings=True, eos_token_id=[2, 3], rope_parameters=dict(
                       rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=32)),
                   lora=dict(r=2, lora_alpha=5, target_modules=["q_proj", "v_proj"])),
    # biases everywhere, linear rope scaling, one key head a query head; adapters on every projection, rsLoRA
    "bias": dict(form="v4", model=dict(num_key_value_heads=4, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
                                       rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)),
                 lora=dict(r=4, lora_alpha=6, use_rslora=True, target_modules=[
                     "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
}


class Head(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.dense = torch.nn.Linear(hidden, HEAD_WIDTH)
        self.out = torch.nn.Linear(HEAD_WIDTH, 2)

    def forward(self, h):
        return self.out(torch.nn.functional.gelu(self.dense(h)))


def sequence(rng, prompt, target):
    draw = lambda n: torch.randint(4, SHAPE["vocab_size"], (n,), generator=rng).tolist()
    return {"prompt": [1] + draw(prompt - 1), "target": draw(target - 1) + [2] if target else [], "class": int(torch.randint(2, (1,), generator=rng))}


def randomize(model, rng):
    """Weights large enough that every part of the network matters."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=rng)
            p.copy_(1 + 0.2 * noise if "norm" in name else noise * (0.2 if p.dim() == 1 else 1.0 / math.sqrt(p.shape[1])))


def config_json(config, form):
    """The config as transformers 5 writes it, or as transformers 4 did."""
    keys = {k: v for k, v in config.to_diff_dict().items() if k not in ("transformers_version", "_attn_implementation", "attn_implementation")}
    full = config.to_dict()
    keys.update({k: full[k] for k in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias", "tie_word_embeddings", "hidden_act",
                                      "rms_norm_eps", "eos_token_id", "bos_token_id")})
    keys |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_parameters": full["rope_parameters"], "dtype": "float32"}
    if form == "v4":
        rope = dict(keys.pop("rope_parameters"))
        keys["rope_theta"] = rope.pop("rope_theta")
        keys["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
        keys["torch_dtype"] = keys.pop("dtype")
    return dict(sorted(keys.items()))


def run(model, head, record):
    """Hidden states, logits and the head's logits of one sequence."""
    ids = torch.tensor([record["prompt"] + record["target"]])
    out = model(input_ids=ids, output_hidden_states=True)
    hidden = [h[0] for h in out.hidden_states]
    return hidden, out.logits[0], head(hidden[-1][len(record["prompt"]) - 1])


def joint_loss(model, head, records, w_gen=1.0, w_cls=1.0):
    """(loss, loss_gen, loss_cls) with the means of an optimizer step over these records."""
    gen, cls, tokens = torch.zeros(()), torch.zeros(()), 0
    for record in records:
        _, logits, cls_logits = run(model, head, record)
        start, target = len(record["prompt"]) - 1, torch.tensor(record["target"], dtype=torch.long)
        gen = gen + torch.nn.functional.cross_entropy(logits[start:start + len(target)], target, reduction="sum") if len(target) else gen
        cls = cls + torch.nn.functional.cross_entropy(cls_logits, torch.tensor(record["class"]))
        tokens += len(target)
    gen, cls = gen / max(tokens, 1), cls / len(records)
    return w_gen * gen + w_cls * cls, gen, cls


def trained(model, head, adapter):
    """Named trainable tensors: PEFT's file names for adapters, HF's for the base, cls_head.* for the head."""
    rename = lambda n: n.replace(".default.", ".")
    tensors = {rename(n): p for n, p in model.named_parameters() if not adapter or "lora_" in n}
    return tensors | {f"cls_head.{n}": p for n, p in head.named_parameters()}


def gradients(model, head, records, adapter):
    tensors = trained(model, head, adapter)
    for p in tensors.values():
        p.requires_grad_(True)
        p.grad = None
    losses = joint_loss(model, head, records)
    losses[0].backward()
    return torch.stack([x.detach() for x in losses]), {n: p.grad.clone() for n, p in tensors.items()}


def greedy(model, prompt, new, eos):
    out = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=new,
                         do_sample=False, eos_token_id=eos, pad_token_id=2, return_dict_in_generate=True, output_logits=True)
    best = torch.stack([x[0] for x in out.logits]).topk(2).values
    return {"prompt": prompt, "max_new_tokens": new, "eos": eos, "generated": out.sequences[0, len(prompt):].tolist(),
            "margin": float((best[:, 0] - best[:, 1]).min())}


def train(model, head, records, settings, adapter, steps):
    tensors = trained(model, head, adapter)
    for p in model.parameters():
        p.requires_grad_(False)
    for p in tensors.values():
        p.requires_grad_(True)
    optimizer = torch.optim.AdamW(list(tensors.values()), lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    size = settings["grad_accumulation"] * settings["batch_size"]
    total = settings["epochs"] * math.ceil(len(records) / size)
    schedule = get_linear_schedule_with_warmup(optimizer, settings["warmup_steps"], total)
    log = []
    for epoch in range(settings["epochs"]):
        for first in range(0, len(records), size):
            group = records[first:first + size]
            optimizer.zero_grad()
            loss, gen, cls = joint_loss(model, head, group, settings["w_gen"], settings["w_cls"])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(list(tensors.values()), settings["max_grad_norm"])
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            log.append({"step": len(log) + 1, "epoch": epoch + 1, "loss": loss.item(), "loss_gen": gen.item(), "loss_cls": cls.item(), "lr": lr,
                        "grad_norm": norm.item(), "records": len(group), "target_tokens": sum(len(r["target"]) for r in group)})
            if len(log) == steps:
                return log, {n: p.detach().clone().contiguous() for n, p in tensors.items()}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    for number, (name, case) in enumerate(CASES.items()):
        folder = HERE / name
        folder.mkdir(parents=True)
        rng = torch.Generator().manual_seed(20 + number)
        config = LlamaConfig(**(SHAPE | case["model"]))
        base = LlamaForCausalLM(config).eval()
        randomize(base, rng)
        head = Head(config.hidden_size)
        randomize(head, rng)
        state = {n: p.detach().contiguous() for n, p in base.named_parameters()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", config_json(config, case["form"]))
        save_file({n: p.detach() for n, p in head.named_parameters()}, folder / "cls_head.safetensors")
        batch = [sequence(rng, 9, 6), sequence(rng, 5, 4), sequence(rng, 41, 3)]
        batch[0]["class"], batch[1]["class"] = 1, 0
        write_json(folder / "batch.json", {"sequences": batch})

        expected = {}
        with torch.no_grad():
            for s, record in enumerate(batch):
                hidden, logits, _ = run(base, head, record)
                expected |= {f"base.{s}.hidden.{i}": h for i, h in enumerate(hidden)} | {f"base.{s}.logits": logits}
        full = copy.deepcopy(base)
        loss, grads = gradients(full, copy.deepcopy(head), batch, adapter=False)
        expected |= {"full.loss": loss} | {f"full.grad.{n}": g for n, g in grads.items()}

        lora = LoraConfig(lora_dropout=0.05, task_type="CAUSAL_LM", base_model_name_or_path="base", **case["lora"])
        model = get_peft_model(copy.deepcopy(base), lora).eval()
        with torch.no_grad():
            for n, p in model.named_parameters():
                if "lora_" in n:
                    p.copy_(torch.randn(p.shape, generator=rng) * (0.3 if "lora_A" in n else 0.2))
        model.save_pretrained(folder / "adapter")
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
        written = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        written |= {"target_modules": case["lora"]["target_modules"], "base_model_name_or_path": "base"}
        write_json(folder / "adapter" / "adapter_config.json", written)
        with torch.no_grad():
            for s, record in enumerate(batch):
                hidden, logits, cls = run(model, head, record)
                expected |= {f"lora.{s}.hidden.{i}": h for i, h in enumerate(hidden)} | {f"lora.{s}.logits": logits, f"lora.{s}.cls": cls}
            eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
            runs = [greedy(model, record["prompt"], 12, eos) for record in batch]
            runs.append(greedy(model, runs[0]["prompt"], 12, eos + [runs[0]["generated"][:5][-1]]))  # one that stops
            write_json(folder / "generate.json", runs)
        loss, grads = gradients(model, copy.deepcopy(head), batch, adapter=True)
        expected |= {"lora.loss": loss} | {f"lora.grad.{n}": g for n, g in grads.items()}
        save_file({n: t.detach().float().contiguous() for n, t in expected.items()}, folder / "expected.safetensors")

        if name == "gqa":
            settings = dict(batch_size=1, grad_accumulation=4, epochs=4, learning_rate=2e-3, warmup_steps=3, weight_decay=0.01,
                            max_grad_norm=1.0, w_gen=1.0, w_cls=1.0)
            records = [sequence(rng, 4 + i % 5, 0 if i == 6 else 3 + i % 4) for i in range(10)]
            start = lambda: (PeftModel.from_pretrained(copy.deepcopy(base), folder / "adapter", is_trainable=True).eval(), copy.deepcopy(head))
            lora_log, lora_end = train(*start(), records, settings, adapter=True, steps=10)
            full_log, full_end = train(copy.deepcopy(base), copy.deepcopy(head), records, settings, adapter=False, steps=10)
            write_json(folder / "steps.json", {"settings": settings, "records": records, "lora": lora_log, "full": full_log})
            save_file(lora_end, folder / "steps_lora.safetensors")
            save_file(full_end, folder / "steps_full.safetensors")


if __name__ == "__main__":
    main()
