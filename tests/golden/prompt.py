#!/usr/bin/env python3
"""Token ids of prompts as HF transformers makes them, for tests/prompt.rs.

The records are third-party text, so the fixture holds hashes only: a line a case,
`tokenizer form record tokens hash`, the hash being 64-bit FNV-1a over the ids as little-endian u32.

needs: transformers, jinja2 (no torch)
usage: python tests/golden/prompt.py SMOLLM2_DIR LLAMA3_TOKENIZER_DIR CLINIFACT_DIR > tests/golden/prompt.txt
"""
import csv, os, struct, sys, tomllib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from transformers import AutoTokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RECORDS = 200


def fill(text, fields):
    for name, value in fields.items():
        text = text.replace("{" + name + "}", value)
    return text


def fnv1a(ids):
    digest = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}I", *ids):
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return f"{digest:016x}"


def prompt_ids(tokenizer, template, fields, plain):
    system, user, question, prefix = (template[key] for key in ("system", "user", "question", "prefix"))
    # One pass: a field's own braces are not placeholders (no record of CliniFact has `{claim}` or `{abstract}`).
    user = fill(user, fields)
    if plain:
        return tokenizer(system + "\n\n" + user + "\n\n" + question + "\n\n" + prefix)["input_ids"]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user + "\n\n" + question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text + prefix, add_special_tokens=False)["input_ids"]


def main():
    smollm2, llama3, clinifact = sys.argv[1:]
    template = tomllib.load(open(os.path.join(ROOT, "prompts", "clinifact.toml"), "rb"))
    with open(os.path.join(clinifact, "validation_set.csv"), newline="", encoding="utf-8") as file:
        rows = [row for _, row in zip(range(RECORDS), csv.DictReader(file))]
    for name, path in (("smollm2", smollm2), ("llama3", llama3)):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        for form in ("chat", "plain", "target"):
            for index, row in enumerate(rows):
                fields = {"claim": row["claim"], "abstract": row["article_abstract"]}
                if form == "target":
                    # The abstract stands for an explanation: any real text will do.
                    text = template["response"].replace("{label}", "TRUE").replace("{explanation}", fields["abstract"])
                    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
                else:
                    ids = prompt_ids(tokenizer, template, fields, form == "plain")
                print(name, form, index, len(ids), fnv1a(ids))


main()
