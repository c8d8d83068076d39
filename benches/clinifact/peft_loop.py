#!/usr/bin/env python3
"""The same joint training as `clsgen train`, written with transformers + PEFT: the peer of the README's CliniFact run.

    python peft_loop.py --model DIR --prompt prompts/clinifact.toml --train T.jsonl --dev D.jsonl --out DIR \\
        [--epochs N] [--lr 1e-3] [--warmup 5] [--accumulation 8] [--max-input 1024] [--max-output 96] [--skip-before]

Needs: pip install torch transformers peft scikit-learn. Records are canonical JSONL (`prepare.py` makes them). Same
prompt, target, losses, schedule, clipping and step arithmetic as the Rust trainer; its own dropout, initialisation and
record order (torch's generator). Writes `before.jsonl` and `after.jsonl` (id, label, probability of the dev split: input
for `clsgen eval --predictions`) and `result.json` (AUROC, losses, tokens/s, peak memory).
"""
import argparse
import json
import math
import os
import resource
import time
import tomllib

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

LABELS = ["FALSE", "TRUE"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["model", "prompt", "train", "dev", "out"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--accumulation", type=int, default=8)
    parser.add_argument("--max-input", type=int, default=1024)
    parser.add_argument("--max-output", type=int, default=96)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-before", action="store_true", help="do not score dev under the untrained head")
    return parser.parse_args()


class Encoder:
    """Token ids of a record's prompt and target, by the project's rules (document cut at its tail)."""

    def __init__(self, args):
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        self.prompt_file = tomllib.load(open(args.prompt, "rb"))
        self.args = args

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def render(self, record):
        spec = self.prompt_file
        user = spec["user"].replace("{claim}", record["claim"]).replace("{abstract}", record["abstract"])
        messages = [
            {"role": "system", "content": spec["system"]},
            {"role": "user", "content": user + "\n\n" + spec["question"]},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.ids(text + spec["prefix"])

    def prompt(self, record):
        ids = self.render(record)
        document = self.ids(record["abstract"])
        while len(ids) > self.args.max_input:
            document = document[: len(document) - (len(ids) - self.args.max_input)]
            ids = self.render({**record, "abstract": self.tokenizer.decode(document)})
        return ids

    def target(self, record):
        close = f"\n\nClassification: {LABELS[record['label']]}\n\n"
        eos = [self.tokenizer.eos_token_id]
        words = self.ids(record["explanation"])
        ids = self.ids(record["explanation"] + close) + eos
        while len(ids) > self.args.max_output:
            words = words[:-1]
            ids = self.ids(self.tokenizer.decode(words) + close) + eos
        return ids


class Head(torch.nn.Module):
    def __init__(self, width, hidden=2048, dropout=0.1):
        super().__init__()
        self.dense = torch.nn.Linear(width, hidden)
        self.dropout = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(hidden, 2)

    def forward(self, h_n):
        return self.out(self.dropout(F.gelu(self.dense(h_n))))


def probabilities(model, head, prompts):
    model.eval(), head.eval()
    rows = []
    with torch.no_grad():
        for ids in prompts:
            hidden = model.base_model.model.model(input_ids=torch.tensor([ids])).last_hidden_state
            rows.append(torch.softmax(head(hidden[:, -1]), -1)[0, 1].item())
    model.train(), head.train()
    return rows


def write_predictions(path, records, values):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        for record, value in zip(records, values):
            out.write(json.dumps({"id": record["id"], "label": record["label"], "probability": value, "group": record["group"]}) + "\n")


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    encoder = Encoder(args)
    train, dev = ([json.loads(line) for line in open(path, encoding="utf-8")] for path in (args.train, args.dev))
    examples = [(encoder.prompt(r), encoder.target(r), r["label"]) for r in train]
    dev_prompts = [encoder.prompt(r) for r in dev]
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    head = Head(base.config.hidden_size)
    labels, before = [r["label"] for r in dev], None
    if not args.skip_before:
        before = probabilities(model, head, dev_prompts)
        write_predictions(f"{args.out}/before.jsonl", dev, before)
        print("before", roc_auc_score(labels, before), flush=True)

    params = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=args.lr, weight_decay=0.01)
    total = args.epochs * math.ceil(len(examples) / args.accumulation)
    schedule = get_linear_schedule_with_warmup(optimizer, args.warmup, total)
    generator = torch.Generator().manual_seed(args.seed)
    started, tokens, log = time.time(), 0, []
    model.train(), head.train()
    for _ in range(args.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for first in range(0, len(order), args.accumulation):
            group = [examples[i] for i in order[first : first + args.accumulation]]
            targets = sum(len(target) for _, target, _ in group)
            gen = cls = 0.0
            for prompt, target, label in group:
                hidden = model.base_model.model.model(input_ids=torch.tensor([prompt + target[:-1]])).last_hidden_state[0]
                logits = base.lm_head(hidden[len(prompt) - 1 :])
                loss_gen = F.cross_entropy(logits, torch.tensor(target), reduction="sum") / targets
                loss_cls = F.cross_entropy(head(hidden[len(prompt) - 1 : len(prompt)]), torch.tensor([label])) / len(group)
                (loss_gen + loss_cls).backward()
                gen, cls, tokens = gen + loss_gen.item(), cls + loss_cls.item(), tokens + len(prompt) + len(target) - 1
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step(), schedule.step(), optimizer.zero_grad(set_to_none=True)
            log.append({"step": len(log) + 1, "loss_gen": gen, "loss_cls": cls})
            print(log[-1], round(tokens / (time.time() - started), 1), "tok/s", flush=True)
    seconds = time.time() - started
    after = probabilities(model, head, dev_prompts)
    write_predictions(f"{args.out}/after.jsonl", dev, after)
    model.save_pretrained(f"{args.out}/adapter")
    result = {
        "auroc_before": roc_auc_score(labels, before) if before else None, "auroc_after": roc_auc_score(labels, after),
        "tokens_per_s": tokens / seconds, "seconds": seconds, "steps": log,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": {"torch": torch.__version__, "threads": args.threads}, "arguments": vars(args),
    }
    json.dump(result, open(f"{args.out}/result.json", "w"), indent=1)
    print(json.dumps({k: v for k, v in result.items() if k not in ("steps", "arguments")}))


if __name__ == "__main__":
    main()
