#!/usr/bin/env python3
"""Small tokenizers of the kinds that Llama-architecture models use, chat templates, texts, and HF's ids for them.

Everything in the fixture is this project's own text: the tokenizers are trained on the prompts of this repository.

needs: transformers, tokenizers, jinja2 (no torch)
usage: python tests/golden/prompt_toy.py > tests/golden/prompt_toy.json
"""
import json, os, sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CORPUS = [open(os.path.join(ROOT, "prompts", name), encoding="utf-8").read() for name in ("lcd30.toml", "clinifact.toml")]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEMPLATES = {
    # Strips every message, prints BOS, knows the date.
    "headers": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
""",
    # Verbatim messages.
    "lines": "{% for message in messages %}{{'<|head|>' + message['role'] + '\n' + message['content'] + '<|eot|>' + '\n'}}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<|head|>assistant\n' }}{% endif %}",
    # The system message inside the user's, written as plain text, BOS by name.
    "inst": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
            "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
            "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
            "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
            "{% else %}{% set content = message['content'] %}{% endif %}"
            "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% endif %}{% endfor %}",
    # One-sided stripping, blocks on lines of their own, `{% generation %}`.
    "blocks": """{% for message in messages %}
    {% if message.role == 'system' %}
<|head|>{{ message.content.rstrip() }}
    {% else %}
<|eot|>
    {%- generation %}{{ message.content.lstrip() }}{% endgeneration %}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|/head|>
{% endif %}
""",
}

TEXTS = [
    ("You sort notes.", "Note:\n\nStable, 64 y/o; BP 120/80.\n\nDeath or alive?", "Reasoning: "),
    ("  padded system \n", "\n\n  padded user\u00a0text \t\n", "Reasoning:"),
    ("Ünïcødé — “quotes”", "日本語のノート\r\n\r\n\u2028x 😀👩‍⚕️ e\u0301", ""),
    ("a", "b", "c"),
    ("line\n\n\nline", "   \n x   y \n\n ", "\n\n"),
    ("Tabs\there", "1234567 3.14 it's WE'LL don't\n\n\tindented", "Reasoning: 1"),
]


def added(content, special=True, **flags):
    return AddedToken(content, special=special, normalized=False, **flags)


def byte_level(flags):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    names = ["<|bos|>", "<|head|>", "<|/head|>", "<|eot|>"]
    tokenizer.add_tokens([added(name, **(flags if name != "<|bos|>" else {})) for name in names])
    tokenizer.add_tokens([added("<think>", special=False)])
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|bos|> $A", pair="<|bos|> $A <|bos|> $B", special_tokens=[("<|bos|>", bos)])])
    return tokenizer, "<|bos|>", "<|eot|>"


def sentencepiece(scheme):
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=specials, show_progress=False, max_token_length=8)
    train = Tokenizer(models.BPE())
    train.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True)
    train.train_from_iterator(CORPUS, trainer)
    model = json.loads(train.to_str())["model"]
    # Conversions of sentencepiece models leave merges that spell control tokens.
    vocab, merges = model["vocab"], [tuple(merge) for merge in model["merges"]]
    for piece in ("<", "/", "s", ">", "<s", "</", "</s"):
        vocab.setdefault(piece, len(vocab))
    merges += [("<", "s"), ("<s", ">"), ("<", "/"), ("</", "s"), ("</s", ">")]
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    tokenizer.add_special_tokens([added("<unk>"), added("<s>"), added("</s>")])
    tokenizer.add_tokens([added(name) for name in ("<|head|>", "<|/head|>", "<|eot|>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])])
    return tokenizer, "<s>", "</s>"


def main():
    kinds = {"byte_level": byte_level({}), "byte_level_strips": byte_level({"lstrip": True, "rstrip": True}),
             "byte_level_rstrips": byte_level({"rstrip": True}), "metaspace_first": sentencepiece("first"),
             "metaspace_always": sentencepiece("always"), "prepend": sentencepiece("normalizer")}
    out = {"templates": TEMPLATES, "texts": TEXTS, "tokenizers": {}}
    for name, (tokenizer, bos, eos) in kinds.items():
        hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
        cases = []
        for template, source in TEMPLATES.items():
            for index, (system, user, prefix) in enumerate(TEXTS):
                for with_system in (True, False):
                    messages = [{"role": "system", "content": system}] * with_system + [{"role": "user", "content": user}]
                    text = hf.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
                    cases.append([template, index, with_system, hf(text + prefix, add_special_tokens=False)["input_ids"]])
        plain = [hf(f"{system}\n\n{user}\n\n{prefix}")["input_ids"] for system, user, prefix in TEXTS]
        targets = [hf(user, add_special_tokens=False)["input_ids"] + [hf.eos_token_id] for _, user, _ in TEXTS]
        decoded = [hf.decode(ids, skip_special_tokens=True) for ids in targets]
        out["tokenizers"][name] = {"tokenizer": json.loads(tokenizer.to_str()), "bos_token": bos, "eos_token": eos,
                                   "chat": cases, "plain": plain, "targets": targets, "decoded": decoded}
    json.dump(out, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    print()


main()
