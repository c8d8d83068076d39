"""Ten optimizer steps of the joint objective in PyTorch + PEFT: the reference of tests/train.rs.

    python tests/golden/train.py [CLASSES [W [weights]]]  (torch, transformers, peft, scikit-learn; writes
    tests/golden/train/)

Writes a tiny random base model with a byte tokenizer, a checkpoint to start from (`train.init_from`), eleven records of
which three have no explanation, and what each step must log. Dropout is off: its masks are ours alone. With a number of
classes (3 and 7 are kept; after the run without one, which empties the folder) the same over a head of so many and label
smoothing of 0.1, in `train/classes-K/`, over the same base. With W too (2 0.7 is kept) the consistency loss by that
weight beside the others, in `train/consistency/`. With `weights` (2 0 weights is kept) classes weighted by
scikit-learn's "balanced", the logits of the loss moved by their logarithms, in `train/weights/`.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sklearn.utils.class_weight import compute_class_weight
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_linear_schedule_with_warmup

CLASSES = int(sys.argv[1]) if len(sys.argv) > 1 else 2
TWO = CLASSES == 2
W_CONSISTENCY = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
WEIGHTED = sys.argv[3:] == ["weights"]
FIRST = TWO and W_CONSISTENCY == 0.0 and not WEIGHTED
BASE = Path(__file__).parent / "train/base"
FOLDER = "train/weights" if WEIGHTED else "train/consistency" if TWO else f"train/classes-{CLASSES}"
OUT = Path(__file__).parent / ("train" if FIRST else FOLDER)
LABELS = ["0:alive", "1:death"] if TWO else [f"{k}:{'abcdefg'[k]}" for k in range(CLASSES)]
SMOOTHING = 0.0 if TWO else 0.1
PROMPT = {
    "system": "You read notes.",
    "user": "Note: {document}",
    "question": "Dead or alive?",
    "prefix": "Reasoning: ",
    "response": "{explanation}\n\nClassification: {label}\n\n",
    "format": "plain",
}
BATCH, ACCUMULATION, EPOCHS, STEPS, WARMUP, LR, DECAY, CLIP = 2, 2, 4, 10, 3, 5e-3, 0.01, 1.0
W_GEN, W_CLS = 1.0, 0.5


def byte_tokenizer():
    printable = lambda b: 33 <= b <= 126 or 161 <= b <= 172 or b >= 174
    symbols, extra = [], 0
    for b in range(256):
        symbols.append(chr(b) if printable(b) else chr(256 + extra))
        extra += not printable(b)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    eot = {"id": 256, "content": "<|eot|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [eot], "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {s: b for b, s in enumerate(symbols)}, "merges": []},
    }


def records():
    rows = []
    for i in range(11):
        row = {"id": f"n{i}", "text": f"Patient {i} has " + "fever and a cough " * (1 + i % 4), "label": int(i % 3 == 0) if TWO else i % CLASSES}
        if i % 4 != 2:
            row["explanation"] = f"The note mentions fever {1 + i % 4} times" + ", which is grave." * (i % 3)
        rows.append(row)
    return rows


class Head(torch.nn.Module):
    def __init__(self, d, hidden):
        super().__init__()
        self.dense, self.out = torch.nn.Linear(d, hidden), torch.nn.Linear(hidden, CLASSES)

    def forward(self, h):
        return self.out(torch.nn.functional.gelu(self.dense(h)))


def build():
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, rms_norm_eps=1e-5, max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None, eos_token_id=256,
        initializer_range=0.2, attn_implementation="eager",
    )
    base = LlamaForCausalLM(config).float()
    if FIRST:
        base.save_pretrained(BASE)
        (BASE / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
        (BASE / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eot|>", "tokenizer_class": "PreTrainedTokenizerFast"}))
    for name, kept in load_file(BASE / "model.safetensors").items():
        assert torch.equal(base.state_dict()[name], kept), f"{name}: train/base is of another torch: write all of it anew"
    lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for name, p in model.named_parameters():
        if "lora_B" in name:  # zero at birth: nothing would tell A's gradient from none
            torch.nn.init.normal_(p, std=0.1)
    return model, Head(32, 16)


def save_init(model, head):
    model.save_pretrained(OUT / "init")
    (OUT / "init/README.md").unlink(missing_ok=True)
    save_file({k: v.detach().clone() for k, v in head.state_dict().items()}, OUT / "init/cls_head.safetensors")
    clsgen = {"schema": 1, "base_model": "../base" if FIRST else "../../base", "labels": LABELS, "prompt": PROMPT,
              "head": {"hidden": 16, "activation": "gelu", "dropout": 0.0}, "max_input_tokens": 256, "max_output_tokens": 96}
    (OUT / "init/clsgen.json").write_text(json.dumps(clsgen, indent=1))


def encode(tokenizer, row):
    parts = [PROMPT["system"], PROMPT["user"].format(document=row["text"]), PROMPT["question"], PROMPT["prefix"]]
    prompt = tokenizer("\n\n".join(parts))["input_ids"]
    if "explanation" not in row:
        return prompt, []
    target = PROMPT["response"].format(explanation=row["explanation"], label=LABELS[row["label"]])
    return prompt, tokenizer(target, add_special_tokens=False)["input_ids"] + [256]


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    rows = records()
    (OUT / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, head = build()
    save_init(model, head)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BASE)
    encoded = [(*encode(tokenizer, row), row["label"]) for row in rows]

    parameters = [p for p in model.parameters() if p.requires_grad] + list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY)
    groups = [encoded[i:i + BATCH * ACCUMULATION] for i in range(0, len(encoded), BATCH * ACCUMULATION)]
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, EPOCHS * len(groups))
    ce = lambda logits, targets, smoothing=0.0, weight=None: torch.nn.functional.cross_entropy(
        logits, torch.tensor(targets), reduction="sum", label_smoothing=smoothing, weight=weight)
    weights, moved = None, 0.0
    if WEIGHTED:
        labels = [row["label"] for row in rows]
        weights = compute_class_weight("balanced", classes=np.arange(CLASSES), y=labels)
        weights = torch.tensor(weights, dtype=torch.float32)
        moved = torch.log(weights)
    label_ids = torch.tensor([tokenizer(" " + label, add_special_tokens=False)["input_ids"][1] for label in LABELS])
    lines = []
    for step in range(STEPS):
        group = groups[step % len(groups)]
        targets, gen, cls, apart = sum(len(target) for _, target, _ in group), 0.0, 0.0, 0.0
        explained = sum(bool(target) for _, target, _ in group)
        optimizer.zero_grad()
        for prompt, target, label in group:
            hidden = model.model.model(input_ids=torch.tensor([prompt + target])).last_hidden_state[0]
            of_head = head(hidden[len(prompt) - 1:len(prompt)])
            loss_cls = ce(of_head + moved, [label], SMOOTHING, weights) / len(group)
            loss = W_CLS * loss_cls
            cls += loss_cls.item()
            if target:
                of_text = model.model.lm_head(hidden[len(prompt) - 1:-1])
                loss_gen = ce(of_text, target) / targets
                loss = loss + W_GEN * loss_gen
                gen += loss_gen.item()
                if W_CONSISTENCY:
                    verdict = bytes(target[:-1]).decode().rindex(LABELS[label])
                    assert target[verdict] == label_ids[label]
                    log_q = torch.log_softmax(of_text[verdict, label_ids], 0)
                    log_p = torch.log_softmax(of_head[0], 0)
                    kl = torch.nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True) / explained
                    loss = loss + W_CONSISTENCY * kl
                    apart += kl.item()
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP).item()
        lr = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        loss = W_GEN * gen + W_CLS * cls + W_CONSISTENCY * apart
        more = {"loss_consistency": apart if explained else None} if W_CONSISTENCY else {}
        lines.append({"step": step + 1, "epoch": step // len(groups) + 1, "loss": loss, **more, "loss_gen": gen if targets else None,
                      "loss_cls": cls, "lr": lr, "grad_norm": norm, "records": len(group), "target_tokens": targets,
                      "tokens": sum(len(p) + len(t) for p, t, _ in group)})
    (OUT / "expected.json").write_text(json.dumps(lines, indent=1))
    final = {n.replace(".default", ""): p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    final |= {f"cls_head.{n}": p.detach().clone() for n, p in head.named_parameters()}
    save_file(final, OUT / "final.safetensors")


if __name__ == "__main__":
    main()
